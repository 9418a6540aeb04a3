"""One run at a time in a results folder, whatever directory or machine it is started from.

Snakemake locks its working directory. Two runs that start in different directories, or on two
hosts that share a file system, and write to one results folder do not see each other's lock: each
removes the products it is about to make while the other reads them.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from indad import atomic
from indad.errors import ConfigError

logger = logging.getLogger("indad")

#: Locks of this process; the system lets go of them when it ends, however it ends.
_held: list[object] = []


def claim(results: Path) -> None:
    """Keep other runs out of a results folder until this process ends.

    The lock is the system's, on ``<results>/.lock``; ``<results>/.run.json`` says who has it. Where
    the file system has no locks, a warning is all there is.

    Raises:
        ConfigError: another run has the folder, naming its machine, process and directory.
    """
    from filelock import FileLock, Timeout

    results.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(results / ".lock", timeout=0), results / ".run.json"
    try:
        lock.acquire()
    except Timeout:
        said = owner.read_text(encoding="utf-8") if owner.exists() else "not told"
        raise ConfigError(
            f"results: another run has the folder {results.absolute()} (by "
            f"{' '.join(said.split())}). Wait for it, stop it, or use another results folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        logger.warning(
            "%s: cannot be locked on this file system (%s); start no second run on it",
            *(results, error),
        )
        return
    _held.append(lock)
    atomic.write_json(
        owner,
        {"host": socket.gethostname(), "process": os.getpid(), "directory": str(Path.cwd())},
    )
