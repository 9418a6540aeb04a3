"""Sheets of test images beside their anomaly maps, drawn from products on disk."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from PIL import Image

from indad.core import atomic
from indad.core.errors import DataError
from indad.data.decode import Pixels
from indad.evaluation import cases, scores
from indad.evaluation.cases import Case
from indad.reporting import style
from indad.reporting.style import plt

#: Rows of the main sheet: one good image, then one of each kind of defect.
MOST_ROWS = 10
#: Missed defects, and false alarms, on the sheet of cases: as many rows of each.
MOST_ERRORS = 2

_CMAP = "inferno"
_NOTES = (
    "Below each map the image's score; framed are defects missed and false alarms at the threshold "
    "of the best F1 on these images. Colours: one scale per experiment, from the median pixel of "
    "good images to the 90th percentile of the images' peaks."
)


@dataclass(frozen=True)
class Experiment:
    """Where an experiment's scores lie, and the images as its backbone saw them."""

    name: str
    table: Path
    maps: Path
    pixels: Path


@dataclass(frozen=True)
class Column:
    """What a sheet shows of an experiment.

    Attributes:
        name: of the experiment.
        table: its image scores.
        threshold: of its best F1.
        low, high: its colour scale.
        maps, masks: anomaly map and ground truth by image, ``(H, W)``; no mask, no entry.
    """

    name: str
    table: pd.DataFrame
    threshold: float
    low: float
    high: float
    maps: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]


