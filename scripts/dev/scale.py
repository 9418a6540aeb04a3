"""What large runs cost: the time to plan them, and extrapolated time, disk and memory.

    python scripts/dev/scale.py            writes docs/scale.md

Planning is measured on this machine, by dry runs of configurations made here. The time of the
stages is extrapolated from docs/scaling.csv (``scripts/dev/scaling.py``).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measure import ROOT, machine, read_csv
from tabulate import tabulate

from indad.core import atomic

CATEGORIES, BACKBONES, EXPERIMENTS, SEEDS = 15, 20, 10, 5
IMAGES, TEST = 100_000, 10_000
#: Assumed, not measured: how many times faster than these CPU cores a GPU is.
GPU_SPEED = 50


def markdown(cells: list[list[str]], headers: list[str]) -> str:
    """Return a Markdown table."""
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


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


#: Runs a command as its only child, whose CPU time and peak memory it then reports.
MEASURED_CHILD = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1024 if sys.platform == "linux" else 1 << 20
print(json.dumps({"code": done.returncode, "output": done.stdout + done.stderr,
                  "cpu": used.ru_utime + used.ru_stime, "mb": used.ru_maxrss / unit}))
"""


def snakemake(folder: Path, config: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """Run Snakemake in ``folder``; return its output, CPU seconds and peak memory.

    Raises:
        SystemExit: Snakemake failed; its message is included.
    """
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
        *("--directory", str(folder), "--cores", "1", "--nocolor"),
        *("--configfile", str(ROOT / "config/config.yaml"), str(file), *arguments),
    ]
    call = [sys.executable, "-c", MEASURED_CHILD, *command]
    result = json.loads(subprocess.run(call, capture_output=True, text=True).stdout)
    if result["code"]:
        raise SystemExit(f"snakemake {' '.join(arguments)}: failed\n{result['output'][-3000:]}")
    return result


