"""Progress of a run: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Collection, Iterable
from typing import Self

from rich.console import Console
from rich.progress import TextColumn

from indad.cli.console import bar_with_time_left, print_line
from indad.cli.events import RunState
from indad.core.progress import duration

#: Rough share of a run that a job of each rule takes; 1 for rules that are not listed.
WEIGHTS = {
    "archive": 20, "extract": 10, "coreset": 8, "fit": 8, "score": 8, "download": 2, "index": 2,
    "decode": 2,
}  # fmt: skip
#: Jobs that wait for a network. How long they take says nothing about the others.
NETWORK = {"archive", "weights"}
#: Shown instead of the rule's name, until the job's log says more.
LABELS = {"download": "prepare", "archive": "download"}
#: Seconds between plain lines.
INTERVAL = 5.0


class TimeLeft:
    """Estimates the rest of a run from the time that the finished part took.

    A new estimate is made when work is finished and counts down in between, so that it never
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


class Display:
    """Shows the state of a run. A context manager: the bar is there within the block."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        self._left = TimeLeft()
        self._last_line = time.monotonic() - INTERVAL
        text = TextColumn("{task.description}", markup=False)
        self._bar = bar_with_time_left(console, text, disable=not console.is_terminal)
        self._task = self._bar.add_task("planning", total=None, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Update the bar, or print a line every five seconds."""
        texts, shares = [], [(job.rule, 1.0) for job in self.state.finished.values()]
        for job in self.state.running.values():
            label = " ".join([LABELS.get(job.rule, job.rule), *map(str, job.wildcards.values())])
            text, share = job.progress() or (label, 0.0)
            texts.append(text)
            shares.append((job.rule, share))
        done, total = work(shares), work(self.state.counts.items())
        seconds = self._left.update(
            time.monotonic(),
            done=work(shares, without=NETWORK),
            total=work(self.state.counts.items(), without=NETWORK),
            working=any(job.rule not in NETWORK for job in self.state.running.values()),
        )
        left = "" if seconds is None else f"{duration(seconds)} left"
        activity = "; ".join(texts[:2]) if total else "planning"
        if self.console.is_terminal:
            self._bar.update(
                self._task, total=total or None, completed=done, left=left, description=activity
            )
        elif total and activity and time.monotonic() - self._last_line >= INTERVAL:
            self._last_line = time.monotonic()
            print_line(self.console, f"{100 * done / total:3.0f} %  {left:14}  {activity}")


def work(amounts: Iterable[tuple[str, float]], without: Collection[str] = ()) -> float:
    """Return the sum of jobs or shares of jobs by rule, in units of ``WEIGHTS``."""
    return sum(WEIGHTS.get(rule, 1) * amount for rule, amount in amounts if rule not in without)
