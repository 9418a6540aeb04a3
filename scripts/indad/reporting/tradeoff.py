"""Figure of accuracy against time and size of all experiments."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad.reporting import colours, runtime, style, tables
from indad.reporting.numbers import duration, megabytes

#: Metrics shown, one panel each.
QUALITIES = ("image_auroc", "aupro")


def gather(metrics: pd.DataFrame, times: pd.DataFrame, models: runtime.Models) -> pd.DataFrame:
    """Return accuracy, time and size, means over categories and seeds.

    Args:
        metrics: tidy metrics.
        times: run times of all jobs, as ``runtime.collect``.
        models: the names of the experiments' jobs.

    Returns:
        ``dataset, experiment, seconds_per_image, model_mb`` and ``QUALITIES``, one row per data set
        and experiment; NaN if not measured.
    """
    keys = ["dataset", "experiment"]
    quality = metrics.pivot_table(index=keys, columns="metric", values="value", aggfunc="mean")
    costs = [
        runtime.experiments(jobs, models).assign(dataset=dataset)
        for dataset, jobs in times.groupby("dataset", sort=False)
    ]
    found = pd.concat(costs)[[*keys, "with_backbone", "model_mb"]].set_index(keys)
    found = found.rename(columns={"with_backbone": "seconds_per_image"})
    return found.join(quality.reindex(columns=list(QUALITIES))).reset_index()


def draw(table: pd.DataFrame, output: Path) -> None:
    """Draw accuracy against seconds per image, one row of panels per data set.

    Args:
        table: as ``gather``; the order of the experiments determines their colours.
        output: the PNG file.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    number = {name: i for i, name in enumerate(dict.fromkeys(table["experiment"]))}
    tall = max(2.5, 0.75 + 0.36 * len(number))
    with style.panels(
        output,
        "Accuracy against time and size",
        len(datasets),
        3,
        height=0.75 + tall * len(datasets),
        width_ratios=(1, 1, 0.85),
    ) as (figure, axes):
        for (left, middle, right), dataset in zip(axes, datasets, strict=True):
            rows = table[table["dataset"] == dataset]
            for axis, metric in zip((left, middle), QUALITIES, strict=True):
                _panel(axis, rows, metric, number)
            left.set_title(f"{dataset}: {left.get_title(loc='left')}", loc="left")
            _legend(right, rows, number)
        figure.supxlabel(
            "Seconds per test image: backbone and method, without the start of the jobs. Larger "
            "marks: larger models.\n"
            "Means over categories and seeds. Grey line: no experiment is both faster and better.",
            x=0.012, ha="left", fontsize=style.SMALL, color=colours.GREY,
        )  # fmt: skip


def _area(megabytes: float) -> float:
    """Return the area of a mark in square points, in proportion to the root of the size."""
    return float(np.clip(10 * np.sqrt(megabytes), 30, 500))


def _panel(axis: Axes, rows: pd.DataFrame, metric: str, number: Mapping[str, int]) -> None:
    shown = rows.dropna(subset=[metric, "seconds_per_image"])
    axis.set_title(tables.SHORT_TITLES[metric], loc="left")
    if shown.empty:
        why = "no masks" if metric == "aupro" else "test images of one kind"
        why = why if rows[metric].isna().all() else "no run-time records"
        axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", color=colours.GREY)
        style.bare(axis)
        return
    front = pareto(shown["seconds_per_image"].to_numpy(), shown[metric].to_numpy())
    best = shown.iloc[front]
    axis.plot(
        best["seconds_per_image"], 100 * best[metric], color=colours.PALE, linewidth=3,
        drawstyle="steps-post", zorder=1,
    )  # fmt: skip
    for row in shown.itertuples():
        axis.scatter(
            row.seconds_per_image,
            100 * getattr(row, metric),
            s=_area(row.model_mb),
            edgecolors="white",
            linewidths=0.8,
            zorder=3,
            **style.marker(number[row.experiment]),
        )
    low, high = shown["seconds_per_image"].min(), shown["seconds_per_image"].max()
    # At least a factor of five, so that small differences in time look small.
    middle, half = np.sqrt(low * high), max(np.sqrt(high / low) * 1.25, np.sqrt(5))
    style.logarithmic(axis, middle / half, middle * half)
    axis.set_xlim(middle / half, middle * half)
    axis.set_xlabel("seconds per image")
    axis.set_ylabel("percent")
    bottom, top = 100 * shown[metric].min(), 100 * shown[metric].max()
    room = max(0.15 * (top - bottom), 0.4)
    axis.set_ylim(bottom - room, top + room)
    axis.locator_params(axis="y", nbins=5)
    axis.grid(True)


def pareto(cost: np.ndarray, quality: np.ndarray) -> list[int]:
    """Return the indices of the Pareto front, by increasing cost.

    Args:
        cost: ``(N,)``, lower is better.
        quality: ``(N,)``, higher is better.
    """
    front: list[int] = []
    for i in np.lexsort((-quality, cost)):
        if not front or quality[i] > quality[front[-1]]:
            front.append(int(i))
    return front


def _legend(axis: Axes, rows: pd.DataFrame, number: Mapping[str, int]) -> None:
    """Draw the legend, with time and size in numbers."""
    axis.axis("off")
    for row in rows.itertuples():
        time = "no record" if np.isnan(row.seconds_per_image) else duration(row.seconds_per_image)
        axis.plot(
            [], [], linestyle="", markersize=np.sqrt(_area(row.model_mb)), markeredgecolor="white",
            label=f"{style.shorten(row.experiment, 24)}\n{time}, {megabytes(row.model_mb)}",
            **style.marker(number[row.experiment]),
        )  # fmt: skip
    axis.legend(
        loc="upper left", frameon=False, borderpad=0, labelspacing=0.6, bbox_to_anchor=(-0.08, 1)
    )
