"""``indad check``: what a data folder holds, and everything that is wrong with it."""

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from indad.cli.console import plain, print_labelled, print_line, progress_bar
from indad.cli.override import override
from indad.cli.run import add_data_options
from indad.core.errors import ConfigError
from indad.data.check import check
from indad.data.data_warnings import counted
from indad.data.findings import Findings
from indad.data.folder_layout import GOOD, TEST, TRAIN
from indad.data.images import Geometry
from indad.pipeline.config import Config
from indad.pipeline.dataset import Dataset
from indad.pipeline.presentation import size_notes

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
    _, merged, notes = override(arguments)
    config = Config.read(merged)
    for line in (*notes, *size_notes(config)):
        print_labelled(console, "note", line)
    reports = []
    for dataset, folder in find_data(config, console):
        geometries = config.geometries(dataset.name)
        with progress_bar(console, folder.name) as progress:
            report = check(
                folder,
                [*geometries.values()],
                dataset.reading,
                one_size={
                    geometry: config.of_one_size(dataset.name, name)
                    for name, geometry in geometries.items()
                },
                patches=patches_of(config, dataset.name),
                threads=arguments.cores,
                progress=progress,
            )
        check_tiles(config, dataset.name, report)
        reports.append(report)
    print_reports(reports, console)
    for report in reports:
        for line in report.problems:
            print_labelled(console, "problem", f"{report.folder.name}: {line}")
        for each in report.warnings:
            label = "note" if each.note else "warning"
            print_labelled(console, label, f"{each.category}: {each}")
    return print_verdict(reports, "; ".join(preprocessings(config)), console)


def find_data(config: Config, console: Console) -> list[tuple[Dataset, Path]]:
    """Return the category folders of the data sets to run.

    A data set that a run downloads or makes first is only named.

    Raises:
        IndadError: no such folder, or nothing in it; or there is no folder to check.
    """
    found, later = [], []
    for name, dataset in config.datasets.items():
        if dataset.used_in_place is None:
            later.append(name)
        else:
            folder = dataset.used_in_place.resolve()
            found += [(dataset, folder / category) for category in dataset.categories]
    first = f"a run downloads, converts or makes {', '.join(later)} first: check it afterwards"
    if not found:
        raise ConfigError(f"check needs --data-root DIR, or a data set with a 'path'; {first}")
    if later:
        print_labelled(console, "note", first)
    return found


def preprocessings(config: Config) -> list[str]:
    """Return texts that describe each resize and crop of the run, and name the extractors."""
    found: dict[str, dict[str, None]] = {}
    for dataset in config.datasets:
        for name in config.used_extractors:
            settings = config.extractor(name, dataset).settings
            text = f"resize {settings['resize']}, crop {settings['crop'] or 'null'}"
            found.setdefault(text, {})[name] = None
    return [f"{text} for {', '.join(names)}" for text, names in found.items()]


def patches_of(config: Config, dataset: str) -> dict[Geometry, int]:
    """Return the multiples that transformers need as sides, by resize and crop.

    A transformer is known by its name in timm, such as ``vit_small_patch14_dinov2``.
    """
    found: dict[Geometry, int] = {}
    for name, extractor in config.used_extractors.items():
        if patch := re.search(r"patch(\d+)", extractor.backbone):
            geometry = config.extractor(name, dataset).geometry
            found[geometry] = math.lcm(found.get(geometry, 1), int(patch[1]))
    return found


def check_tiles(config: Config, dataset: str, report: Findings) -> None:
    """Add to a report in how many tiles each extractor sees an image, or why it cannot."""
    shapes = set(zip(report.table["height"], report.table["width"], strict=True))
    for name in config.used_extractors:
        extractor = config.extractor(name, dataset)
        if not (extractor.settings.get("tiles") and shapes):
            continue
        # Imported here: it takes seconds, and few configurations have tiles.
        from indad.features.extract import open_backbone

        geometry = extractor.geometry
        sizes = {geometry.output(*size) for size in shapes if not geometry.refusal(*size)}
        try:
            # The tiles do not depend on the weights, which may not be on this machine.
            backbone = open_backbone({**extractor.settings, "weights": "random"}, "cpu")
            counts = sorted({math.prod(backbone.tiles(*size)) for size in sizes})
        except ConfigError as error:
            report.problems.append(f"extractor {name}: {error}")
            continue
        tile = " x ".join(map(str, backbone.tile))
        number = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        text = f"extractor {name} sees each image in {number} tiles of at most {tile} pixels"
        report.warn("tiles", text, note=True)


def print_reports(reports: Sequence[Findings], console: Console) -> None:
    """Print what was found, one row for each category, or a block where the terminal is narrow."""
    table = Table("category", *COLUMNS)
    for report in reports:
        cells = cells_of(report)
        name = plain(report.folder.name)
        table.add_row(name, *cells)
        if console.width < 80:
            console.print(f"[bold]{name}[/]", highlight=False)
            for column, cell in zip(COLUMNS, cells, strict=True):
                console.print(f"  {column:8} {cell.replace(chr(10), ', ')}", highlight=False)
    if console.width >= 80:
        console.print(table)


def print_verdict(reports: Sequence[Findings], preprocessing: str, console: Console) -> int:
    """Print the number of problems and warnings; return the exit code."""
    bad = [report.folder.name for report in reports if report.problems]
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


def cells_of(report: Findings) -> tuple[str, ...]:
    """Return what was found in a category, in the order of ``COLUMNS``."""
    table = report.table
    tested = Counter(table["defect"][table["split"] == TEST])
    good = tested.pop(GOOD, 0)
    sizes = zip(table["width"], table["height"], strict=True)
    return (
        str((table["split"] == TRAIN).sum()),
        str(good),
        plain("\n".join(f"{count} {defect}" for defect, count in tested.items())),
        f"{(table['mask'] != '').sum()} of {tested.total()}",
        _most_common(Counter(f"{width}x{height}" for width, height in sizes)),
        _most_common(Counter(filter(None, table["mode"]))),
        f"[red]{len(report.problems)}[/]" if report.problems else "none",
    )


def _most_common(counts: Counter[str]) -> str:
    lines = [f"{count} {name}" for name, count in counts.most_common(3)]
    return "\n".join([*lines, *(["..."] if len(counts) > 3 else [])])
