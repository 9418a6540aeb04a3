"""``indad list``: what has been computed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from indad.cli.console import plain, program
from indad.core.errors import ConfigError
from indad.pipeline.inventory import Category, Experiment, Model, survey

#: Metrics shown, with short headings.
SHOWN = {"image_auroc": "image\nAUROC", "pixel_auroc": "pixel\nAUROC", "aupro": "AUPRO"}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "list",
        description="Show what has been computed: data, features, models, experiments, metrics.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "results", metavar="RESULTS", nargs="?", type=Path, default=Path("results"),
        help="the folder of all products (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def size(count: int) -> str:
    """Return a number of bytes as text: ``215 kB``, ``63 MB``, ``1.9 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _settings(parameters: dict[str, object]) -> str:
    parts = []
    for name, value in parameters.items():
        text = "+".join(map(str, value)) if isinstance(value, list) else f"{value}"
        parts.append(f"{name} {text}")
    return ", ".join(parts)


def _row(table: Table, model: Model | None, experiment: Experiment | None, first: bool) -> None:
    seed = experiment.seed if experiment else model.seed if model else 0
    about = ["", "", ""]
    if model and first:
        own = model.parameters
        if experiment:  # scoring parameters are shown with the experiment
            own = {k: v for k, v in own.items() if k not in experiment.parameters}
        about = [model.method or "?", model.problem or _settings(own), size(model.bytes)]
    if not model:
        about[1] = "model unknown"
    metrics = experiment.metrics if experiment else {}
    table.add_row(
        *map(plain, about),
        plain(experiment.name) if experiment else "[dim]not scored[/]",
        plain(_settings(experiment.parameters)) if experiment else "",
        str(seed),
        *(f"{100 * metrics[name]:.1f}" if name in metrics else "-" for name in SHOWN),
    )


def _table(category: Category) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "fitted with", "size", "experiment", "scored with"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "size" else "left")
    for heading in ("seed", *SHOWN.values()):
        table.add_column(heading, justify="right")
    for model in category.models:
        for i, experiment in enumerate(model.experiments or [None]):
            _row(table, model, experiment, i == 0)
    for experiment in category.others:
        _row(table, None, experiment, True)
    return table


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a results folder holds; return the exit code.

    Raises:
        IndadError: there is no such folder.
    """
    results = arguments.results
    if not results.is_dir():
        raise ConfigError(
            f"{results}: no such results folder; name another one, or compute something: "
            f"{program()} all --data-root DIR"
        )
    found = survey(results)
    if arguments.json:
        print(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
        return 0
    if not found:
        console.print(
            f"{plain(str(results))}: nothing has been computed yet. Begin with: "
            f"{program()} all --data-root DIR",
            soft_wrap=True,
        )
        return 0
    if not console.is_terminal:
        console = Console(width=120)
    for category in found:
        print_category(category, console)
    files = [model.path for category in found for model in category.models if not model.problem]
    if files:
        console.print("Model files, to score new images with:", highlight=False)
        for path in files:
            line = f"  {program()} predict {plain(path)} IMAGES"
            console.print(line, highlight=False, soft_wrap=True)
    return 0


def print_category(category: Category, console: Console) -> None:
    """Print the images, features, models and experiments of one category."""
    images = ""
    if category.train is not None:
        images = (
            f"{category.train} training images, {category.good} good and "
            f"{category.defective} defective test images"
        )
    name = plain(f"{category.dataset}/{category.category}")
    console.print(f"[bold]{name}[/]  {images}", highlight=False, soft_wrap=True)
    stores = [f"{plain(one.extractor)} ({size(one.bytes)})" for one in category.features]
    console.print(f"features: {', '.join(stores) or 'none'}", highlight=False, soft_wrap=True)
    if category.models or category.others:
        console.print(_table(category))
