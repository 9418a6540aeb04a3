"""Progress of a run: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from indad.cli import job_log
from indad.cli.events import Job, RunState
from indad.cli.time_left import TimeLeft
from indad.core.progress import duration

#: Rough share of a run that a job of each rule takes; 1 where nothing is said.
WEIGHTS = {
    "archive": 20, "extract": 10, "fit": 8, "score": 8, "download": 2, "index": 2, "decode": 2,
}  # fmt: skip
#: Jobs that wait for a network. How long they take says nothing about the others.
NETWORK = {"archive", "weights"}
#: Shown instead of the rule's name, until the job's log says more.
LABELS = {"download": "prepare", "archive": "download"}
#: Seconds between plain lines.
INTERVAL = 5.0


class Display:
    """Shows the state of a run. A context manager: the bar is there within the block."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        self._left = TimeLeft()
        self._last_line = time.monotonic() - INTERVAL
        self._bar = Progress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("planning", total=None, left="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Update the bar, or print a line every five seconds."""
        running = [(job, self._progress(job)) for job in self.state.running.values()]
        total = sum(WEIGHTS.get(rule, 1) * n for rule, n in self.state.counts.items())
        done = self._done(running)
        left = self._time_left(running)
        activity = "; ".join(each.text for _, each in running[:2])
        if self.console.is_terminal:
            self._bar.update(
                self._task,
                total=total or None,
                completed=done,
                left=left,
                **({"description": activity} if total else {}),
            )
        elif total and activity and time.monotonic() - self._last_line >= INTERVAL:
            self._last_line = time.monotonic()
            self.console.print(
                f"{100 * done / total:3.0f} %  {left:14}  {activity}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    @staticmethod
    def _progress(job: Job) -> job_log.Progress:
        found = job_log.progress(job.log) if job.log else None
        name = " ".join([LABELS.get(job.rule, job.rule), *map(str, job.wildcards.values())])
        return found or job_log.Progress(name, 0.0)

    def _done(
        self, running: list[tuple[Job, job_log.Progress]], without: Collection[str] = ()
    ) -> float:
        """Return the work done, in units of ``WEIGHTS``, running jobs by their shares."""
        shares = [(job.rule, 1.0) for job in self.state.finished.values()]
        shares += [(job.rule, each.share) for job, each in running]
        return sum(WEIGHTS.get(rule, 1) * share for rule, share in shares if rule not in without)

    def _time_left(self, running: list[tuple[Job, job_log.Progress]]) -> str:
        """Return how long the rest will take, once there is something to estimate it from."""
        computing = {rule: n for rule, n in self.state.counts.items() if rule not in NETWORK}
        seconds = self._left.update(
            time.monotonic(),
            done=self._done(running, without=NETWORK),
            total=sum(WEIGHTS.get(rule, 1) * n for rule, n in computing.items()),
            working=any(job.rule not in NETWORK for job, _ in running),
        )
        return "" if seconds is None else f"{duration(seconds)} left"
