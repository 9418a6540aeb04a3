"""A small run of the real workflow: its configuration, and how tests start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from conftest import ROOT

SMALL: dict[str, Any] = {
    "threads": 1,
    "device": "cpu",
    "batch_size": 8,
    "run": {"datasets": ["elpv", "drawn"], "experiments": ["SPADE", "PaDiM", "PatchCore-10"]},
    "datasets": {
        "elpv": {"categories": ["mono"], "options": {"train": 12, "good": 4, "per_defect": 3}},
        "drawn": {
            "categories": ["wood"],
            "options": {"train": 12, "good": 4, "per_defect": 2, "size": 128},
        },
    },
    "extractors": {"lite0": {"resize": 128, "crop": 112, "embedding": "blocks.4"}},
    "experiments": {
        "SPADE": {"method": "spade", "extractor": "lite0", "k_pixel": 3},
        "PaDiM": {"method": "padim", "extractor": "lite0", "dimensions": 20},
        "PatchCore-10": {
            "method": "patchcore",
            "extractor": "lite0",
            "layers": ["blocks.2", "blocks.4"],
            "embedding": "concat",
            "coreset_ratio": 0.1,
        },
    },
}

#: The target of runs whose reports no test reads.
METRICS = "results/metrics.csv"


def command(folder: Path, *arguments: str, cores: int = 2, **changes: Any) -> list[str]:
    """Return the call that runs the workflow with results in ``folder``."""
    config = SMALL | {"results": "results"} | changes
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return [
        *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), *arguments),
        *("--directory", str(folder), "--cores", str(cores), "--resources", "gpu=1"),
        *("--configfile", str(ROOT / "config/config.yaml"), str(file)),
    ]


def snakemake(
    folder: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    before: Sequence[str] = (),
    **changes: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the workflow with results in ``folder``; ``before`` comes first on the command line.

    ``stdout`` has Snakemake's errors and those of its jobs, too.
    """
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    call = [*before, *command(folder, *arguments, **changes)]
    return subprocess.run(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    )


def succeed(folder: Path, *arguments: str, **options: Any) -> str:
    """Run the workflow, which must succeed; return what it writes."""
    done = snakemake(folder, *arguments, **options)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def fail(folder: Path, *arguments: str, **options: Any) -> str:
    """Run the workflow, which must fail with a message of the library; return what it writes."""
    done = snakemake(folder, *arguments, **options)
    assert done.returncode != 0
    assert "Traceback (most recent call last)" not in done.stdout, done.stdout[-4000:]
    return done.stdout


def plan(folder: Path, *arguments: str, **changes: Any) -> dict[str, int]:
    """Return how many jobs of each rule a dry run lists."""
    counts = {}
    for line in succeed(folder, *arguments, "--dry-run", **changes).splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit() and words[0].isidentifier():
            counts[words[0]] = int(words[1])
    counts.pop("total", None)
    return counts


def without_torch(folder: Path) -> dict[str, str]:
    """Return an environment in which ``import torch`` fails, by a package made in ``folder``."""
    package = folder / "blocked/torch"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise ImportError('torch is blocked')")
    path = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


def run_all(folder: Path) -> None:
    """Run the whole workflow, with a feature cache; what does not need torch, without it."""
    blocked, cache = without_torch(folder), str(folder / "cache")
    for until, environment in ("--until decode", blocked), ("--until score", {}), ("", blocked):
        options = ("--benchmark-extended", *until.split())
        succeed(folder, *options, environment=environment, cache=cache)
