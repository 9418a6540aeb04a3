"""What every stage script shares: its job description, its log file and its way to fail.

A stage script runs in two ways with the same text. In the workflow, Snakemake puts an object
called ``snakemake`` into the script. By hand, the job is described on the command line::

    python scripts/index.py --log index.log --wildcards category=bottle \\
        --params '{"folder": "/data/bottle"}' --output manifest=bottle.csv
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from indad.core.device import machine
from indad.core.disk import explain_disk_errors
from indad.core.errors import DiskError, IndadError

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
    # PIL warns of images above 89 megapixels; indad.data.images has its own, higher limit.
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")


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
        with explain_disk_errors():
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
