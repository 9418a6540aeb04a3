"""The device a job computes on: choosing it, naming it, and what to do when its memory is short."""

from __future__ import annotations

import gc
import logging
import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indad.core.errors import DeviceError

logger = logging.getLogger("indad")


def smaller(size: int, what: str, least: int = 1) -> int:
    """Return half of ``size``, after a ``torch.cuda.OutOfMemoryError``.

    Called while the error is handled. Sizes change results by rounding at most.

    Args:
        size: what did not fit.
        what: names it in messages; ``{}`` stands for the size.
        least: the smallest size worth trying.

    Raises:
        DeviceError: ``size`` already is ``least``.
    """
    import torch

    if size <= least:
        raise DeviceError(
            f"the GPU's memory does not hold {what.format(size)}. Free it of other programs, or "
            "set 'device: cpu' in the configuration"
        ) from None
    half = max(least, size // 2)
    logger.warning("the GPU's memory does not hold %s; trying %d", what.format(size), half)
    torch.cuda.empty_cache()
    return half


def machine() -> str:
    """Name the processor and count the cores, for whoever reads a run time."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(encoding="utf-8"), re.M)
        model = names[0].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def _mkl_branch() -> str:
    """Return the setting by which MKL rounds alike in any number of threads, eight at least.

    Left to itself it cuts some matrix products differently in eight threads than in two, and the
    figures of ``--cores 2`` are not quite those of ``--cores 8``. It has to be set before MKL is
    loaded, costs little if anything, and concerns no other library.
    """
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        cpu = ""
    return "AVX512,STRICT" if "GenuineIntel" in cpu and " avx512f " in cpu else "AVX2,STRICT"


def use_device(config: Mapping[str, Any], threads: int) -> str:
    """Settle ``device: auto | cpu | cuda`` on this machine and bound torch's CPU threads.

    Raises:
        DeviceError: ``cuda`` is demanded and there is none. It is never replaced by the CPU.
    """
    started = time.perf_counter()
    os.environ.setdefault("MKL_CBWR", _mkl_branch())
    # Threads that wait for each other go to sleep: spinning, they take the cores of the jobs beside
    # them, and with more threads than free cores everything slows down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Nothing a million new objects of an import would be collected for.
    gc.disable()
    import torch

    gc.enable()
    loaded = time.perf_counter() - started
    device = config["device"]
    torch.set_num_threads(max(1, threads))
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise DeviceError(
            "the configuration demands 'device: cuda', but torch finds no usable CUDA device on "
            "this machine. Set 'device: auto' or 'device: cpu', or run on a machine with a GPU."
        )
    chosen = "cuda" if available and device != "cpu" else "cpu"
    # TF32 keeps 10 bits of the mantissa, which moves nearest neighbours from one device to another:
    # faster, and off unless asked for. torch's own default has it on for convolutions.
    torch.backends.cuda.matmul.allow_tf32 = config["tf32"]
    torch.backends.cudnn.allow_tf32 = config["tf32"]
    torch.backends.cudnn.benchmark = False
    name = torch.cuda.get_device_name() if chosen == "cuda" else f"{threads} threads"
    logger.info("device: %s (%s); torch loaded in %.2f s", chosen, name, loaded)
    return chosen
