"""Draw examples of anomaly maps from finished runs, as a file of resources/ describes them.

    python scripts/dev/example_maps.py                       docs/example_anomaly_maps.png
    python scripts/dev/example_maps.py evidence_maps         docs/evidence_maps.png

A run is in the folder of ``results/`` with its name. Name other folders with --run NAME=FOLDER.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes

from indad.core.errors import DataError, IndadError
from indad.data import manifest
from indad.evaluation import cases, scores
from indad.evaluation.scores import ScoreFiles
from indad.reporting import colours, readme, style
from indad.reporting.pictures import column, read_photos
from indad.reporting.sheet import draw_map

ROOT = Path(__file__).resolve().parent.parent.parent


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

    The maps have the colours of the category's sheet.

    Raises:
        DataError: a category has no such defect.
        StoreError: a product is damaged.
    """
    left, gap, right, head = 0.3, 0.05, 0.05, 0.5
    cell = (style.WIDTH - left - right) / len(examples) - gap
    labels = ["test image", "ground truth", *methods]
    caption = style.fill(caption, style.WIDTH - left)
    foot = 0.15 + 0.155 * (caption.count("\n") + 1)
    height = head + len(labels) * (cell + gap) + foot
    with style.drawing(output, height=height) as figure:
        axes = np.array(
            [
                [
                    style.axes(figure, left + i * (cell + gap), head + j * (cell + gap), cell, cell)
                    for i in range(len(examples))
                ]
                for j in range(len(labels))
            ]
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
        axis.set_aspect("equal")


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("examples", nargs="?", default="example_anomaly_maps", metavar="NAME")
    parse.add_argument("--run", nargs="*", default=[], metavar="NAME=FOLDER")
    given = parse.parse_args()
    described = ROOT / "resources" / f"{given.examples}.yaml"
    montages = yaml.safe_load(described.read_text(encoding="utf-8"))
    folders = {name: Path("results") / name for name in montages["runs"]}
    folders |= {name: Path(folder) for name, folder in (each.split("=", 1) for each in given.run)}
    missing = [folder / "metrics.csv" for folder in folders.values()]
    missing = [str(path) for path in missing if not path.exists()]
    if missing:
        sys.exit(
            f"indad: {', '.join(missing)}: not found; run the configuration first, or name its "
            "folder with --run"
        )
    examples = []
    for example in montages["examples"]:
        root, run = folders[example["run"]], montages["runs"][example["run"]]
        place = f"{example['dataset']}/{example['category']}"
        scored = [root / "scores" / place / name / "seed0" for name in run["experiments"]]
        pixels = root / "pixels" / place / f"{run['geometry']}.h5"
        experiments = [
            ScoreFiles(folder / "scores.csv", folder / "maps.h5", pixels) for folder in scored
        ]
        rows = manifest.read(root / "manifests" / f"{place}.csv")
        examples.append(Example(example["name"], example["defect"], rows, experiments))
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "maps.png"
        montage(examples, montages["methods"], picture, caption=montages["caption"])
        readme.shrink(picture, Path("docs") / f"{given.examples}.png")


if __name__ == "__main__":
    try:
        main()
    except IndadError as error:
        sys.exit(f"indad: {error}")
