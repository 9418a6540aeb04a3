"""``run.py verify RESULTS``: is a finished run, with its data and weights, still what it was?"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from commands import plain
from indad.pipeline.verify import HEADINGS, verify


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = argparse.ArgumentParser(
        prog="run.py verify",
        description="Hash every product of a finished run, its data and its weights, recompute "
        "the image AUROC from the scores, and say what no longer matches. The exit code is 1 if "
        "anything does not.",
    )
    parse.add_argument("results", type=Path, metavar="RESULTS", help="folder of all products")
    parse.add_argument(
        "--data",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also hash the images and masks of the data sets (default: yes)",
    )
    return parse


def main(arguments: Sequence[str], console: Console) -> int:
    """Print what of a finished run still matches its provenance; return the exit code.

    Raises:
        IndadError: there is no record of a finished run.
    """
    given = parser().parse_args(arguments)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("files")
        report = verify(
            given.results,
            data=given.data,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    wrong = Counter(kind for kind, _ in report.problems)
    table = Table("", "compared", "no longer match")
    for kind, heading in HEADINGS.items():
        if report.checked[kind]:
            marked = f"[red]{wrong[kind]}[/]" if wrong[kind] else "none"
            table.add_row(heading, str(report.checked[kind]), marked)
    console.print(table)
    for line in report.left_out:
        console.print(f"[yellow]left out[/] {plain(line)}", highlight=False, soft_wrap=True)
    for _, line in report.problems:
        console.print(f"[red]mismatch[/] {plain(line)}", highlight=False, soft_wrap=True)
    if report.problems:
        return 1
    made = plain(str(given.results))
    console.print(f"All of it is as it was when {made} was made.", highlight=False, soft_wrap=True)
    return 0
