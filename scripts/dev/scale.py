"""What large runs cost: the time to plan them, and extrapolated time, disk and memory.

    python scripts/dev/scale.py            writes docs/scale.md

Planning is measured on this machine, by dry runs of configurations made here. The time of the
stages is extrapolated from docs/scaling.csv (``scripts/dev/scaling.py``).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pandas as pd
import yaml
from measure import ROOT, machine
from tabulate import tabulate

from indad.core import atomic

#: The text of the page, with places for its tables.
PAGE = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
CATEGORIES = 15
IMAGES, TEST = 100_000, 10_000
#: Assumed, not measured: how many times faster than these CPU cores a GPU is.
GPU_SPEED = 50


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


# -- 100,000 images ------------------------------------------------------------------------------


def extrapolate(stage: str, points: list[tuple[int, float]]) -> tuple[float, str]:
    """Return seconds for ``IMAGES`` training and ``TEST`` test images, and the assumed growth.

    Args:
        stage: as in docs/scaling.csv.
        points: number of images and seconds, growing; scoring was measured on 16 test images.
    """
    (count0, seconds0), (count1, seconds1) = points[-2:]
    if stage.startswith("score PatchCore"):
        return seconds1 / 16 * TEST * IMAGES / count1, "per test image, times the bank"
    if stage.startswith("score"):
        return seconds1 / 16 * TEST, "per test image"
    if "PatchCore" in stage:
        return seconds1 * (IMAGES / count1) ** 2, "quadratic"
    slope = max(0.0, (seconds1 - seconds0) / (count1 - count0))
    return seconds1 + slope * (IMAGES - count1), "linear"


def stage_table(table: pd.DataFrame) -> str:
    """Return the extrapolated time of each stage at 224 x 224 pixels as Markdown."""
    cells = []
    for stage, rows in table[table["side"] == 224].groupby("stage", sort=False):
        points = list(zip(rows["images"], rows["seconds"], strict=True))
        seconds, growth = extrapolate(stage, points)
        gpu = f"{seconds / 3600 / GPU_SPEED:,.2f}" if stage != "decode" else "-"
        count, measured = points[-1]
        cells.append([stage, growth, f"{measured:g} at {count:,}", f"{seconds / 3600:,.1f}", gpu])
    gpu_header = f"GPU hours, if {GPU_SPEED} times as fast"
    headers = ["stage", "growth", "measured seconds", "CPU hours", gpu_header]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="plan few jobs only")
    parse.add_argument("--output", type=Path, default=Path("docs/scale.md"), metavar="FILE")
    given = parse.parse_args()
    sizes = [(1, 2, 1)] if given.small else [(8, 10, 5), (20, 10, 5)]
    # Before torch is imported: the peak memory of a child includes that of its parent at the start.
    planning = planning_table(sizes)
    table = pd.read_csv(ROOT / "docs/scaling.csv")
    page = PAGE.format(
        machine=machine(),
        categories=CATEGORIES,
        planning=planning,
        images=IMAGES,
        test=TEST,
        machine_scaling=table["machine"][0],
        stages=stage_table(table),
    )
    atomic.write_text(given.output, page)


if __name__ == "__main__":
    main()
