"""A picture of examples side by side, for documents."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from indad.core import atomic
from indad.core.errors import DataError
from indad.evaluation import cases, scores
from indad.evaluation.scores import ScoreFiles
from indad.reporting import colours, style
from indad.reporting.pictures import column, draw_map, read_photos


@dataclass(frozen=True)
class Example:
    """A column of a montage: the median image of one kind of defect.

    Attributes:
        name: heading of the column.
        defect: the kind of defect.
        rows: the category's manifest.
        experiments: one for each method of the montage, in the same order.
    """

    name: str
    defect: str
    rows: pd.DataFrame
    experiments: Sequence[ScoreFiles]


def montage(
    examples: Sequence[Example], methods: Sequence[str], output: Path, *, caption: str
) -> None:
    """Draw examples side by side: photo, ground truth and the anomaly map of each method.

    The maps have the colours of the category's sheet, and errors have the same frames.

    Raises:
        DataError: a category has no such defect.
        StoreError: a product is damaged.
    """
    left, gap, right, head = 0.3, 0.05, 0.05, 0.5
    cell = (style.WIDTH - left - right) / len(examples) - gap
    labels = ["test image", "ground truth", *methods]
    # Keep the names of licences in one piece.
    most = int((style.WIDTH - left) / 0.063)
    caption = textwrap.fill(caption, most, break_on_hyphens=False)
    foot = 0.15 + 0.155 * (caption.count("\n") + 1)
    height = head + len(labels) * (cell + gap) + foot
    with style.drawing(output, height=height) as figure:
        axes = style.image_grid(
            figure, len(labels), len(examples), (left, head), (cell, cell), (gap, gap)
        )
        for axis, label in zip(axes[:, 0], labels, strict=True):
            axis.set_ylabel(label, fontweight="bold", labelpad=4)
        for example, column_axes in zip(examples, axes.T, strict=True):
            column_axes[0].set_title(example.name, fontsize=style.SMALL, pad=4, linespacing=1.2)
            _draw_example(column_axes, example)
        style.text(
            figure, left, height - 0.08, caption, va="baseline", color=colours.GREY,
            linespacing=1.25,
        )  # fmt: skip


def _draw_example(axes: Sequence[Axes], example: Example) -> None:
    tables = [scores.read_table(each.table) for each in example.experiments]
    classified = cases.consensus(tables)
    if example.defect not in (known := cases.defects(classified)):
        raise DataError(
            f"{example.name}: there is no defect {example.defect!r}, but {', '.join(known)}"
        )
    image = cases.median(classified[classified["defect"] == example.defect]).image
    shown = [column("", each, example.rows, [image]) for each in example.experiments]
    photo, truth, *maps = axes
    photo.imshow(read_photos(example.experiments[0].pixels, example.rows, [image])[image])
    mask = shown[0].images[image].mask
    if mask is None:
        truth.set_facecolor(colours.PALE)
        truth.text(0.5, 0.5, "no mask", transform=truth.transAxes, ha="center", va="center")
    else:
        truth.imshow(mask, cmap="gray", vmin=0, vmax=1)
    for axis, each in zip(maps, shown, strict=True):
        draw_map(axis, each, image)
        axis.set_xlabel("")


def shrink(picture: Path, output: Path) -> None:
    """Copy a picture with at most 256 colours, about a fifth of the size, for a repository."""
    with Image.open(picture) as image, atomic.replacing(output) as temporary:
        # Maximum coverage preserves white and the ends of a colour scale.
        few = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
        few.save(temporary, optimize=True)
