"""What large runs cost: the time to plan them, and time and memory of the methods.

    python scripts/dev/scale.py                   writes docs/scale.md
    python scripts/dev/scale.py --images 5000     fewer training images than 20,000

Planning is measured by dry runs of configurations made here. The methods are measured on the
features of a few images, repeated with noise; no file holds the repetitions.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import numpy as np
import yaml
from measure import ROOT, machine, measured, run_child
from scaling import DRAWN, EXTRACTOR, METHODS, TEST, make_manifest
from tabulate import tabulate

from indad import methods
from indad.core import atomic
from indad.data import decode
from indad.data.images import Geometry
from indad.data.synthetic import draw_category
from indad.features.extract import extract
from indad.features.source import FeatureSource, Part
from indad.features.store import FeatureStore
from indad.reporting.numbers import rounded

#: The text of the page, with places for its tables.
PAGE = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
CATEGORIES = 15
#: Standard deviation of the noise, in those of a layer.
NOISE = 0.2


# -- planning ------------------------------------------------------------------------------------


def large_config(backbones: int, experiments: int, seeds: int) -> dict[str, Any]:
    """Return a configuration for MVTec AD with many backbones, experiments of each, and seeds."""
    methods: list[dict[str, Any]] = [
        *({"method": "patchcore", "coreset_ratio": ratio} for ratio in (0.25, 0.1, 0.01)),
        *({"method": "padim", "dimensions": dimensions} for dimensions in (100, 200, 300)),
        *({"method": "spade", "k_image": k} for k in (5, 50)),
        *({"method": "patchcore", "embedding": "concat", "coreset_ratio": r} for r in (0.1, 0.01)),
    ]
    network = {"backbone": "resnet18.tv_in1k", "weights": "random"}
    network["layers"] = ["layer1", "layer2", "layer3"]
    chosen = {
        f"m{j}-b{i}": methods[j % len(methods)] | {"extractor": f"b{i}"}
        for i in range(backbones)
        for j in range(experiments)
    }
    return {
        "run": {
            "datasets": ["mvtec_ad"],
            "experiments": list(chosen),
            "seeds": list(range(seeds)),
        },
        "extractors": {f"b{i}": network for i in range(backbones)},
        "experiments": chosen,
    }


def plan(config: dict[str, Any]) -> list[str]:
    """Plan a run from nothing; return the number of jobs, CPU seconds and peak MB of Snakemake.

    Raises:
        SystemExit: Snakemake failed; its message is included.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
            *("--directory", folder, "--cores", "1", "--nocolor"),
            *("--configfile", str(ROOT / "config/config.yaml"), str(file)),
            *("--dry-run", "--quiet", "rules", "host"),
        ]
        process = subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True)
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"snakemake --dry-run: failed\n{output[-3000:]}")
    total = next(line for line in output.splitlines() if line.startswith("total"))
    jobs, seconds = int(total.split()[1]), used.ru_utime + used.ru_stime
    return [f"{jobs:,}", f"{seconds:.1f}", f"{used.ru_maxrss / 1024:,.0f}"]


def planning_table(sizes: list[tuple[int, int, int]]) -> str:
    """Measure planning for growing configurations, as Markdown."""
    cells = [
        [" x ".join(map(str, (CATEGORIES, *size))), *plan(large_config(*size))] for size in sizes
    ]
    headers = ["categories x backbones x experiments x seeds", "jobs", "CPU seconds", "peak MB"]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


# -- methods -------------------------------------------------------------------------------------


class Repeated:
    """Maps repeated to a number of images, each with its own noise; read like an array."""

    def __init__(self, maps: np.ndarray, count: int) -> None:
        self._maps, self.shape = maps, (count, *maps.shape[1:])
        # Each image takes another part of the same numbers.
        draw = np.random.default_rng(1)
        self._noise = draw.standard_normal(maps[0].size + 7 * count, np.float32)
        self._noise *= np.float32(NOISE * maps.std())

    def __getitem__(self, where: tuple[slice, slice, slice]) -> np.ndarray:
        images, channels, rows = where
        shape, size = self.shape[1:], math.prod(self.shape[1:])
        found = []
        for i in range(self.shape[0])[images]:
            noise = self._noise[7 * i : 7 * i + size].reshape(shape)
            found.append(self._maps[i % len(self._maps), :, rows] + noise[channels, rows])
        return np.stack(found)


def repeated(source: FeatureSource, count: int) -> FeatureSource:
    """Return the images of a feature source, repeated to ``count`` images with noise."""
    z = source.embedding()
    noise = np.random.default_rng(0).standard_normal((count, z.shape[1]), np.float32)
    z = z[np.arange(count) % len(z)] + np.float32(NOISE * z.std()) * noise
    maps = {layer: Repeated(source.maps(layer), count) for layer in source.layers}
    return FeatureSource(source.layers, [Part(maps, z, source.size_of(0))])


def measure_method(features: Path, name: str, count: int) -> dict[str, float]:
    """Fit a method to ``count`` images and score the test images."""
    method, parameters = METHODS[name]
    if method == "patchcore":
        parameters = parameters | {"coreset": "merge"}
    with FeatureStore(features) as store:
        train, test = repeated(store.split("train"), count), store.split("test")
        detector = methods.create(method, parameters)
        _, fit, fit_mb = measured(lambda: detector.fit(train))
        _, score, score_mb = measured(lambda: detector.score(test))
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = {"fit": fit, "score": score / len(test)}
    return seconds | {"peak": max(fit_mb, score_mb) / 1024, "whole": whole / 1024}


def methods_table(count: int, drawn: int, side: int) -> str:
    """Measure all methods, each in a new process, as Markdown."""
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, pixels = Path(scratch) / "wood", Path(scratch) / "pixels.h5"
        features = Path(scratch) / "features.h5"
        draw_category(folder, "wood", train=drawn, good=TEST // 2, per_defect=TEST // 2, size=512)
        rows = make_manifest(folder, drawn)
        decode.decode(rows, folder, pixels, geometry=Geometry.from_config(side, side), threads=1)
        extract(rows, pixels, features, extractor=EXTRACTOR | {"resize": side, "crop": side})
        for name in METHODS:
            found = run_child(__file__, str(features), name, str(count), threads=1)
            print(name, found, flush=True)
            cells.append([name, *map(rounded, found.values())])
    headers = ["method", "fit, s", "score, s an image", "peak, GB", "whole process, GB"]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="plan few jobs, measure small images")
    parse.add_argument("--images", type=int, default=20_000, help="number of training images")
    parse.add_argument("--output", type=Path, default=Path("docs/scale.md"), metavar="FILE")
    parse.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.child:
        features, name, count = given.child
        print(json.dumps(measure_method(Path(features), name, int(count))))
        return
    sizes = [(1, 2, 1)] if given.small else [(8, 10, 5), (20, 10, 5)]
    drawn, side = (4, 64) if given.small else (DRAWN, 224)
    page = PAGE.format(
        machine=machine(),
        categories=CATEGORIES,
        planning=planning_table(sizes),
        images=given.images,
        side=side,
        drawn=drawn,
        noise=NOISE,
        methods=methods_table(given.images, drawn, side),
        # Layers 1 to 3 have 64, 128 and 256 channels at a quarter, an eighth and a sixteenth.
        gigabytes=given.images * side**2 * 4 * (64 / 4**2 + 128 / 8**2 + 256 / 16**2) / 1e9,
        projected=given.images * (side / 8) ** 2 * 128 * 4 / 1e9,
    )
    atomic.write_text(given.output, page)


if __name__ == "__main__":
    main()
