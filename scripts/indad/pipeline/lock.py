"""One run at a time in a results folder, whatever directory or machine it is started from.

Snakemake locks its working directory. Two runs that start in different directories, or on two
hosts that share a file system, and write to one results folder do not see each other's lock: each
removes the products it is about to make while the other reads them.

Within a host the system's lock on ``<results>/.lock`` decides. It ends with the process, however
that ends, but does not reach other hosts everywhere: NFS mounted with ``nolock`` or
``local_lock``, sshfs, Lustre without ``flock``. So every run also keeps a file of its host,
``<results>/.run.<host>.json``, and writes it anew every `BEAT` seconds. Another host's file that
is younger than `SILENCE` is a run that lives.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import threading
import time
from pathlib import Path

from indad.core import atomic
from indad.core.errors import ConfigError

logger = logging.getLogger("indad")

#: Seconds between two signs of life.
BEAT = 20.0
#: Seconds after which a run of another host is taken for dead: more than a beat, and the minute
#: for which a network file system may show the time of the one before.
SILENCE = 90.0

#: Locks of this process; the system lets go of them when it ends, however it ends.
_held: list[object] = []


def claim(results: Path) -> None:
    """Keep other runs out of a results folder until this process ends.

    Of two hosts that start at the same moment, where the system's lock does not reach from one to
    the other, at least one is refused; it may be both. Where the file system has no locks at all,
    a second run on the same host is not noticed, and a warning says so.

    Raises:
        ConfigError: another run has the folder: its machine, process and directory; for one of
            another host when it last showed life, and what to do if it is dead.
    """
    from filelock import FileLock, Timeout

    results = results.absolute()
    results.mkdir(parents=True, exist_ok=True)
    # Where there are no locks, filelock would fall back to a file that outlives a killed process.
    lock = FileLock(results / ".lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        # The last to show life has it; what others left lies there too.
        said = max(_runs(results).values(), default=(0.0, "not told"))[1]
        raise ConfigError(_taken(results, said)) from None
    except (OSError, NotImplementedError) as error:
        logger.warning(
            "%s: cannot be locked on this file system (%s); start no second run on it from this "
            "host",
            *(results, error),
        )
    own = results / f".run.{atomic.HOST}.json"
    text = atomic.json_text(
        {"host": atomic.HOST, "process": os.getpid(), "directory": str(Path.cwd())}
    )
    # First told, then looked: who starts meanwhile sees this run, or is seen here. Each run writes
    # its own host's file only, so that none can take away another's.
    atomic.write_text(own, text)
    now = own.stat().st_mtime  # by the file system's clock; this host's may differ
    for path, (beat, said) in _runs(results).items():
        silent = max(now - beat, 0)
        if path != own and silent < SILENCE:
            own.unlink(missing_ok=True)
            lock.release()
            raise ConfigError(
                f"{_taken(results, said)}. It last showed life {silent:.0f} s ago: if you know "
                f"that it is dead, wait {SILENCE - silent:.0f} s or delete {path}"
            )
    _held.append(lock)
    atexit.register(_withdraw, own, text, os.getpid())
    threading.Thread(target=_live, args=(own, text), name="beat", daemon=True).start()


def _taken(results: Path, said: str) -> str:
    return (
        f"results: another run has the folder {results} (by {' '.join(said.split())}). "
        "Wait for it, stop it, or use another results folder"
    )


def _runs(results: Path) -> dict[Path, tuple[float, str]]:
    """Return each host's file with when it was last written, and what it says."""
    found = {}
    for path in results.glob(".run.*.json"):
        try:
            # Opened, it is asked for anew where a network file system remembers what it was.
            with path.open(encoding="utf-8") as file:
                found[path] = os.fstat(file.fileno()).st_mtime, file.read()
        except OSError:
            # In the folder and not there: it went this moment, or this host remembers a time
            # before it came (seen with sshfs). When in doubt it lives.
            found[path] = math.inf, path.name
    return found


def _live(own: Path, text: str) -> None:
    """Show life until the process ends.

    The file is written, not touched: sshfs would set this host's time. One that was removed stays
    away, and a disk that cannot be reached now may be at the next beat.
    """
    while True:
        time.sleep(BEAT)
        with contextlib.suppress(OSError), own.open("r+", encoding="utf-8") as file:
            file.write(text)


def _withdraw(own: Path, text: str, process: int) -> None:
    """Say that the run is over, unless this is a fork of it or the file is another run's by now."""
    with contextlib.suppress(OSError):
        if os.getpid() == process and own.read_text(encoding="utf-8") == text:
            own.unlink()
