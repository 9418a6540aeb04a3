"""An estimate of the time that a run still takes."""

from __future__ import annotations


class TimeLeft:
    """Estimates the rest of a run from the time that the finished part took.

    The estimate is made anew when work is finished and counts down in between, so that it never
    grows while a job takes longer than others. Time in which no job computes does not count.
    """

    #: Below this share of the work, and below this many seconds, nothing can be estimated.
    LEAST_SHARE = 0.05
    LEAST_SECONDS = 3.0

    def __init__(self) -> None:
        self._last: float | None = None
        self._worked = self._done = 0.0
        self._left: float | None = None

    def update(self, now: float, done: float, total: float, working: bool) -> float | None:
        """Return the seconds left, or None if they are not known.

        Args:
            now: the time, in seconds.
            done: work done.
            total: all work, in the same unit.
            working: whether a job runs that does some of this work.
        """
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        if working:
            self._worked += passed
            if self._left is not None:
                self._left -= passed
        if done > self._done:
            self._done = done
            if done >= self.LEAST_SHARE * total and self._worked >= self.LEAST_SECONDS:
                self._left = self._worked / done * max(0.0, total - done)
        # Past zero the estimate was wrong; the next finished job gives a better one.
        return self._left if self._left is not None and self._left > 0 else None
