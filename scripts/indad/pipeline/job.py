"""What the script of every rule shares: its log file, its way to fail, and the job's record.

Snakemake runs the scripts and puts an object called ``snakemake`` into them, the job: its files,
parameters and wildcards.
"""

import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from indad.core import checksum, provenance
from indad.core.cores import available_cores
from indad.core.device import device_name, end_process, machine, use_device
from indad.core.disk import explain_disk_errors
from indad.core.errors import DiskError, IndadError
from indad.pipeline import currency

logger = logging.getLogger("indad")

Job = Any
#: What a script adds to the record of its job: ``images``, ``device``, ``torch_seconds``,
#: ``cached``, ``model_mb``, ``coreset_radius``, ``made_with``; all of them optional.
Facts = Mapping[str, Any]

#: Inputs that do not decide the outputs. The settings are compared by themselves, and an archive
#: that was found elsewhere holds the same data.
_NOT_COMPARED = ("settings", "archive")


def run(main: Callable[[Job], Facts | None], job: Job | None) -> None:
    """Run ``main`` on Snakemake's job, write the job's record, and end the process.

    An `IndadError` is shown as its message alone; any other keeps its traceback. Both
    are also written to the job's log, and the exit code is 1, so that Snakemake removes the
    outputs.
    """
    if job is None:
        script = Path(main.__code__.co_filename).name
        sys.exit(f"{script} is the script of a rule: Snakemake runs it (see README.md)")
    logging.basicConfig(
        filename=job.log[0],
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        encoding="utf-8",
        force=True,
    )
    logging.captureWarnings(True)
    # PIL warns of images above 89 megapixels; indad.data.images has its own, higher limit.
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    # A library that cannot close a file on a full disk reports it for each of its objects.
    sys.unraisablehook = lambda what: logger.debug("while cleaning up: %s", what.exc_value)
    started = time.perf_counter()
    logger.info("machine: %s", machine())
    try:
        with explain_disk_errors():
            facts = main(job) or {}
            seconds = time.perf_counter() - started
            if "record" in job.output.keys():  # noqa: SIM118 - snakemake's own class
                write_record(job, facts, seconds)
        logger.info("done in %.2f s", seconds)
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
    end_process(0)


def write_record(job: Job, facts: Facts, seconds: float) -> None:
    """Write what a job did: its last output, and what planning and the run-time tables read."""
    results = Path(job.config["results"])
    inputs = [path for name, path in _named(job.input) if name not in _NOT_COMPARED]
    outputs = [path for name, path in _named(job.output) if name != "record"]
    rule = Path(job.output.record).relative_to(results / "records").with_suffix("").parts[0]
    files = [path for path in outputs if path.is_file()]
    checksum.write_json(
        Path(job.output.record),
        {
            "version": currency.VERSION,
            "rule": rule,
            "script": currency.digest(Path(job.scriptdir, f"{rule}.py")),
            "wildcards": dict(job.wildcards.items()),
            "settings": job.params.settings,
            "inputs": {currency.portable(path, results): currency.digest(path) for path in inputs},
            "outputs": {
                currency.portable(path, results): currency.digest(path) for path in outputs
            },
            "output_mb": sum(path.stat().st_size for path in files) / 1e6,
            "seconds": seconds,
            "machine": machine(),
            "software": provenance.software(),
            "torch_seconds": 0.0,
            "images": None,
            "device": "",
            "cached": False,
            **facts,
            "finished": datetime.now().isoformat(sep=" ", timespec="milliseconds"),
        },
    )


def _named(files: Any) -> list[tuple[str, Path]]:
    """Return the files of a job with their names; all of a list have the list's."""
    found = []
    for name, value in files.items():
        each = [value] if isinstance(value, str) else value
        found += [(name, Path(path)) for path in each]
    return found


def start_device(job: Job, threads: int | None = None) -> tuple[str, dict[str, Any]]:
    """Load torch and choose the job's device.

    Args:
        job: the job.
        threads: threads that torch may use on a CPU; the job's if None.

    Returns:
        ``cpu`` or ``cuda``, and the facts about it for the job's record.

    Raises:
        DeviceError: the configuration demands a GPU and there is none.
    """
    started = time.perf_counter()
    # Snakemake does not know the limits of control groups. Never one: see the script of extract.
    threads = min(threads or job.threads, max(2, available_cores()))
    device = use_device(job.config, threads)
    loaded = time.perf_counter() - started
    return device, {"device": f"{device} ({device_name(device)})", "torch_seconds": loaded}
