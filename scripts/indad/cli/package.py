"""``indad package RESULTS``: describe a finished run as a data package."""

import argparse

from rich.console import Console

from indad.cli.console import path_argument, print_line, progress_bar
from indad.pipeline import data_package


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "package",
        description="Write datapackage.json (datapackage.org) into the folder of a finished run, "
        "to publish it: tables with the types of their columns, models, scores and provenance, "
        "each with its SHA-256. Decoded images, features and maps are not listed.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "results", type=path_argument, metavar="RESULTS", help="folder of all products"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write the data package of a finished run; return the exit code.

    Raises:
        IndadError: there is no record of a finished run, or a file is missing.
    """
    with progress_bar(console, "files") as progress:
        count = data_package.write(arguments.results, progress)
    print_line(console, f"wrote {arguments.results / data_package.NAME}: {count} files")
    return 0
