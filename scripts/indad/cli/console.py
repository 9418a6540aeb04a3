"""What all commands print with."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from indad.core.progress import Progress

#: Colours of the words that begin a message.
STYLES = {
    "note": "cyan", "warning": "yellow", "left out": "yellow", "problem": "red", "mismatch": "red",
    "error": "bold red",
}  # fmt: skip


def plain(text: str) -> str:
    """Return ``text`` so that rich prints it unchanged."""
    return text.replace("[", "\\[")


def path_argument(text: str) -> Path:
    """Return the path that an argument names, with ``~`` expanded as in ``--results=~/x``."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises for an unknown user


def program() -> str:
    """Return the name that the command line was called by: ``run.py`` or ``indad``."""
    return Path(sys.argv[0]).name if Path(sys.argv[0]).name == "indad" else "run.py"


def print_line(console: Console, text: str) -> None:
    """Print a text as it is; long lines are not broken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_labelled(console: Console, label: str, text: str) -> None:
    """Print a text after a coloured word, one of ``STYLES``."""
    console.print(f"[{STYLES[label]}]{label}[/] {plain(text)}", highlight=False, soft_wrap=True)


def bar_with_time_left(console: Console, *columns: ProgressColumn, **options: Any) -> Bar:
    """Return a bar with the share done, the time passed, the field ``left``, and more columns."""
    return Bar(
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        *columns,
        console=console,
        **options,
    )


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Progress]:
    """Show a bar within the block, on a terminal; what it returns is called with the progress."""
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(plain(what))
        yield lambda done, total: bar.update(task, completed=done, total=total)
