"""Figure of a category's curves: ROC, precision-recall and per-region overlap.

An experiment has the same colour in all figures, given by its place in ``run.experiments``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad.data.ground_truth import GroundTruth
from indad.evaluation import cases
from indad.evaluation.evaluate import PixelScores
from indad.evaluation.metrics import FPR_LIMIT, ScoreCurve, curve_parts
from indad.reporting import colours, style

#: Maximum distance of a thinned curve from the exact one, in x and y: a third of a pixel.
TOLERANCE = 1e-3


#: The x and y of a curve.
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class DrawnCurve:
    """The points of an experiment's curves, without those that make no visible difference.

    Attributes:
        roc, precision_recall, region_overlap: see `ScoreCurve`.
        auroc, average_precision, aupro: metrics, in [0, 1].
        share: of the positives.
    """

    roc: Points
    precision_recall: Points
    region_overlap: Points
    auroc: float
    average_precision: float
    aupro: float
    share: float

    @classmethod
    def of(cls, parts: Iterable[ScoreCurve]) -> Self:
        """Join the parts of a curve."""
        points, values = [], []
        for part in parts:
            curves = (part.roc(), part.precision_recall(), part.region_overlap())
            points.append([thin(*curve) for curve in curves])
            values.append((part.auroc(), part.average_precision(), part.aupro()))
            share = part.positives / (part.positives + part.negatives)
        joined = [
            (np.concatenate([x for x, _ in each]), np.concatenate([y for _, y in each]))
            for each in zip(*points, strict=True)
        ]
        return cls(*joined, *map(sum, zip(*values, strict=True)), share)


def pixel_curve(
    maps: Sequence[np.ndarray], truth: GroundTruth, folder: Path | None = None
) -> DrawnCurve | None:
    """Return the curve of the pixels of anomaly maps; None without masks."""
    pixels = PixelScores(maps, truth, folder).ordered
    return DrawnCurve.of(curve_parts(pixels)) if pixels else None


def draw_curves(
    names: Sequence[str],
    tables: Sequence[pd.DataFrame],
    by_pixel: Sequence[DrawnCurve | None],
    output: Path,
    *,
    title: str,
) -> None:
    """Draw ROC and precision-recall curves of images, and with masks those of pixels and regions.

    Args:
        names: of the experiments.
        tables: image scores of each experiment, as ``scores.read_table``.
        by_pixel: ``pixel_curve`` of each experiment.
        output: the PNG file.
        title: heading.
    """
    curves = [cases.image_curve(table) for table in tables]
    by_image = [curve and DrawnCurve.of([curve]) for curve in curves]
    labels = tables[0]["label"]
    counts = f"{(labels == 0).sum()} good and {labels.sum()} defective images"
    rows = 1 + any(curve is not None for curve in by_pixel)
    height = 0.5 + 2.75 * rows
    with style.panels(output, title, rows, 3, height=height, space=(0.03, 0.04)) as (_, axes):
        _roc(axes[0, 0], by_image, "Images: ROC")
        _precision_recall(axes[0, 1], by_image, "Images: precision-recall")
        _key(axes[0, 2], names, counts)
        if rows > 1:
            _roc(axes[1, 0], by_pixel, "Pixels: ROC")
            _precision_recall(axes[1, 1], by_pixel, "Pixels: precision-recall")
            _overlap(axes[1, 2], by_pixel)


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove points of a curve without a visible change.

    The curve is divided where ``x`` or ``y`` has changed by ``TOLERANCE``, and the ends of each
    piece are kept. A million points become a few thousand.
    """
    if len(x) < 1 / TOLERANCE:
        return x, y
    piece = np.floor(x / TOLERANCE) + 2 / TOLERANCE * np.floor(y / TOLERANCE)
    start = np.flatnonzero(np.r_[True, piece[1:] != piece[:-1]])
    end = np.r_[start[1:] - 1, len(x) - 1]
    keep = np.unique(np.concatenate([start, end]))
    return x[keep], y[keep]


def _roc(axis: Axes, found: Sequence[DrawnCurve | None], title: str) -> None:
    _draw(axis, found, "roc", title, "false positive rate", "true positive rate")
    axis.plot([0, 1], [0, 1], color=colours.GREY, linewidth=0.8, linestyle=":")
    _values(axis, "AUROC", [curve and curve.auroc for curve in found])


def _precision_recall(axis: Axes, found: Sequence[DrawnCurve | None], title: str) -> None:
    points = "precision_recall"
    _draw(axis, found, points, title, "recall", "precision", drawstyle="steps-pre")
    for curve in [each for each in found if each][:1]:
        axis.axhline(curve.share, color=colours.GREY, linewidth=0.8, linestyle=":")
    _values(axis, "AP", [curve and curve.average_precision for curve in found], falls=True)


def _overlap(axis: Axes, found: Sequence[DrawnCurve | None]) -> None:
    title, x, y = "Regions: overlap (PRO)", "false positive rate", "mean overlap"
    _draw(axis, found, "region_overlap", title, x, y)
    axis.set(xlim=(-0.01 * FPR_LIMIT, 1.01 * FPR_LIMIT), xticks=np.linspace(0, FPR_LIMIT, 4))
    _values(axis, "AUPRO", [curve and curve.aupro for curve in found])


def _draw(
    axis: Axes,
    found: Sequence[DrawnCurve | None],
    points: str,
    title: str,
    x: str,
    y: str,
    **options: Any,
) -> None:
    """Draw the attribute ``points`` of each curve; the first is thickest, so that it is visible."""
    for i, curve in enumerate(found):
        width = 2.8 - 1.6 * i / max(len(found) - 1, 1)
        shown = getattr(curve, points) if curve else ([], [])
        axis.plot(*shown, **style.line(i), linewidth=width, **options)
    limits, ticks = (-0.01, 1.01), np.linspace(0, 1, 6)
    axis.set(xlim=limits, ylim=limits, xticks=ticks, yticks=ticks, xlabel=x, ylabel=y)
    axis.set_title(title, loc="left")
    axis.grid(True)


def _values(axis: Axes, name: str, values: Sequence[float | None], *, falls: bool = False) -> None:
    """List values in percent as a legend, in the corner that curves, which may fall, leave free."""
    known = [value for value in values if value is not None]
    if not known:
        axis.text(
            0.5, 0.3, "not defined", transform=axis.transAxes, ha="center", color=colours.GREY
        )
        return
    high = np.mean(known) > 0.5
    axis.legend(
        axis.get_lines()[: len(values)],
        ["-" if value is None else f"{100 * value:.1f}" for value in values],
        title=f"{name}, %",
        title_fontsize=style.SMALL,
        loc=f"{'lower' if high else 'upper'} {'left' if high == falls else 'right'}",
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
        borderpad=0.2,
        labelspacing=0.25,
        handlelength=1.8,
        alignment="left",
    )


def _key(axis: Axes, names: Sequence[str], counts: str) -> None:
    """Draw the legend of all panels."""
    axis.axis("off")
    for i, name in enumerate(names):
        axis.plot([], [], label=style.wrap(name, 1.9), linewidth=2.2, **style.line(i))
    axis.legend(
        loc="upper left", frameon=False, borderpad=0, labelspacing=0.55, bbox_to_anchor=(-0.05, 1)
    )
    axis.text(
        -0.02, 0, f"{counts}\ndotted: by chance", transform=axis.transAxes, color=colours.GREY,
        va="bottom", linespacing=1.3,
    )  # fmt: skip
