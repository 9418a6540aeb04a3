"""Progress of long tasks: lines with the time left in the log."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("indad")

#: Called by the library after each step: ``progress(done, total)``.
Progress = Callable[[int, int], None]


def ignore(done: int, total: int) -> None:
    """Report nothing."""


def duration(seconds: float) -> str:
    """Format a time span: ``4 s``, ``2:05 min``, ``1:02 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class LoggedProgress:
    """Log ``what: done/total unit, time left``, at most every ``every`` seconds, and at the end.

    The progress display reads these lines too, so that jobs on other machines appear in it.
    """

    def __init__(self, what: str, unit: str = "images", every: float = 1.0) -> None:
        self.what, self.unit, self.every = what, unit, every
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.last < self.every:
            return
        self.last = now
        elapsed = now - self.started
        if done >= total:
            logger.info("%s: %d %s in %s", self.what, total, self.unit, duration(elapsed))
        elif done < total / 20:  # too early for an estimate: the first steps are rarely typical
            logger.info("%s: %d/%d %s", self.what, done, total, self.unit)
        else:
            left = duration(elapsed / done * (total - done))
            logger.info("%s: %d/%d %s, %s left", self.what, done, total, self.unit, left)