def colour_range(maps: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the colour scale of an experiment, one for all its images.

    It starts at the median of the good images' pixels, so that what is normal stays dark, and
    ends at the peak of a clearly defective image rather than at that of the one strangest.
    """
    normal = maps[labels == 0] if (labels == 0).any() else maps
    return float(np.median(normal)), float(np.quantile(maps.max(axis=(1, 2)), 0.9))


def read_masks(rows: pd.DataFrame, pixels: Pixels, images: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the masks of those of ``images`` that have one and were not cut away by the crop."""
    number = {name: i for i, name in enumerate(pixels.images("test"))}
    has_mask = dict(zip(rows["image"], rows["mask"].astype(bool), strict=True))
    masks = {name: pixels.mask(number[name]) for name in images if has_mask[name]}
    return {name: mask for name, mask in masks.items() if mask.any()}


def column(
    experiment: Experiment, table: pd.DataFrame, rows: pd.DataFrame, images: Sequence[str]
) -> Column:
    """Read what is shown of an experiment.

    Args:
        experiment: where its scores lie.
        table: its image scores.
        rows: the category's manifest.
        images: those to show.
    """
    maps = scores.read(experiment.table, experiment.maps).maps
    low, high = colour_range(maps, table["label"].to_numpy())
    index = {name: i for i, name in enumerate(table["image"])}
    with Pixels(experiment.pixels, rows) as pixels:
        masks = read_masks(rows, pixels, images)
    chosen = {name: maps[index[name]] for name in images}
    return Column(experiment.name, table, cases.threshold(table), low, high, chosen, masks)


def sheets(
    rows: pd.DataFrame,
    experiments: Sequence[Experiment],
    typical: Path,
    telling: Path,
    *,
    title: str,
) -> None:
    """Draw a category's two sheets: typical images, and the clearest, the hardest and the errors.

    Args:
        rows: the category's manifest.
        experiments: the columns.
        typical: PNG of one median image of each kind.
        telling: PNG of the other cases.
        title: heading of the sheets.

    Raises:
        StoreError: a product is damaged, or the experiments scored different images.
    """
    tables = [scores.read_table(each.table) for each in experiments]
    judged = cases.consensus(tables)
    median = cases.typical(judged, MOST_ROWS)
    others = cases.telling(judged, MOST_ERRORS)
    images = list(dict.fromkeys(case.image for case in median + others))
    columns = [
        column(experiment, table, rows, images)
        for experiment, table in zip(experiments, tables, strict=True)
    ]
    with Pixels(experiments[0].pixels, rows) as pixels:
        number = {name: i for i, name in enumerate(pixels.images("test"))}
        photos = {name: pixels.read("test", number[name]) for name in images}
        masks = read_masks(rows, pixels, images)

    good = int((judged["label"] == 0).sum())
    counts = f"{good} good and {len(judged) - good} defective test images"
    kinds = judged.loc[judged["label"] == 1, "defect"].nunique()
    left_out = kinds + 1 - len(median)
    remark = "Of each kind the image of median score."
    if left_out:
        remark = f"Of each kind the image of median score; {left_out} rarer kinds are left out."
    draw = {"columns": columns, "photos": photos, "masks": masks, "counts": counts}
    _sheet(median, typical, title=title, remark=remark, **draw)
    errors = int((judged["missed"] + judged["false_alarms"] > 0).sum())
    remark = f"{errors} of {len(judged)} images are judged wrongly by at least one experiment."
    if not errors:
        remark = "No experiment judges an image wrongly."
    if judged["label"].nunique() < 2:
        remark = "All are of one kind, so there is no threshold to judge them by."
    _sheet(others, telling, title=f"{title}: clear, hard and wrong", remark=remark, **draw)


def _sheet(
    shown: Sequence[Case],
    output: Path,
    *,
    columns: Sequence[Column],
    photos: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    title: str,
    counts: str,
    remark: str,
) -> None:
    # All in inches: text keeps its size, cells share what is left.
    left, gap, right = 0.46, 0.05, 0.06
    count = 1 + len(columns)
    cell = min(1.3, max(1.0, (style.WIDTH - left - right) / count - gap))
    height, width = next(iter(photos.values())).shape[:2]
    tall = cell * height / width
    # Wide enough for the heading and the notes, however few experiments there are.
    total_width = max(left + count * (cell + gap) + right, 4.6)
    notes, counted = (
        textwrap.fill(text, int((total_width - left) / 0.061))
        for text in (_NOTES, f"{counts}. {remark}")
    )
    names = [style.wrap(each.name, cell) for each in columns]
    score_line = 0.17
    head = 1.0 + 0.15 * (counted.count("\n") + max(name.count("\n") for name in names))
    foot = 0.45 + 0.155 * (notes.count("\n") + 1)
    total_height = head + len(shown) * (tall + score_line) + foot
    with style.look():
        figure = plt.figure(figsize=(total_width, total_height))

        def x(inches: float) -> float:
            return inches / total_width

        def y(inches: float) -> float:
            return 1 - inches / total_height

        def place(across: int, down: int) -> Axes:
            top = head + down * (tall + score_line)
            axis = figure.add_axes(
                (x(left + across * (cell + gap)), y(top + tall), x(cell), tall / total_height)
            )
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            return axis

        heading = style.heading(title, total_width - left)
        figure.text(x(left), y(0.1), heading, fontsize=11, fontweight="bold", va="top")
        figure.text(x(left), y(0.31), counted, color=style.GREY, va="top", linespacing=1.25)
        figure.text(
            x(left + cell / 2), y(head - 0.07), "test image", ha="center", fontweight="bold"
        )
        for across, (name, each) in enumerate(zip(names, columns, strict=True), 1):
            middle = x(left + across * (cell + gap) + cell / 2)
            figure.text(
                middle, y(head - 0.07), _summary(each), ha="center", color=style.GREY,
                linespacing=1.2,
            )  # fmt: skip
            figure.text(
                middle, y(head - 0.37), name, ha="center", fontweight="bold", linespacing=1.1
            )
        for down, case in enumerate(shown):
            axis = place(0, down)
            axis.imshow(photos[case.image], interpolation="antialiased")
            _outline(axis, masks.get(case.image))
            name = style.readable(case.defect)
            label = f"{case.why}\n{name}" if case.why else name
            axis.set_ylabel(_fit_lines(label, tall), labelpad=3, linespacing=1.15)
            axis.set_xlabel(
                style.shorten(Path(case.image).name, int(cell / 0.08)), labelpad=2, color=style.GREY
            )
            for across, each in enumerate(columns, 1):
                _map(place(across, down), each, case.image)
        top = head + len(shown) * (tall + score_line) + 0.06
        for across, each in enumerate(columns, 1):
            at = left + across * (cell + gap)
            bar = figure.add_axes(
                (x(at + 0.07), y(top + 0.09), x(cell - 0.14), 0.09 / total_height)
            )
            _scale(bar, each)
        figure.text(x(left), y(top + 0.32), notes, va="top", color=style.GREY, linespacing=1.25)
        style.save(figure, output)


def _summary(shown: Column) -> str:
    if np.isnan(shown.threshold):
        return "nothing to judge by:\none kind of images"
    wrong = cases.verdicts(shown.table, shown.threshold)
    missed, alarms = (int((wrong == each).sum()) for each in (cases.MISSED, cases.FALSE_ALARM))
    return f"alarm from {shown.threshold:.3g}\n{missed} missed, {alarms} false"


def _fit_lines(text: str, inches: float) -> str:
    return "\n".join(style.shorten(part, max(6, int(inches / 0.078))) for part in text.split("\n"))


def _outline(axis: Axes, mask: np.ndarray | None, width: float = 1.3) -> None:
    """Outline the ground truth, on bright and on dark ground."""
    if mask is None or mask.all():
        return
    contour = axis.contour(mask, levels=[0.5], colors=style.OUTLINE, linewidths=width)
    contour.set_path_effects(
        [patheffects.withStroke(linewidth=width + 1.4, foreground="black", alpha=0.6)]
    )


def _map(axis: Axes, shown: Column, image: str) -> None:
    """Draw an anomaly map with its score, framed where the judgement is wrong."""
    axis.imshow(shown.maps[image], cmap=_CMAP, vmin=shown.low, vmax=shown.high)
    _outline(axis, shown.masks.get(image), 0.8)
    at = list(shown.table["image"]).index(image)
    verdict = cases.verdicts(shown.table, shown.threshold)[at]
    axis.set_xlabel(f"{shown.table['score'].iloc[at]:.3g}", labelpad=2)
    if not verdict:
        return
    missed = verdict == cases.MISSED
    colour = style.MISSED if missed else style.FALSE_ALARM
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)
    axis.text(
        0.5,
        0.965,
        verdict,
        transform=axis.transAxes,
        ha="center",
        va="top",
        fontweight="bold",
        color="black" if missed else "white",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 2},
    )


