"""Sheets of test images with the anomaly maps of every experiment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes

from indad.data.decode import Pixels
from indad.evaluation import cases, scores
from indad.evaluation.cases import Case
from indad.evaluation.scores import ScoreFiles
from indad.reporting import colours, style

#: Rows of the main sheet: one good image, then one image of each kind of defect.
MOST_ROWS = 10
#: Number of missed defects, and of false alarms, on the sheet of cases.
MOST_ERRORS = 2

_CMAP = "inferno"
_NOTES = (
    "Below each map: the score of the image. Frames: missed defects and false alarms at the "
    "threshold of the best F1 on these images. Colours: one scale per experiment, from the median "
    "pixel of good images to the 90th percentile of the images' peaks."
)
# Inches.
_LEFT, _GAP, _RIGHT, _SCORE_LINE = 0.46, 0.05, 0.06, 0.17


class Shown(NamedTuple):
    """What a sheet shows of one image and experiment.

    Attributes:
        map: anomaly map ``(H, W)``.
        mask: ground truth ``(H, W)``; None if there is none inside the crop.
        score: image score.
        verdict: ``missed``, ``false alarm`` or an empty string.
    """

    map: np.ndarray
    mask: np.ndarray | None
    score: float
    verdict: str


@dataclass(frozen=True)
class Column:
    """What a sheet shows of an experiment.

    Attributes:
        name: of the experiment.
        threshold: of its best F1.
        missed, false_alarms: numbers of errors at the threshold among all test images.
        low, high: its colour scale.
        images: the images to show, by name.
    """

    name: str
    threshold: float
    missed: int
    false_alarms: int
    low: float
    high: float
    images: Mapping[str, Shown]


def colour_range(maps: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the colour scale of an experiment, the same for all its images.

    It starts at the median of the good images' pixels, so that normal areas are dark. It ends at
    the 90th percentile of the images' peaks, so that a single extreme image does not define it.
    """
    normal = maps[labels == 0] if (labels == 0).any() else maps
    return float(np.median(normal)), float(np.quantile(maps.max(axis=(1, 2)), 0.9))


def column(name: str, files: ScoreFiles, rows: pd.DataFrame, images: Sequence[str]) -> Column:
    """Read what a sheet shows of an experiment.

    Args:
        name: of the experiment.
        files: of its scores.
        rows: the category's manifest.
        images: the images to show.

    Raises:
        StoreError: a file is damaged or belongs to other images.
    """
    (table, maps, _), truth = scores.read_with_truth(files, rows)
    threshold = cases.threshold(table)
    verdicts = cases.verdicts(table, threshold)
    score, place = table["score"].to_numpy(), {name: i for i, name in enumerate(table["image"])}
    chosen = {}
    for image in images:
        i = place[image]
        # Copies, so that the maps and masks of all images are freed.
        mask = truth.mask[i].copy() if truth.mask[i].any() else None
        chosen[image] = Shown(maps[i].copy(), mask, score[i], verdicts[i])
    missed, alarms = (int((verdicts == each).sum()) for each in (cases.MISSED, cases.FALSE_ALARM))
    low, high = colour_range(maps, table["label"].to_numpy())
    return Column(name, threshold, missed, alarms, low, high, chosen)


def read_photos(pixels: Path, rows: pd.DataFrame, images: Sequence[str]) -> dict[str, np.ndarray]:
    """Return test images by name, uint8 ``(H, W, 3)``."""
    with Pixels(pixels, rows) as opened:
        number = {name: i for i, name in enumerate(opened.images("test"))}
        return {name: opened.read("test", number[name]) for name in images}


def sheets(
    rows: pd.DataFrame,
    experiments: Mapping[str, ScoreFiles],
    typical: Path,
    notable: Path,
    *,
    title: str,
) -> None:
    """Draw a category's two sheets: typical images, and the clearest, the hardest and the errors.

    Args:
        rows: the category's manifest.
        experiments: the columns.
        typical: PNG file of the median image of each kind.
        notable: PNG file of the other cases.
        title: heading of the sheets.

    Raises:
        StoreError: a product is damaged, or the experiments scored different images.
    """
    classified = cases.consensus([scores.read_table(files.table) for files in experiments.values()])
    median = cases.typical(classified, MOST_ROWS)
    others = cases.notable(classified, MOST_ERRORS)
    images = list(dict.fromkeys(case.image for case in median + others))
    columns = [column(name, files, rows, images) for name, files in experiments.items()]
    first = next(iter(experiments.values()))
    photos = read_photos(first.pixels, rows, images)
    good = int((classified["label"] == 0).sum())
    counts = f"{good} good and {len(classified) - good} defective test images"
    remark = f"{counts}. {_typical_remark(classified, len(median))}"
    _sheet(median, columns, photos, typical, title=title, remark=remark)
    remark = f"{counts}. {_error_remark(classified)}"
    _sheet(others, columns, photos, notable, title=f"{title}: clear, hard and wrong", remark=remark)


def _typical_remark(classified: pd.DataFrame, shown: int) -> str:
    kinds = classified.loc[classified["label"] == 1, "defect"].nunique()
    left_out = kinds + 1 - shown
    if left_out:
        return f"Of each kind the image with the median score; {left_out} rarer kinds are left out."
    return "Of each kind the image with the median score."


def _error_remark(classified: pd.DataFrame) -> str:
    if classified["label"].nunique() < 2:
        return "All are of one kind, so there is no threshold."
    errors = int((classified["missed"] + classified["false_alarms"] > 0).sum())
    if errors:
        wrong = f"{errors} of {len(classified)} images"
        return f"{wrong} are classified wrongly by at least one experiment."
    return "No experiment classifies an image wrongly."


