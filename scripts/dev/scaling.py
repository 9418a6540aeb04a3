"""Time and peak memory of every stage against the number of images and the resolution.

    python scripts/dev/scaling.py                  60, 200, 400, 2,000 images; 224, 320, 448 pixels
    python scripts/dev/scaling.py --images 60 200  other numbers

Each stage runs in a process of its own, on drawn images repeated as often as needed and a
ResNet-18; test images are always the same 16. Writes a CSV and a plot.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark import machine, memory

from indad.core import atomic

DRAWN, TEST = 60, 16
METHODS = {
    "SPADE": {"method": "spade"},
    "PaDiM, 100 dimensions": {"method": "padim", "dimensions": 100},
    "PatchCore, 1 %": {
        "method": "patchcore",
        "layers": ["layer2", "layer3"],
        "embedding": "concat",
        "coreset_ratio": 0.01,
    },
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


def table(folder: Path, count: int) -> Any:
    """Return a manifest of ``count`` training images, repeating those there are."""
    import pandas as pd

    from indad.data import manifest

    rows = manifest.build(folder)
    train = rows[rows["split"] == "train"]
    repeated = pd.concat([train] * -(-count // len(train))).head(count)
    test = rows[rows["split"] == "test"].head(TEST)
    return pd.concat([repeated, test]).reset_index(drop=True)


def run_stage(folder: Path, scratch: Path, count: int, side: int, stage: str) -> Callable[[], None]:
    """Prepare a stage: import what it needs, and return what is to be measured."""
    from indad import methods
    from indad.data import decode
    from indad.data.images import Geometry
    from indad.features.extract import extract
    from indad.features.store import FeatureStore

    extractor = EXTRACTOR | {"resize": side, "crop": side}
    images, decoded, features = table(folder, count), scratch / "pixels.h5", scratch / "features.h5"
    if stage == "decode":
        geometry = Geometry.from_config(side, side)
        threads = os.cpu_count() or 1
        return lambda: decode.decode(images, folder, decoded, geometry=geometry, threads=threads)
    if stage == "extract":
        return lambda: extract(images, decoded, features, extractor=extractor)
    step, _, name = stage.partition(" ")
    parameters = dict(METHODS[name])
    method = parameters.pop("method")
    model = scratch / f"{method}.safetensors"

    def fit() -> None:
        with FeatureStore(features) as store:
            methods.create(method, parameters).fit(store.split("train")).save(model)

    def score() -> None:
        with FeatureStore(features) as store:
            methods.load(model, gallery=store.split("train")).score(store.split("test"))

    return fit if step == "fit" else score


def measure(folder: Path, scratch: Path, count: int, side: int, stage: str) -> dict[str, float]:
    """Run one stage in this process: seconds, and peak memory beyond the imported libraries."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    run = run_stage(folder, scratch, count, side, stage)
    before = memory("VmRSS")
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 2), "peak_mb": round(memory("VmHWM") - before)}


def plot(rows: list[dict[str, Any]], output: Path) -> None:
    """Draw seconds and memory against images and against pixels, one line a stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sides = sorted({row["side"] for row in rows})
    base_count = min(
        {row["images"] for row in rows if row["side"] == sides[-1]}, default=rows[0]["images"]
    )
    views = (
        ("images", "training images, 224 x 224", [r for r in rows if r["side"] == sides[0]]),
        (
            "side",
            f"side of the image in pixels, {base_count} training images",
            [r for r in rows if r["images"] == base_count],
        ),
    )
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharey="row", layout="constrained")
    for column, (key, label, chosen) in enumerate(views):
        for row, (value, unit) in enumerate((("seconds", "seconds"), ("peak_mb", "peak MB"))):
            axis = axes[row][column]
            for stage in STAGES:
                points = [(each[key], each[value]) for each in chosen if each["stage"] == stage]
                step = stage.partition(" ")[0]
                style = {"fit": "--", "score": ":"}.get(step, "-")
                axis.plot(*zip(*points, strict=True), style, marker="o", markersize=4, label=stage)
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            ticks = sorted({each[key] for each in chosen})
            axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with atomic.replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


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
        print(json.dumps(measure(Path(folder), Path(scratch), int(count), int(side), stage)))
        return

    from indad.data.synthetic import draw_category

    points = [(count, given.sides[0]) for count in given.images]
    points += [(given.images[min(1, len(given.images) - 1)], side) for side in given.sides[1:]]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "wood"
        drawn = min(DRAWN, *given.images)
        draw_category(folder, "wood", train=drawn, good=TEST // 2, per_defect=TEST // 2, size=512)
        for count, side in points:
            for stage in STAGES:
                command = [sys.executable, __file__, "--child", str(folder), scratch]
                done = subprocess.run(
                    [*command, str(count), str(side), stage], capture_output=True, text=True
                )
                if done.returncode:
                    raise SystemExit(f"{stage}, {count} images: failed\n{done.stderr[-2000:]}")
                result = json.loads(done.stdout.splitlines()[-1])
                rows.append({"stage": stage, "images": count, "side": side} | result)
                print(rows[-1], flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.replacing(given.output.with_suffix(".csv")) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [*rows[0], "machine"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"machine": machine()} for row in rows)
    plot(rows, given.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
