"""Accuracy against time and size of all experiments, from metrics and run-time records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad.reporting import runtime, style, tables
from indad.reporting.style import plt

#: Metrics shown, a panel each.
QUALITIES = ("image_auroc", "aupro")
COLUMNS = ("dataset", "experiment", *QUALITIES, "seconds_per_image", "model_mb")


def gather(
    metrics: pd.DataFrame, times: pd.DataFrame, models: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Put quality beside time and size, means over categories and seeds.

    Args:
        metrics: tidy metrics.
        times: every job's, as ``runtime.collect``.
        models: experiment to its model's and its extractor's name.

    Returns:
        ``COLUMNS``, a row per data set and experiment. What was not measured is NaN.
    """
    keys = ["dataset", "experiment"]
    quality = metrics.pivot_table(index=keys, columns="metric", values="value", aggfunc="mean")
    parts = []
    for dataset in dict.fromkeys(times["dataset"]):
        costs = runtime.experiments(times[times["dataset"] == dataset], models)
        parts.append(
            pd.DataFrame(
                {
                    "dataset": dataset,
                    "experiment": costs["experiment"],
                    "seconds_per_image": costs["with_backbone"],
                    "model_mb": costs["model_mb"],
                }
            )
        )
    found = pd.concat(parts).set_index(keys)
    return found.join(quality.reindex(columns=list(QUALITIES))).reset_index()[list(COLUMNS)]


def draw(table: pd.DataFrame, output: Path) -> None:
    """Draw quality against seconds per image, a row of panels per data set.

    Args:
        table: as ``gather``; experiments in the order that gives them their colours.
        output: the PNG file.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    number = {name: i for i, name in enumerate(dict.fromkeys(table["experiment"]))}
    tall = max(2.5, 0.75 + 0.36 * len(number))
    with style.look():
        figure, axes = plt.subplots(
            len(datasets),
            3,
            figsize=(style.WIDTH, 0.75 + tall * len(datasets)),
            width_ratios=(1, 1, 0.85),
            squeeze=False,
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        figure.suptitle(
            "Accuracy against time and size", x=0.012, ha="left", fontsize=11, fontweight="bold"
        )
        for (left, middle, right), dataset in zip(axes, datasets, strict=True):
            rows = table[table["dataset"] == dataset]
            for axis, metric in zip((left, middle), QUALITIES, strict=True):
                _panel(axis, rows, metric, number)
            left.set_title(f"{dataset}: {left.get_title(loc='left')}", loc="left")
            _legend(right, rows, number)
        figure.supxlabel(
            "Seconds per test image: backbone and method, without the start of the jobs. Larger "
            "marks: larger models.\n"
            "Means over categories and seeds. Grey line: nothing is both faster and better.",
            x=0.012, ha="left", fontsize=style.SMALL, color=style.GREY,
        )  # fmt: skip
        style.save(figure, output)


def _area(megabytes: float) -> float:
    """Return a mark's area in square points: a hundredfold size has ten times the area."""
    return float(np.clip(10 * np.sqrt(megabytes), 30, 500))


def _panel(axis: Axes, rows: pd.DataFrame, metric: str, number: Mapping[str, int]) -> None:
    shown = rows.dropna(subset=[metric, "seconds_per_image"])
    title = tables.TITLES[metric].partition(" (")[0]
    axis.set_title(title, loc="left")
    if shown.empty:
        why = "no masks" if metric == "aupro" else "test images of one kind"
        why = why if rows[metric].isna().all() else "no run-time records"
        axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", color=style.GREY)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
        return
    front = pareto(shown["seconds_per_image"].to_numpy(), shown[metric].to_numpy())
    best = shown.iloc[front]
    axis.plot(
        best["seconds_per_image"], 100 * best[metric], color=style.PALE, linewidth=3,
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
    # Never less than a factor of five: small differences in time are no differences.
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
    """Return the indices of what nothing else beats in both, by rising cost.

    Args:
        cost: ``(N,)``, the less the better.
        quality: ``(N,)``, the more the better.
    """
    front: list[int] = []
    for i in np.lexsort((-quality, cost)):
        if not front or quality[i] > quality[front[-1]]:
            front.append(int(i))
    return front


def _legend(axis: Axes, rows: pd.DataFrame, number: Mapping[str, int]) -> None:
    """Name the marks, with time and size in figures."""
    axis.axis("off")
    for row in rows.itertuples():
        time = "no record" if np.isnan(row.seconds_per_image) else _time(row.seconds_per_image)
        axis.plot(
            [], [], linestyle="", markersize=np.sqrt(_area(row.model_mb)), markeredgecolor="white",
            label=f"{style.shorten(row.experiment, 24)}\n{time}, {_megabytes(row.model_mb)}",
            **style.marker(number[row.experiment]),
        )  # fmt: skip
    axis.legend(
        loc="upper left", frameon=False, borderpad=0, labelspacing=0.6, bbox_to_anchor=(-0.08, 1)
    )


def _time(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _megabytes(value: float) -> str:
    return f"{value:.2g} MB" if value < 10 else f"{value:,.0f} MB"
