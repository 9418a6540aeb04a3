"""What the measuring tools share: the machine, memory, and runs in a process of their own."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from indad.core import device

ROOT = Path(__file__).resolve().parent.parent.parent

Result = TypeVar("Result")


def machine(where: str = "cpu") -> str:
    """Return the processor, cores, GPU if in use, and the versions of Python and torch."""
    import torch

    names = [device.machine(), *([torch.cuda.get_device_name()] if where == "cuda" else [])]
    return f"{', '.join(names)}, Python {platform.python_version()}, torch {torch.__version__}"


def measured(run: Callable[[], Result], where: str = "cpu") -> tuple[Result, float, float]:
    """Run a function; return its result, the seconds, and its peak memory in MB.

    The memory is that beyond what this process has at the start. If the function starts processes,
    it is that of the largest of them. ``where`` is ``cpu`` or ``cuda``; on a GPU it is the memory
    that torch allocates there.
    """
    if where == "cuda":
        return _measured_on_gpu(run)
    children = _children_mb()
    with suppress(OSError):  # where the peak cannot be reset, it includes the preparation
        Path("/proc/self/clear_refs").write_text("5")
    before = _memory_mb("VmRSS")
    started = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - started
    child = _children_mb() if _children_mb() > children else 0.0
    return result, seconds, max(_memory_mb("VmHWM") - before, child)


def _measured_on_gpu(run: Callable[[], Result]) -> tuple[Result, float, float]:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return result, seconds, (torch.cuda.max_memory_allocated() - before) / 2**20


def _memory_mb(field: str) -> float:
    """Return a field of ``/proc/self/status``: ``VmRSS`` (now) or ``VmHWM`` (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _children_mb() -> float:
    """Return the peak memory of the largest child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def run_child(script: str, *arguments: str, threads: int | None = None) -> dict[str, Any]:
    """Run ``script --child ...`` in a new process; return the JSON object on its last line."""
    variables = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, script, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
