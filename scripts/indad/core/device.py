"""The device of a job: choosing and naming it, and smaller batches when its memory is full."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from indad.core.errors import DeviceError

logger = logging.getLogger("indad")

Result = TypeVar("Result")


def smaller(size: int, what: str, least: int = 1) -> int:
    """Return half of ``size``, after a ``torch.cuda.OutOfMemoryError``.

    Call it while the error is handled. Sizes change results by rounding at most.

    Args:
        size: the size that did not fit.
        what: its name in messages, with ``{}`` for the size.
        least: the smallest size to try.

    Raises:
        DeviceError: ``size`` already is ``least``.
    """
    import torch

    if size <= least:
        raise DeviceError(
            f"the GPU's memory does not hold {what.format(size)}. Close other programs that use "
            "it, or set 'device: cpu' in the configuration"
        ) from None
    half = max(least, size // 2)
    logger.warning("the GPU's memory does not hold %s; trying %d", what.format(size), half)
    torch.cuda.empty_cache()
    return half


class Batches:
    """Cuts a number of images into batches, smaller ones where a GPU's memory is too small.

    Attributes:
        size: images in a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, compute: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """Call ``compute`` for batch after batch of ``count`` images; yield batches and results.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        import torch

        start = 0
        while start < count:
            batch = slice(start, min(start + self.size, count))
            try:
                result = compute(batch)
            except torch.cuda.OutOfMemoryError:
                self.size = smaller(self.size, "a batch of {} images")
                continue
            yield batch, result
            start = batch.stop


def _cpuinfo() -> str:
    """Return Linux's description of the processors; "" on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def machine() -> str:
    """Return the name of the processor and the number of its cores."""
    found = re.search(r"^model name\s*: (.*)$", _cpuinfo(), re.M)
    model = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def device_name(device: str) -> str:
    """Return the name of the GPU, or torch's number of threads on a CPU; torch is loaded."""
    import torch

    return (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )


def _mkl_branch() -> str:
    """Return the value of ``MKL_CBWR`` with which MKL rounds alike for any number of threads.

    Without it MKL splits some matrix products differently for two threads than for eight, and the
    results of ``--cores 2`` and ``--cores 8`` differ in the last digits. It must be set before MKL
    is loaded, and costs little if any time.
    """
    cpu = _cpuinfo()
    return "AVX512,STRICT" if "GenuineIntel" in cpu and " avx512f " in cpu else "AVX2,STRICT"


#: Whether this process was forked from one with torch.
_forked = False


def _after_fork() -> None:
    """Let a forked process compute with one thread: it would wait for ever for its parent's."""
    global _forked
    if "torch" in sys.modules:
        _forked = True
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def import_large(module: str) -> None:
    """Import a module that creates a million objects and frees few, as torch and timm do.

    Collecting garbage meanwhile only takes time, and so do the next passes over these objects. They
    are left out: objects that were frozen and unfrozen are in the oldest generation.
    """
    if module in sys.modules:
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
        # Python 3.12 starts with 375 frozen objects. A program that has frozen its own has more.
        if gc.get_freeze_count() < 1000:
            gc.freeze()
            gc.unfreeze()
    finally:
        if collecting:
            gc.enable()


def end_process(code: int) -> NoReturn:
    """End the process without freeing the objects of torch one by one, which takes half a second.

    Only what is printed and logged is written before.

    Raises:
        OSError: it cannot be written.
    """
    logging.shutdown()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(code)


def import_torch() -> None:
    """Import torch, with settings that its libraries read when they are loaded."""
    os.environ.setdefault("MKL_CBWR", _mkl_branch())
    # Threads that wait for each other sleep. With active waiting they take the cores of other jobs,
    # and with more threads than free cores everything becomes several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import_large("torch")


def use_device(config: Mapping[str, Any], threads: int) -> str:
    """Choose the device for ``device: auto | cpu | cuda``, and set up torch.

    Args:
        config: with ``device`` and ``tf32``.
        threads: most CPU threads of torch.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        DeviceError: ``cuda`` is configured and there is none. The CPU never replaces it.
    """
    import_torch()
    import torch

    device = config["device"]
    torch.set_num_threads(1 if _forked else max(1, threads))
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise DeviceError(
            "the configuration has 'device: cuda', but torch finds no usable CUDA device on "
            "this machine. Set 'device: auto' or 'device: cpu', or run on a machine with a GPU."
        )
    chosen = "cuda" if available and device != "cpu" else "cpu"
    # TF32 keeps 10 bits of the mantissa: faster, but nearest neighbours differ from those of a CPU.
    # It is off unless configured; torch's own default is on for convolutions.
    torch.backends.cuda.matmul.allow_tf32 = config["tf32"]
    torch.backends.cudnn.allow_tf32 = config["tf32"]
    torch.backends.cudnn.benchmark = False
    logger.info("device: %s (%s)", chosen, device_name(chosen))
    return chosen
