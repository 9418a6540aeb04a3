"""What every stage script shares: its job description, its log file and its way to fail.

A stage script runs in two ways with the same text. In the workflow, Snakemake puts an object
called ``snakemake`` into the script. By hand, the job is described on the command line::

    python scripts/index.py --log index.log --wildcards category=bottle \\
        --params '{"folder": "/data/bottle"}' --output manifest=bottle.csv
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import json
import logging
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from indad.errors import DiskError, IndadError

logger = logging.getLogger("indad")

Job = Any

#: Settings of a job described by hand, as the configuration's schema has them.
DEFAULTS = {"device": "auto", "tf32": False, "batch_size": "auto", "memory_mb": 1024}


class _Files(dict[str, str]):
    """Named files of a job described by hand, reachable as attributes as in a workflow."""

    def __getattr__(self, name: str) -> str:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default)


def _parse(script: str, description: str | None) -> Job:
    """Read a job from the command line."""
    parser = argparse.ArgumentParser(prog=script, description=description)
    pairs = {"nargs": "*", "default": [], "metavar": "NAME=VALUE"}
    parser.add_argument("--input", **pairs, help="input files")
    parser.add_argument("--output", **pairs, help="output files")
    parser.add_argument("--wildcards", **pairs, help="dataset=, category=, experiment=, seed=")
    parser.add_argument("--params", type=json.loads, default={}, help="parameters, as JSON")
    parser.add_argument("--config", type=json.loads, default={}, help="settings, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", default=None, help="log file (default: standard error only)")
    given = parser.parse_args()

    def named(items: list[str]) -> _Files:
        return _Files(item.split("=", 1) for item in items)

    return SimpleNamespace(
        input=named(given.input),
        output=named(given.output),
        wildcards=named(given.wildcards),
        params=_Files(given.params),
        config=DEFAULTS | given.config,
        threads=given.threads,
        log=[given.log] if given.log else [],
    )


def _log_to(files: list[str]) -> None:
    handlers: list[logging.Handler] = []
    if files:
        Path(files[0]).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(files[0], mode="w", encoding="utf-8"))
    else:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers, force=True
    )
    logging.captureWarnings(True)


#: What a full or write-protected disk makes of a write, and what to do about it. HDF5 and
#: safetensors give the number in their text only.
_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another 'results' folder",
    errno.EACCES: "permission denied; make the folder writable or choose another 'results' folder",
    errno.EIO: "the disk failed to read or write; check it",
}


@contextlib.contextmanager
def said_plainly() -> Iterator[None]:
    """Turn the errors of a full, failing or write-protected disk into one the user can mend.

    Raises:
        DiskError: for these; any other error passes.
    """
    try:
        yield
    except IndadError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in _DISK:
            found = re.search(r"(?:errno = |os error )(\d+)", str(error))
            number = int(found[1]) if found else None
        if number not in _DISK:
            raise
        place = getattr(error, "filename", None)
        raise DiskError(
            f"{f'{place}: ' if place else ''}{_DISK[number]}, then run again; what is finished is "
            f"kept [{type(error).__name__}: {str(error).splitlines()[0]}]"
        ) from error


def run(main: Callable[[Job], None], snakemake: Job | None) -> None:
    """Run ``main`` on the workflow's job, or on the one described on the command line.

    An error meant for the user is shown as its message alone; any other keeps its traceback. Both
    also stand in the job's log, and the exit code is 1, so that Snakemake removes the outputs.
    """
    script = Path(main.__code__.co_filename).name
    job = snakemake or _parse(script, sys.modules[main.__module__].__doc__)
    _log_to(list(job.log))
    # A library that cannot close a file on a full disk says so for each of its objects.
    sys.unraisablehook = lambda what: logger.debug("while cleaning up: %s", what.exc_value)
    started = time.perf_counter()
    logger.info("machine: %s", machine())
    try:
        with said_plainly():
            main(job)
        logger.info("done in %.2f s", time.perf_counter() - started)
    except IndadError as error:
        logger.error("error: %s", error)
        print(f"\nindad: {error}\n", file=sys.stderr)
        if isinstance(error, DiskError):
            # HDF5 tries again to write as the process ends, and crashes it.
            sys.stderr.flush()
            os._exit(1)
        sys.exit(1)
    except Exception:
        logger.exception("failed")
        traceback.print_exc()
        sys.exit(1)
    if snakemake is not None:
        _leave()


def _leave() -> None:
    """End the process at once, with its work done and on the disk.

    Python would first take every module down, which for torch takes half a second.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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
    from indad.errors import DeviceError

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
