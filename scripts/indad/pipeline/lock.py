"""One run at a time in a results folder, whichever directory it is started in.

Snakemake locks its working directory. Two runs that start in different directories and write to one
results folder do not see each other's lock: each removes the products it is about to make while the
other reads them. So each run holds an operating-system lock on ``<results>/.lock``, which ends with
the process. Whether it reaches other hosts depends on the file system: it does on NFS version 4 and
on Lustre mounted with ``flock``, not on sshfs or on NFS mounted with ``nolock``.
"""

import os
from pathlib import Path

from indad.core import atomic
from indad.core.errors import ConfigError

#: Seconds to wait for a run that is being stopped.
PATIENCE = 3.0
#: Locks of this process: the operating system releases them when it ends.
_held: list[object] = []


def claim(results: Path) -> str:
    """Keep other runs out of a results folder until this process ends.

    Returns:
        A warning if nothing is locked, because the file system has no locks; else "".

    Raises:
        ConfigError: another run uses the folder; the message names its host, process and directory.
    """
    from filelock import FileLock, Timeout

    results = results.absolute()
    results.mkdir(parents=True, exist_ok=True)
    holder, warning = results / ".run.json", ""
    # Without locks, filelock would fall back to a file that outlives a killed process.
    lock = FileLock(results / ".lock", timeout=PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"results: another run uses the folder {results} ({_read(holder)}). "
            "Wait for it, stop it, or use another results folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        warning = (
            f"{results}: this file system has no locks ({error}): do not start a second run on "
            "this folder, or set 'results' to a folder on another file system"
        )
    _held.append(lock)
    run = {"host": atomic.HOST, "process": os.getpid(), "directory": str(Path.cwd())}
    atomic.write_json(holder, run)
    return warning


def _read(holder: Path) -> str:
    try:
        return " ".join(holder.read_text(encoding="utf-8").split())
    except OSError:  # the other run has just started
        return "it has just started"
