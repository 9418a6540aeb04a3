"""Accuracy against time and size of all experiments, from metrics and run-time records."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad import style, tables
from indad.style import plt

#: Metrics shown, a panel each.
QUALITIES = ("image_auroc", "aupro")
COLUMNS = ("dataset", "experiment", *QUALITIES, "seconds_per_image", "model_mb")


def seconds(record: Path) -> float:
    """Read a job's mean wall time from Snakemake's record; NaN where there is none.

    Records are by-products: a job whose outputs came from elsewhere has none.
    """
    try:
        with record.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return float(np.mean([float(row["s"]) for row in rows])) if rows else float("nan")
    except (OSError, KeyError, ValueError):
        return float("nan")


def size_mb(model: Path, gallery: Path | None, share: float = 1.0) -> float:
    """Return what is needed to score a new image, beside the backbone, in megabytes.

    Args:
        model: the fitted model's file.
        gallery: the feature store that the model compares with, if it does.
        share: of the store's images that are training images.
    """
    size = model.stat().st_size
    return (size + (share * gallery.stat().st_size if gallery else 0)) / 1e6


def gather(metrics: pd.DataFrame, runs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Average quality, time and size of each experiment over the categories of each data set.

    Args:
        metrics: tidy metrics.
        runs: ``dataset, category, experiment, seed`` with ``train`` and ``test`` (numbers of
            images), ``each_image`` (records of the jobs that see all of them), ``each_test`` (of
            those that see the test images), ``model`` and ``gallery`` (files, the latter or None).

    Returns:
        ``COLUMNS``, a row per data set and experiment. What was not measured is NaN.
    """
    rows = []
    for run in runs:
        everything = run["train"] + run["test"]
        spent = sum(seconds(Path(record)) for record in run["each_image"]) / everything
        spent += sum(seconds(Path(record)) for record in run["each_test"]) / run["test"]
        gallery = Path(run["gallery"]) if run["gallery"] else None
        size = size_mb(Path(run["model"]), gallery, run["train"] / everything)
        rows.append((run["dataset"], run["experiment"], spent, size))
    costs = pd.DataFrame(rows, columns=["dataset", "experiment", "seconds_per_image", "model_mb"])
    keys = ["dataset", "experiment"]
    costs = costs.groupby(keys, sort=False).mean()
    quality = metrics.pivot_table(index=keys, columns="metric", values="value", aggfunc="mean")
    found = quality.reindex(index=costs.index, columns=list(QUALITIES)).join(costs)
    return found.reset_index()[list(COLUMNS)]


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
            "Seconds per test image: decoding, backbone and method, with the start of the jobs. "
            "Larger marks: larger\n"
            "model files, which coresets of one fit share. Means over categories and seeds. Grey "
            "line: nothing is both faster and better.",
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
        why = "no masks" if rows[metric].isna().all() else "no run-time records"
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