def _sheet(
    shown: Sequence[Case],
    columns: Sequence[Column],
    photos: Mapping[str, np.ndarray],
    output: Path,
    *,
    title: str,
    remark: str,
) -> None:
    """Draw one row per image: the photo, then the anomaly map of each experiment."""
    count = 1 + len(columns)
    cell = min(1.3, max(1.0, (style.WIDTH - _LEFT - _RIGHT) / count - _GAP))
    height, width = next(iter(photos.values())).shape[:2]
    tall = cell * height / width
    # Wide enough for the heading and the notes, however few experiments there are.
    total_width = max(_LEFT + count * (cell + _GAP) + _RIGHT, 4.6)
    notes, remark = (
        textwrap.fill(text, int((total_width - _LEFT) / 0.061)) for text in (_NOTES, remark)
    )
    names = [style.wrap(each.name, cell) for each in columns]
    head = 1.0 + 0.15 * (remark.count("\n") + max(name.count("\n") for name in names))
    bottom = head + len(shown) * (tall + _SCORE_LINE)
    total_height = bottom + 0.45 + 0.155 * (notes.count("\n") + 1)
    with style.drawing(output, width=total_width, height=total_height) as figure:
        heading = style.heading(title, total_width - _LEFT)
        grey = {"color": colours.GREY, "linespacing": 1.25}
        style.text(figure, _LEFT, 0.1, heading, fontsize=11, fontweight="bold")
        style.text(figure, _LEFT, 0.31, remark, **grey)
        style.text(figure, _LEFT, bottom + 0.38, notes, **grey)
        axes = style.image_grid(
            figure, len(shown), count, (_LEFT, head), (cell, tall), (_GAP, _SCORE_LINE)
        )
        _head(axes[0, 0], "test image")
        for name, axis, each in zip(names, axes[0, 1:], columns, strict=True):
            _head(axis, name, _summary(each))
        for case, (photo, *maps) in zip(shown, axes, strict=True):
            photo.imshow(photos[case.image], interpolation="antialiased")
            _outline(photo, columns[0].images[case.image].mask)
            _label_photo(photo, case, cell, tall)
            for axis, each in zip(maps, columns, strict=True):
                draw_map(axis, each, case.image)
        for axis, each in zip(axes[-1, 1:], columns, strict=True):
            _scale(axis, each, -(_SCORE_LINE + 0.15) / tall, 0.09 / tall)


def _head(axis: Axes, name: str, summary: str = "") -> None:
    """Write the name of a column above its first image, and a summary between them."""
    for text, above, look in (
        (summary, 5, {"color": colours.GREY, "linespacing": 1.2}),
        (name, 27 if summary else 5, {"fontweight": "bold", "linespacing": 1.1}),
    ):
        axis.annotate(
            text, (0.5, 1), (0, above), xycoords="axes fraction", textcoords="offset points",
            ha="center", va="baseline", annotation_clip=False, **look,
        )  # fmt: skip


def _summary(shown: Column) -> str:
    if np.isnan(shown.threshold):
        return "no threshold:\none kind of images"
    return f"alarm from {shown.threshold:.3g}\n{shown.missed} missed, {shown.false_alarms} false"


def _label_photo(axis: Axes, case: Case, width: float, height: float) -> None:
    lines = [case.why, style.readable(case.defect)] if case.why else [style.readable(case.defect)]
    most = max(6, int(height / 0.078))
    label = "\n".join(style.shorten(line, most) for line in lines)
    axis.set_ylabel(label, labelpad=3, linespacing=1.15)
    name = style.shorten(Path(case.image).name, int(width / 0.08))
    axis.set_xlabel(name, labelpad=2, color=colours.GREY)


def _outline(axis: Axes, mask: np.ndarray | None, width: float = 1.3) -> None:
    """Outline the ground truth, visible on a bright and on a dark image."""
    if mask is None or mask.all():
        return
    contour = axis.contour(mask, levels=[0.5], colors=colours.OUTLINE, linewidths=width)
    contour.set_path_effects(
        [patheffects.withStroke(linewidth=width + 1.4, foreground="black", alpha=0.6)]
    )


def draw_map(axis: Axes, column: Column, image: str) -> None:
    """Draw an anomaly map with its score, and a frame if the verdict is wrong."""
    shown = column.images[image]
    axis.imshow(shown.map, cmap=_CMAP, vmin=column.low, vmax=column.high)
    _outline(axis, shown.mask, 0.8)
    axis.set_xlabel(f"{shown.score:.3g}", labelpad=2)
    if not shown.verdict:
        return
    missed = shown.verdict == cases.MISSED
    colour = colours.MISSED if missed else colours.FALSE_ALARM
    axis.spines[:].set(visible=True, color=colour, linewidth=2.5)
    axis.text(
        0.5, 0.965, shown.verdict, transform=axis.transAxes, ha="center", va="top",
        fontweight="bold", color="black" if missed else "white",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 2},
    )  # fmt: skip


def _scale(axis: Axes, shown: Column, bottom: float, height: float) -> None:
    """Draw a colour scale with the values of its ends, in parts of the height of an image."""
    scale = axis.inset_axes((0.06, bottom, 0.88, height))
    style.bare(scale)
    scale.imshow(np.linspace(0, 1, 128)[None], cmap=_CMAP, aspect="auto")
    for at, value, side in ((0, shown.low, "left"), (1, shown.high, "right")):
        scale.text(at, -0.35, f"{value:.3g}", transform=scale.transAxes, ha=side, va="top")
