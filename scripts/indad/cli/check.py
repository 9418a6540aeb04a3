"""``indad check``: what a data folder holds, and everything that is wrong with it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from indad.cli.console import counted, plain, print_labelled, print_line
from indad.cli.override import reading_of, whole_images
from indad.cli.run import add_data_options
from indad.core.errors import ConfigError
from indad.data.categories import is_category
from indad.data.check import Report, check
from indad.data.folder_layout import GOOD, Reading
from indad.data.images import Geometry
from indad.data.public import catalogue
from indad.data.public.suggest import find_categories
from indad.pipeline.config_files import check_config, load_config, merged

COLUMNS = ("train", "good", "defects", "masks", "sizes", "files", "problems")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "check",
        description="Examine a data folder, compute nothing. The exit code is 1 if a category has "
        "a problem that must be fixed before it can be run.",
    )
    parser.set_defaults(run=run)
    add_data_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a data folder holds and all that is wrong with it; return the exit code.

    Raises:
        IndadError: no such folder, or nothing in it.
    """
    if not console.is_terminal:
        console = Console(width=120)
    config = load_config(arguments.configfile)
    if arguments.dataset and arguments.data_root:
        over = {"datasets": {arguments.dataset: {"path": str(arguments.data_root)}}}
        config = merged(config, over)
        check_config(config)
    root, categories, reading = find_data(config, arguments)
    extractor = arguments.extractor or "wrn50"
    whole = whole_images(arguments, config, arguments.dataset, {extractor})
    resize, crop = preprocessing(merged(config, {"extractors": whole}), extractor)
    geometry = Geometry.from_config(resize, crop)
    reports = []
    with Progress(console=console, transient=True) as bar:
        for name in categories:
            update = partial(_update, bar, bar.add_task(plain(name)))
            reports.append(
                check(root / name, geometry, reading, threads=arguments.cores, progress=update)
            )
    print_reports(reports, console)
    for report in reports:
        for line in report.problems:
            print_labelled(console, "problem", "red", f"{report.category}: {line}")
        for each in report.warnings:
            label, colour = ("note", "cyan") if each.note else ("warning", "yellow")
            print_labelled(console, label, colour, f"{report.category}: {each}")
    return print_verdict(reports, f"resize {resize}, crop {crop}", console)


def find_data(
    config: dict[str, Any], arguments: argparse.Namespace
) -> tuple[Path, list[str], Reading]:
    """Return the folder of categories, their names and how they are read.

    Raises:
        IndadError: no such folder, or nothing in it.
    """
    datasets = config.get("datasets", {})
    settings = datasets.get(arguments.dataset) or {}
    folder = arguments.data_root or settings.get("path")
    if folder is None:
        raise ConfigError("check needs --data-root DIR, or --dataset with a 'path'")
    folder = Path(folder).expanduser().resolve()
    source = settings.get("source")
    if source in catalogue.load() and catalogue.load()[source].in_own_layout(folder):
        raise ConfigError(
            f"{folder} has {source} in its own layout, which a run converts; check the converted "
            f"folder afterwards: --data-root RESULTS/data/{arguments.dataset}"
        )
    reading = reading_of(datasets, arguments.dataset)
    single = is_category(folder, reading)
    categories = arguments.category or ([folder.name] if single else settings.get("categories"))
    root = folder.parent if single else folder
    return root, categories or find_categories(folder, reading), reading


def preprocessing(config: dict[str, Any], extractor: str) -> tuple[Any, Any]:
    """Return the resize and the crop of an extractor.

    Raises:
        ConfigError: there is no such extractor.
    """
    extractors = config.get("extractors", {})
    settings = extractors.get(extractor)
    if settings is None:
        known = ", ".join(extractors)
        raise ConfigError(f"--extractor {extractor}: unknown; the configuration has {known}")
    return settings.get("resize", 256), settings.get("crop", 224)


def print_reports(reports: Sequence[Report], console: Console) -> None:
    """Print what was found, one row for each category, or a block where the terminal is narrow."""
    table = Table("category", *COLUMNS)
    for report in reports:
        cells = _cells(report)
        table.add_row(plain(report.category), *cells)
        if console.width < 80:
            console.print(f"[bold]{plain(report.category)}[/]", highlight=False)
            for column, cell in zip(COLUMNS, cells, strict=True):
                console.print(f"  {column:8} {cell.replace(chr(10), ', ')}", highlight=False)
    if console.width >= 80:
        console.print(table)


def print_verdict(reports: Sequence[Report], preprocessing: str, console: Console) -> int:
    """Print the number of problems and warnings; return the exit code."""
    bad = [report.category for report in reports if report.problems]
    if bad:
        problems = sum(len(report.problems) for report in reports)
        print_line(
            console,
            f"{counted(problems, 'problem', 'problems')} in {', '.join(bad)}: fix them first, such "
            "a category cannot be run.",
        )
        return 1
    warned = sum(not each.note for report in reports for each in report.warnings)
    warnings = f" {counted(warned, 'warning', 'warnings')}." if warned else ""
    checked = counted(len(reports), "category", "categories")
    print_line(console, f"No problem in {checked}, for {preprocessing}.{warnings}")
    return 0


def _cells(report: Report) -> tuple[str, ...]:
    kinds = [(k, n) for k, n in report.counts.items() if k not in ("train", f"test {GOOD}")]
    return (
        str(report.counts["train"]),
        str(report.counts[f"test {GOOD}"]),
        plain("\n".join(f"{n} {kind.removeprefix('test ')}" for kind, n in kinds)),
        f"{report.masks} of {report.defective}",
        _most_common(report.sizes),
        _most_common(report.modes),
        f"[red]{len(report.problems)}[/]" if report.problems else "none",
    )


def _update(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _most_common(counts: Counter[str], most: int = 3) -> str:
    lines = [f"{count} {name}" for name, count in counts.most_common(most)]
    return "\n".join([*lines, *(["..."] if len(counts) > most else [])])
