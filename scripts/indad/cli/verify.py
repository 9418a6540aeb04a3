"""``indad verify RESULTS``: compare a finished run, its data and weights with its record."""

import argparse
from collections import Counter

from rich.console import Console
from rich.table import Table

from indad.cli.console import path_argument, print_labelled, print_line, progress_bar
from indad.pipeline.verify import HEADINGS, verify


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "verify",
        description="Hash every product of a finished run, its data and its weights, recompute "
        "the image AUROC from the scores, and print what no longer matches. The exit code is 1 if "
        "something does not match.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "results", type=path_argument, metavar="RESULTS", help="folder of all products"
    )
    parser.add_argument(
        "--data",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also hash the images and masks of the data sets (default: yes)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what no longer matches the provenance of a finished run; return the exit code.

    Raises:
        IndadError: there is no record of a finished run.
    """
    with progress_bar(console, "files") as progress:
        report = verify(arguments.results, data=arguments.data, progress=progress)
    wrong = Counter(kind for kind, _ in report.problems)
    table = Table("", "compared", "no longer match")
    for kind, heading in HEADINGS.items():
        if report.checked[kind]:
            marked = f"[red]{wrong[kind]}[/]" if wrong[kind] else "none"
            table.add_row(heading, str(report.checked[kind]), marked)
    console.print(table)
    for line in report.left_out:
        print_labelled(console, "left out", line)
    for _, line in report.problems:
        print_labelled(console, "mismatch", line)
    if not report.problems:
        print_line(console, f"Everything matches the record of {arguments.results}.")
    return 1 if report.problems else 0