def job_count(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Plan a run from nothing; return the number of jobs, CPU seconds and peak memory."""
    found = snakemake(folder, config, "--dry-run", "--quiet", "rules", "host")
    total = next(line for line in found["output"].splitlines() if line.startswith("total"))
    return found | {"jobs": int(total.split()[1])}


def write_records(results: Path) -> None:
    """Write a record for every job whose settings a dry run has written, as if it had run."""
    for path in (results / "settings").rglob("*.json"):
        name = path.relative_to(results / "settings")
        settings = json.loads(path.read_text())["settings"]
        record = {"version": 1, "rule": name.parts[0].removesuffix(".json"), "settings": settings}
        record |= {"script": None, "inputs": {}, "outputs": {}, "finished": "never"}
        (results / "records" / name).parent.mkdir(parents=True, exist_ok=True)
        (results / "records" / name).write_text(json.dumps(record))


def finished_run(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Measure a run in which all products exist: empty files marked as up to date."""
    jobs = job_count(folder, config)["jobs"]
    listed = snakemake(folder, config, "--summary")["output"].splitlines()
    start = next(i for i, line in enumerate(listed) if line.startswith("output_file"))
    for row in csv.DictReader(listed[start:], delimiter="\t"):
        path = folder / (row["output_file"] or "")
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    write_records(folder / "results")
    snakemake(folder, config, "--touch")
    for path in (folder / "results/settings").rglob("*.json"):
        os.utime(path, (0, 0))  # older than every product
    done = snakemake(folder, config)
    if "Nothing to be done" not in done["output"]:
        raise SystemExit(f"this run should be finished:\n{done['output'][-3000:]}")
    return done | {"jobs": jobs}


def planning_table(sizes: list[tuple[int, int, int]]) -> str:
    """Measure planning for growing configurations, and a finished run, as Markdown."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found = job_count(Path(folder), large_config(*size))
        name = " x ".join(map(str, (CATEGORIES, *size)))
        rows.append({"what": f"{name}, no product exists"} | found)
    with tempfile.TemporaryDirectory() as folder:
        found = finished_run(Path(folder), {})
    name = f"{CATEGORIES} x 1 x 5 x 1"
    rows.append({"what": f"{name}, the standard configuration, all products exist"} | found)
    cells = [
        [row["what"], f"{row['jobs']:,}", f"{row['cpu']:.1f}", f"{row['mb']:,.0f}"] for row in rows
    ]
    sizes_header = "categories x backbones x experiments x seeds"
    return markdown(cells, [sizes_header, "jobs", "CPU seconds", "peak MB"])


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


def stage_table(rows: list[dict[str, str]]) -> str:
    """Return the extrapolated time of each stage at 224 x 224 pixels as Markdown."""
    rows = [row for row in rows if row["side"] == "224"]
    cells = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        chosen = [row for row in rows if row["stage"] == stage]
        points = [(int(row["images"]), float(row["seconds"])) for row in chosen]
        seconds, growth = extrapolate(stage, points)
        gpu = f"{seconds / 3600 / GPU_SPEED:,.2f}" if stage != "decode" else "-"
        count, measured = points[-1]
        cells.append([stage, growth, f"{measured:g} at {count:,}", f"{seconds / 3600:,.1f}", gpu])
    gpu_header = f"GPU hours, if {GPU_SPEED} times as fast"
    return markdown(cells, ["stage", "growth", "measured seconds", "CPU hours", gpu_header])


#: For 224 x 224 pixels: ``(C, h, w)`` of the layers, the embedding's length, PaDiM's dimensions.
NETWORKS: dict[str, tuple[dict[str, tuple[int, int, int]], int, int]] = {
    "ResNet-18": ({"1": (64, 56, 56), "2": (128, 28, 28), "3": (256, 14, 14)}, 512, 100),
    "Wide ResNet-50-2": (
        {"1": (256, 56, 56), "2": (512, 28, 28), "3": (1024, 14, 14)},
        2048,
        550,
    ),
}


def size_table() -> str:
    """Return the size of the largest files and arrays for ``IMAGES`` images as Markdown."""
    cells = []
    for name, (layers, embedding, dimensions) in NETWORKS.items():
        values = sum(map(math.prod, layers.values())) + embedding
        features = 4 * values * (IMAGES + TEST)
        covariances = 4 * 56 * 56 * dimensions * (dimensions + 1) / 2
        patches = IMAGES * 28 * 28
        gigabytes = (covariances, 4 * 128 * patches, 4 * 1024 * patches / 100)
        maps = TEST * 224 * 224 * (4 + 1)
        cells.append(
            [
                name,
                *(f"{each / 1e12:.2f}" for each in (features, features / 2)),
                *(f"{each / 1e9:,.1f}" for each in (*gigabytes, maps)),
            ]
        )
    headers = ["network", "features, TB", "as float16", "PaDiM's covariances, GB"]
    headers += ["PatchCore's projected patches", "its 1 % bank", "test maps and masks"]
    return markdown(cells, headers)


PAGE = """\
# Scale

Written by `python scripts/dev/scale.py` ({machine}).

## Planning

Dry runs of MVTec AD's {categories} categories with many backbones, and a run that finds all
products of the standard configuration up to date. CPU time of one process, which on an idle core
is about the elapsed time. Small jobs are submitted in groups, so a cluster sees fewer than these.

{planning}

## Time and memory by number of images and image size

![time and peak memory of each stage](scaling.png)

Measured by `python scripts/dev/scaling.py` ([as CSV](scaling.csv)).

## {images:,} training and {test:,} test images in one category

Extrapolated from `docs/scaling.csv`: ResNet-18, 224 x 224 pixels, on {machine_scaling}.
The growth beyond the measured number of images is an assumption, and so is the speed of a GPU.

{stages}

The largest files and arrays:

{sizes}

Extraction and PaDiM grow linearly and need little memory. The feature file is large, but all
readers read it in pieces. Two parts do not scale to this size: `score` and `evaluate` hold all
anomaly maps and masks of the test images in memory, several copies of them at their peak, and
PatchCore's greedy coreset holds all projected patches and takes quadratic time. Divide such data
into categories, or use fewer patches.
"""


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="plan few jobs only")
    parse.add_argument("--output", type=Path, default=Path("docs/scale.md"), metavar="FILE")
    given = parse.parse_args()
    sizes = [(1, 2, 1)] if given.small else [(8, 10, 5), (BACKBONES, EXPERIMENTS, SEEDS)]
    rows = read_csv(ROOT / "docs/scaling.csv")
    page = PAGE.format(
        machine=machine(),
        categories=CATEGORIES,
        planning=planning_table(sizes),
        images=IMAGES,
        test=TEST,
        machine_scaling=rows[0]["machine"],
        stages=stage_table(rows),
        sizes=size_table(),
    )
    atomic.write_text(given.output, page)


if __name__ == "__main__":
    main()