def _scale(axis: Axes, shown: Column) -> None:
    axis.imshow(np.linspace(0, 1, 128)[None], cmap=_CMAP, aspect="auto")
    axis.set(yticks=[], xticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    for at, value, side in ((0, shown.low, "left"), (1, shown.high, "right")):
        axis.text(at, -0.35, f"{value:.3g}", transform=axis.transAxes, ha=side, va="top")


@dataclass(frozen=True)
class Example:
    """A column of a montage: the median case of one kind of defect.

    Attributes:
        name: what stands above it.
        defect: the kind.
        rows: the category's manifest.
        experiments: one for each method of the montage, in its order.
    """

    name: str
    defect: str
    rows: pd.DataFrame
    experiments: Sequence[Experiment]


def montage(
    examples: Sequence[Example], methods: Sequence[str], output: Path, *, caption: str
) -> None:
    """Draw examples side by side: photo, ground truth and the anomaly map of each method.

    The maps' colours are those of the category's sheet, and errors are framed as there.

    Raises:
        DataError: a category has no such defect.
        StoreError: a product is damaged.
    """
    left, gap, right, head = 0.3, 0.05, 0.05, 0.5
    cell = (style.WIDTH - left - right) / len(examples) - gap
    labels = ["test image", "ground truth", *methods]
    # A licence is not broken at its hyphens, nor at its no-break spaces.
    wide = int((style.WIDTH - left) / 0.063)
    caption = textwrap.fill(caption, wide, break_on_hyphens=False)
    foot = 0.15 + 0.155 * (caption.count("\n") + 1)
    height = head + len(labels) * (cell + gap) + foot
    with style.look():
        figure = plt.figure(figsize=(style.WIDTH, height))
        for across, example in enumerate(examples):
            for down, label in enumerate(labels):
                axis = figure.add_axes(
                    (
                        (left + across * (cell + gap)) / style.WIDTH,
                        1 - (head + down * (cell + gap) + cell) / height,
                        cell / style.WIDTH,
                        cell / height,
                    )
                )
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if not across:
                    axis.set_ylabel(label, fontweight="bold", labelpad=4)
            column_axes = figure.axes[-len(labels) :]
            column_axes[0].set_title(example.name, fontsize=style.SMALL, pad=4, linespacing=1.2)
            _example(column_axes, example)
        figure.text(left / style.WIDTH, 0.08 / height, caption, color=style.GREY, linespacing=1.25)
        style.save(figure, output)


def _example(axes: Sequence[Axes], example: Example) -> None:
    tables = [scores.read_table(each.table) for each in example.experiments]
    judged = cases.consensus(tables)
    if example.defect not in cases.defects(tables[0]):
        known = ", ".join(cases.defects(tables[0]))
        raise DataError(f"{example.name}: there is no defect {example.defect!r}, but {known}")
    image = cases.median(judged[judged["defect"] == example.defect]).image
    with Pixels(example.experiments[0].pixels) as pixels:
        photo = pixels.read("test", pixels.images("test").index(image))
        mask = read_masks(example.rows, pixels, [image]).get(image)
    axes[0].imshow(photo)
    if mask is None:
        axes[1].set_facecolor(style.PALE)
        axes[1].text(0.5, 0.5, "no mask", transform=axes[1].transAxes, ha="center", va="center")
    else:
        axes[1].imshow(mask, cmap="gray", vmin=0, vmax=1)
    for axis, experiment, table in zip(axes[2:], example.experiments, tables, strict=True):
        _map(axis, column(experiment, table, example.rows, [image]), image)
        axis.set_xlabel("")


def shrink(picture: Path, output: Path) -> None:
    """Copy a picture with at most 256 colours: a fifth of the bytes, for a repository."""
    with Image.open(picture) as image, atomic.replacing(output) as temporary:
        # Maximum coverage keeps white white and the ends of a colour scale.
        few = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
        few.save(temporary, optimize=True)
