"""Pictures of results, drawn from products on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image

from indad import atomic, scores
from indad.manifest import GOOD
from indad.pixels import Pixels

mpl.use("Agg")
from matplotlib import pyplot as plt

#: Rows of a sheet: one good image, then one of each defect up to this many in all.
MOST_ROWS = 8


@dataclass(frozen=True)
class Experiment:
    """Where an experiment's scores lie."""

    name: str
    table: Path
    maps: Path


def typical_images(table: pd.DataFrame, most: int = MOST_ROWS) -> list[str]:
    """Choose the image of median score of the good ones and of each defect.

    The median is neither the best nor the worst case, so the sheet flatters nobody.
    """
    defects = [GOOD, *sorted(set(table["defect"]) - {GOOD})]
    chosen = []
    for defect in defects[:most]:
        ranked = table[table["defect"] == defect].sort_values(["score", "image"])
        if len(ranked):
            chosen.append(str(ranked["image"].iloc[len(ranked) // 2]))
    return chosen


def colour_range(maps: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the colour scale of an experiment, one for all its images.

    It starts at the median of the good images' pixels, so that what is normal stays dark, and
    ends at the peak of a clearly defective image rather than at that of the one strangest.
    """
    normal = maps[labels == 0] if (labels == 0).any() else maps
    return float(np.median(normal)), float(np.quantile(maps.max(axis=(1, 2)), 0.9))


def sheet(
    manifest: pd.DataFrame,
    pixels: Pixels,
    experiments: Sequence[Experiment],
    output: Path,
    *,
    title: str,
) -> None:
    """Draw test images beside their anomaly maps, a row an image, a column an experiment.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
        experiments: the columns.
        output: the PNG file.
        title: heading of the sheet.
    """
    tables = [scores.read_table(each.table) for each in experiments]
    chosen = typical_images(tables[0])
    rows = manifest.set_index("image").loc[chosen]
    number = {name: i for i, name in enumerate(pixels.images("test"))}

    columns = 1 + len(experiments)
    figure, axes = plt.subplots(
        len(chosen),
        columns,
        figsize=(1.75 * columns, 1.75 * len(chosen) + 0.55),
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for axis, (name, row) in zip(axes[:, 0], rows.iterrows(), strict=True):
        axis.imshow(pixels.read("test", number[name]))
        if row["mask"]:
            mask = pixels.mask(number[name])
            if mask.any():
                axis.contour(mask, levels=[0.5], colors="#00e5ff", linewidths=1.2)
        axis.set_ylabel(row["defect"].replace("_", " "), fontsize=8)
    for column, (experiment, table) in enumerate(zip(experiments, tables, strict=True), 1):
        maps = scores.read_maps(experiment.maps)
        low, high = colour_range(maps, table["label"].to_numpy())
        index = {name: i for i, name in enumerate(table["image"])}
        for axis, name in zip(axes[:, column], chosen, strict=True):
            axis.imshow(maps[index[name]], cmap="inferno", vmin=low, vmax=high)
            axis.set_xlabel(f"{table['score'].iloc[index[name]]:.3g}", fontsize=7, labelpad=2)
        axes[0, column].set_title(experiment.name, fontsize=8)
    axes[0, 0].set_title("test image", fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    with atomic.replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)


def shrink(picture: Path, output: Path) -> None:
    """Copy a picture with at most 256 colours: a third of the bytes, for a repository."""
    with Image.open(picture) as image, atomic.replacing(output) as temporary:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(temporary, optimize=True)
