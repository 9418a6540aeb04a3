"""What all commands print with."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console


def plain(text: str) -> str:
    """Return ``text`` so that rich prints it unchanged."""
    return text.replace("[", "\\[")


def program() -> str:
    """Return the name that the command line was called by: ``run.py`` or ``indad``."""
    return Path(sys.argv[0]).name if Path(sys.argv[0]).name == "indad" else "run.py"


def print_error(console: Console, message: str) -> None:
    """Print an error message."""
    console.print(f"[bold red]error[/] {plain(message)}", highlight=False, soft_wrap=True)


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun: ``1 problem``, ``2 problems``."""
    return f"{count} {one if count == 1 else many}"
