"""Reading the log files of jobs, as `indad.pipeline.job` and `indad.core.progress` write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: Each message begins with the date and time.
_BEGIN = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ", re.MULTILINE)
#: "extract bottle r18: 40/209 images, 8 s left", or "extract bottle r18: 209 images in 41 s".
_PROGRESS = re.compile(r": (\d+)(?:/(\d+) \w+| \w+ in \d)")
#: Begins the message of an error that the user can fix.
_ERROR = "error: "
#: Bytes at the end of a log that are read.
_END = 64_000


class Progress(NamedTuple):
    """What a job does: a line for the user, and the share that is done, in [0, 1]."""

    text: str
    share: float


def messages(log: Path) -> list[str]:
    """Return the last messages of a log file; none if it cannot be read (yet)."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _END))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [part.rstrip("\n") for part in _BEGIN.split(text) if part.strip()]


def progress(log: Path) -> Progress | None:
    """Return the progress that a log ends with, or None if its last message is no progress."""
    found = messages(log)
    if not found or not (match := _PROGRESS.search(found[-1])):
        return None
    done, total = int(match[1]), int(match[2] or match[1])
    return Progress(found[-1].splitlines()[0], done / max(1, total))


def error_message(found: Sequence[str]) -> str:
    """Return the message for the user among the messages of a log, or ""."""
    errors = [each for each in found if each.startswith(_ERROR)]
    return errors[-1].removeprefix(_ERROR) if errors else ""
