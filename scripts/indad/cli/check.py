"""``indad check``: what a data folder holds, and everything that is wrong with it."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from indad.cli.console import plain, print_labelled, print_line
from indad.cli.override import describe, extractors_of, override, reading_of
from indad.cli.run import add_data_options
from indad.core.errors import ConfigError
from indad.data.check import Report, check
from indad.data.data_warnings import counted
from indad.data.folder_layout import GOOD, Reading
from indad.data.images import Geometry
from indad.data.public import catalogue
from indad.data.public.suggest import find_categories
from indad.methods import method_class
from indad.pipeline.config_files import check_config, expand_paths, load_config, merged
from indad.pipeline.dataset import require_known

COLUMNS = ("train", "good", "defects", "masks", "sizes", "files", "problems")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "check",
        description="Examine a data folder, compute nothing. The exit code is 1 if a category has "
        "a problem that must be fixed before it can be run.",
    )
    # All experiments that `indad run all` would run with the same options.
    parser.set_defaults(run=run, method="all", seeds=None, results=None, device=None)
    add_data_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a data folder holds and all that is wrong with it; return the exit code.

    Raises:
        IndadError: no such folder, or nothing in it.
    """
    if not console.is_terminal:
        console = Console(width=120)
    config = load_config(arguments.configfile)
    settings = override(arguments)
    for line in describe(arguments, settings):
        print_labelled(console, "note", "cyan", line)
    config = merged(config, expand_paths(settings))
    check_config(config)
    geometries = preprocessings(config)
    reports = []
    with Progress(console=console, transient=True) as bar:
        for folder, reading in find_data(config, console):
            update = partial(_update, bar, bar.add_task(plain(folder.name)))
            reports.append(
                check(
                    folder,
                    [*geometries],
                    reading,
                    one_size=of_one_size(config),
                    patches=patches_of(config),
                    threads=arguments.cores,
                    progress=update,
                )
            )
    print_reports(reports, console)
    for report in reports:
        for line in report.problems:
            print_labelled(console, "problem", "red", f"{report.category}: {line}")
        for each in report.warnings:
            label, colour = ("note", "cyan") if each.note else ("warning", "yellow")
            print_labelled(console, label, colour, f"{report.category}: {each}")
    return print_verdict(reports, "; ".join(geometries.values()), console)


def find_data(config: dict[str, Any], console: Console) -> list[tuple[Path, Reading]]:
    """Return the category folders of the data sets to run, and how they are read.

    A data set that a run downloads or makes first is only named.

    Raises:
        IndadError: no such folder, or nothing in it; or there is no folder to check.
    """
    found, later = [], []
    for name in config["run"]["datasets"]:
        require_known("run.datasets", name, config["datasets"], "data sets")
        settings = config["datasets"][name]
        entry = catalogue.load().get(settings.get("source"))
        places = [settings["path"]] if "path" in settings else []
        if entry is not None and entry.layout.native:
            mirrors = [catalogue.Place.of(each).path for each in settings.get("mirrors") or ()]
            places += [each for each in mirrors if each and each.is_dir()]
        if not places:
            later.append(name)
            continue
        folder, reading = Path(places[0]).resolve(), reading_of(config["datasets"], name)
        categories = settings.get("categories") or find_categories(folder, reading)
        found += [(folder / category, reading) for category in categories]
    first = f"a run downloads, converts or makes {', '.join(later)} first: check it afterwards"
    if not found:
        raise ConfigError(f"check needs --data-root DIR, or a data set with a 'path'; {first}")
    if later:
        print_labelled(console, "note", "cyan", first)
    return found


def used_extractors(config: dict[str, Any]) -> dict[str, Geometry]:
    """Return the extractors of the experiments to run, and their resize and crop.

    Raises:
        ConfigError: an experiment or an extractor is unknown.
    """
    used: dict[str, Geometry] = {}
    for experiment in config["run"]["experiments"]:
        require_known("run.experiments", experiment, config["experiments"], "experiments")
        for name in extractors_of(config, experiment):
            require_known("experiments: extractor", name, config["extractors"], "extractors")
            settings = config["extractors"][name]
            resize, crop = settings.get("resize", 256), settings.get("crop", 224)
            used[name] = Geometry.from_config(resize, crop)
    return used


def preprocessings(config: dict[str, Any]) -> dict[Geometry, str]:
    """Return each resize and crop of the experiments to run, and a text that describes it."""
    found: dict[Geometry, str] = {}
    for name, geometry in used_extractors(config).items():
        settings = config["extractors"][name]
        resize, crop = settings.get("resize", 256), settings.get("crop", 224)
        known = found.get(geometry, f"resize {resize}, crop {crop or 'null'} for")
        found[geometry] = f"{known} {name}"
    return found


def patches_of(config: dict[str, Any]) -> dict[Geometry, int]:
    """Return the multiples that transformers need as sides, by resize and crop.

    A transformer is known by its name in timm, such as ``vit_small_patch14_dinov2``.
    """
    found: dict[Geometry, int] = {}
    for name, geometry in used_extractors(config).items():
        if patch := re.search(r"patch(\d+)", config["extractors"][name]["backbone"]):
            found[geometry] = math.lcm(found.get(geometry, 1), int(patch[1]))
    return found


def of_one_size(config: dict[str, Any]) -> dict[Geometry, list[str]]:
    """Return the experiments to run that need images of one size, by resize and crop."""
    experiments, used = config["experiments"], used_extractors(config)
    found: dict[Geometry, list[str]] = {}
    chosen = [experiments[name].get("members") or [name] for name in config["run"]["experiments"]]
    for name in dict.fromkeys(chain.from_iterable(chosen)):
        if method_class(experiments[name]["method"]).needs_one_size:
            found.setdefault(used[experiments[name]["extractor"]], []).append(name)
    return found


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
            f"{counted(problems, 'problem')} in {', '.join(bad)}: fix them first, such "
            "a category cannot be run.",
        )
        return 1
    warned = sum(not each.note for report in reports for each in report.warnings)
    warnings = f" {counted(warned, 'warning')}." if warned else ""
    checked = "1 category" if len(reports) == 1 else f"{len(reports)} categories"
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
