"""What the measuring tools share: the machine, memory, and runs in a process of their own."""

from __future__ import annotations

import csv
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indad.core import atomic, device

ROOT = Path(__file__).resolve().parent.parent.parent


def machine() -> str:
    """Return the processor, the number of cores and the versions of Python and torch."""
    import torch

    return f"{device.machine()}, Python {platform.python_version()}, torch {torch.__version__}"


def memory_mb(field: str) -> float:
    """Return a field of ``/proc/self/status`` in MB: ``VmRSS`` (now) or ``VmHWM`` (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def reset_peak_memory() -> bool:
    """Reset ``VmHWM`` of this process to its present memory; return whether that was possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def children_mb() -> float:
    """Return the peak memory of the largest finished child process, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def run_child(script: str, *arguments: str, threads: int | None = None) -> dict[str, Any]:
    """Run ``script --child ...`` in a new process; return the JSON object on its last line."""
    variables = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, script, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys to a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as a list of dictionaries; an empty list if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
