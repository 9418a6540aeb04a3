"""What ``predict`` does with results as they come: print them, write tables and pictures."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from indad.cli.console import bar_with_time_left
from indad.core.names import printable
from indad.core.progress import duration
from indad.inference.result import Failure, Result
from indad.inference.tables import ResultTables, Row, as_row

#: Seconds between lines with the time left, where there is no progress bar.
LINE_EVERY = 5.0
#: Signals that ask the command to stop: Ctrl-C, service managers, closed terminals.
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Interruption:
    """Signals raise KeyboardInterrupt, but not within `deferred`, so that no row is half-written.

    A second signal raises it there too. In threads other than the main one signals cannot be
    handled.

    Attributes:
        asked: whether a signal was deferred.
    """

    def __init__(self) -> None:
        self.asked = False
        self._deferring = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals, except those that are ignored, as under nohup."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                if signal.getsignal(each) != signal.SIG_IGN:
                    before[each] = signal.signal(each, self._stop)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Remember the first signal instead of raising KeyboardInterrupt."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._deferring:
            raise KeyboardInterrupt
        self.asked = True


class Printer:
    """Prints lines. A console that cannot be written to stops nothing: it becomes silent.

    Args:
        console: where to print.
        only: whether nothing else is written: then a reader that has gone ends the command.

    Attributes:
        failed: whether the console could not be written to.
    """

    def __init__(self, console: Console, only: bool) -> None:
        self.console, self.only, self.failed = console, only, False
        console.on_broken_pipe = _reraise  # type: ignore[method-assign]

    def __call__(self, text: str, style: str | None = None) -> None:
        """Print a line.

        Raises:
            BrokenPipeError: the reader has gone, and nothing else is written.
        """
        try:
            self.console.out(text, style=style, highlight=False)
        except OSError as error:
            self.console.quiet = self.failed = True
            discard_output()
            if self.only and isinstance(error, BrokenPipeError):
                raise


def _reraise() -> None:
    # rich would end the program with exit code 1, which says that an image is anomalous.
    raise  # the BrokenPipeError that rich handles


def discard_output() -> None:
    """Discard what is printed from here on, so that Python does not fail when it ends."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class Reporter:
    """Counts and prints results as they come, and passes them on to the tables and pictures.

    Args:
        say: prints a line.
        tables: to write to.
        draw: writes the pictures of a result; None for no pictures.
        total: number of images; None if it is not known.
        quiet: print only anomalous images and errors.
        interruption: results are no longer taken once it is asked for.

    Attributes:
        done: images with a result or an error.
        counts: images by verdict: ``anomalous`` or ``good``, ``scored`` without a threshold, and
            ``error`` for images that could not be scored or drawn.
    """

    def __init__(
        self,
        say: Printer,
        tables: ResultTables,
        draw: Callable[[Result], None] | None = None,
        total: int | None = None,
        quiet: bool = False,
        interruption: Interruption | None = None,
    ) -> None:
        self.say, self.tables, self.draw = say, tables, draw
        self.total, self.quiet = total, quiet
        self.interruption = interruption or Interruption()
        self.done, self.counts = 0, Counter[str]()
        self._problems: set[str] = set()
        # Sum of the images' own seconds. Results come in batches, so that the time since the start
        # would give a poor estimate of the time left.
        self._worked = 0.0
        self._last_line = time.monotonic()
        hidden = total is None or not say.console.is_terminal
        self._bar = bar_with_time_left(say.console, transient=True, disable=hidden)
        self._task = self._bar.add_task("", total=total, left="")

    def take(self, results: Iterable[Result | Failure]) -> None:
        """Report results one by one, as they are scored, until an interruption is asked for."""
        with self._bar, self.interruption.deferred():
            for result in results:
                self._report(result)
                if self.interruption.asked:
                    break

    def _report(self, result: Result | Failure) -> None:
        row, verdict = as_row(result), "error"
        if isinstance(result, Result):
            verdict = {None: "scored", True: "anomalous", False: "good"}[result.anomalous]
            self._worked += result.seconds
            if self.draw:
                row["error"] = self._draw(self.draw, result)
        self.done += 1
        self.counts[verdict] += 1
        self.tables.add(row)
        self._print_row(row, verdict)
        for problem in self.tables.problems() - self._problems:
            self.say(f"error      {problem}; the rows are kept and tried again", "red")
        self._problems = self.tables.problems()
        if self.total is not None:
            self._show_progress(self.total)

    def _print_row(self, row: Row, verdict: str) -> None:
        if verdict == "anomalous" or (verdict != "error" and not self.quiet):
            style = {"anomalous": "bold red", "good": "green"}.get(verdict)
            self.say(f"{verdict:9}  {row['score']:<10.5g}  {row['image']}", style)
        if row["error"]:
            self.say(f"error      {row['error']}", "red")

    def _draw(self, draw: Callable[[Result], None], result: Result) -> str | None:
        """Write the pictures of an image; return an error message if that fails."""
        started = time.perf_counter()
        try:
            draw(result)
        except Exception as error:  # whatever it is, the other images are scored
            self.counts["error"] += 1
            reason = str(error) or type(error).__name__
            return printable(f"{result.image}: no picture was written: {reason}")
        finally:
            self._worked += time.perf_counter() - started
        return None

    def _show_progress(self, total: int) -> None:
        each = self._worked / max(self.counts.total() - self.counts["error"], 1)
        left = f"{duration(each * (total - self.done))} left"
        self._bar.update(self._task, completed=self.done, left=left)
        if (
            self._bar.disable
            and time.monotonic() - self._last_line >= LINE_EVERY
            and self.done < total
        ):
            self._last_line = time.monotonic()
            self.say(f"{self.done}/{total} images, {left}")

    def summary(self) -> str:
        """Return the counts in words."""
        counts = f"{self.counts['anomalous']} anomalous, {self.counts['good']} good"
        if not self.counts["anomalous"] + self.counts["good"]:
            counts = f"{self.counts['scored']} scored"
        if self.counts["error"]:
            counts += f", {self.counts['error']} with errors"
        return f"{self.done} images: {counts}"
