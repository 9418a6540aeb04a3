"""Time and peak memory of every stage by number of training images and by image size.

    python scripts/dev/scaling.py                  60, 200, 400, 2,000 images; 224, 320, 448 pixels
    python scripts/dev/scaling.py --images 60 200  other numbers

Each stage runs in a process of its own, with a ResNet-18, on drawn images that are repeated to the
number required. The test images are always the same 16. Writes a CSV file and a plot.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import machine, measured, run_child

from indad import methods
from indad.core import atomic
from indad.core.csv_files import write_csv
from indad.data import decode, manifest
from indad.data.images import Geometry
from indad.data.synthetic import draw_category
from indad.features.extract import extract
from indad.features.store import FeatureStore

DRAWN, TEST = 60, 16
#: Method and parameters by the name in the table.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SPADE": ("spade", {}),
    "PaDiM, 100 dimensions": ("padim", {"dimensions": 100}),
    "PatchCore, 1 %": (
        "patchcore",
        {"layers": ["layer2", "layer3"], "embedding": "concat", "coreset_ratio": 0.01},
    ),
}
EXTRACTOR = {
    "backbone": "resnet18",
    "weights": "random",
    "layers": ["layer1", "layer2", "layer3"],
    "embedding": "layer3",
    "precision": "float32",
    "dtype": "float32",
}
STAGES = ["decode", "extract", *(f"{step} {name}" for name in METHODS for step in ("fit", "score"))]


def make_manifest(folder: Path, count: int) -> pd.DataFrame:
    """Return a manifest of ``count`` training images, repeated as often as necessary."""
    rows = manifest.build(folder)
    train = rows[rows["split"] == "train"]
    repeated = pd.concat([train] * -(-count // len(train))).head(count)
    test = rows[rows["split"] == "test"].head(TEST)
    return pd.concat([repeated, test], ignore_index=True)


def stage_to_run(
    folder: Path, scratch: Path, count: int, side: int, stage: str
) -> Callable[[], None]:
    """Prepare what a stage needs; return the function whose run is measured."""
    images = make_manifest(folder, count)
    decoded, features = scratch / "pixels.h5", scratch / "features.h5"
    if stage == "decode":
        geometry, threads = Geometry.from_config(side, side), torch.get_num_threads()
        return lambda: decode.decode(images, folder, decoded, geometry=geometry, threads=threads)
    if stage == "extract":
        extractor = EXTRACTOR | {"resize": side, "crop": side}
        return lambda: extract(images, decoded, features, extractor=extractor)
    step, _, name = stage.partition(" ")
    method, parameters = METHODS[name]
    model = scratch / f"{method}.safetensors"

    def fit() -> None:
        with FeatureStore(features) as store:
            methods.create(method, parameters).fit(store.split("train")).save(model)

    def score() -> None:
        with FeatureStore(features) as store:
            methods.load(model, gallery=store.split("train")).score(store.split("test"))

    return fit if step == "fit" else score


def measure_stage(
    folder: Path, scratch: Path, count: int, side: int, stage: str
) -> dict[str, float]:
    """Run one stage in this process; return its seconds and peak memory."""
    torch.set_num_threads(os.cpu_count() or 1)
    _, seconds, peak_mb = measured(stage_to_run(folder, scratch, count, side, stage))
    return {"seconds": round(seconds, 2), "peak_mb": round(peak_mb)}


def measure_all(points: list[tuple[int, int]], drawn: int) -> pd.DataFrame:
    """Measure all stages at each number of images and image size, each in a new process."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "wood"
        draw_category(folder, "wood", train=drawn, good=TEST // 2, per_defect=TEST // 2, size=512)
        for count, side in points:
            for stage in STAGES:
                found = run_child(__file__, str(folder), scratch, str(count), str(side), stage)
                rows.append({"stage": stage, "images": count, "side": side} | found)
                print(rows[-1], flush=True)
    return pd.DataFrame(rows).assign(machine=machine())


def plot(table: pd.DataFrame, output: Path) -> None:
    """Draw seconds and memory by number of images and by image size, one line for each stage."""
    base = table.loc[table["side"] == table["side"].max(), "images"].min()
    views = {
        ("images", "training images, 224 x 224"): table[table["side"] == table["side"].min()],
        ("side", f"side of the image in pixels, {base} training images"): table[
            table["images"] == base
        ],
    }
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for column, ((key, label), chosen) in enumerate(views.items()):
        for row, (value, unit) in enumerate((("seconds", "seconds"), ("peak_mb", "peak MB"))):
            panel(axes[row][column], chosen, key, value)
            axes[row][column].set(xlabel=label, ylabel=unit)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with atomic.replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def panel(axis: Axes, table: pd.DataFrame, key: str, value: str) -> None:
    """Draw one line for each stage: ``value`` by ``key``, both logarithmic."""
    for stage, rows in table.groupby("stage", sort=False):
        line = {"fit": "--", "score": ":"}.get(stage.partition(" ")[0], "-")
        axis.plot(rows[key], rows[value], line, marker="o", markersize=4, label=stage)
    axis.set(xscale="log", yscale="log")
    ticks = sorted(table[key].unique())
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--images", type=int, nargs="+", default=[60, 200, 400, 2000])
    parse.add_argument("--sides", type=int, nargs="+", default=[224, 320, 448])
    parse.add_argument("--output", type=Path, default=Path("docs/scaling"), metavar="PREFIX")
    parse.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.child:
        folder, scratch, count, side, stage = given.child
        print(json.dumps(measure_stage(Path(folder), Path(scratch), int(count), int(side), stage)))
        return
    points = [(count, given.sides[0]) for count in given.images]
    points += [(given.images[min(1, len(given.images) - 1)], side) for side in given.sides[1:]]
    table = measure_all(points, drawn=min(DRAWN, *given.images))
    write_csv(table, given.output.with_suffix(".csv"))
    plot(table, given.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
