"""``indad list``: what has been computed."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from indad.cli.console import path_argument, plain, print_line, program
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
        "results", metavar="RESULTS", nargs="?", type=path_argument, default=Path("results"),
        help="the folder of all products (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


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
        print_line(
            console,
            f"{results}: nothing has been computed yet. Begin with: "
            f"{program()} all --data-root DIR",
        )
        return 0
    if not console.is_terminal:
        console = Console(width=120)
    for category in found:
        print_category(category, console)
    files = [model.path for category in found for model in category.models if not model.problem]
    if files:
        print_line(console, "Model files, to score new images with:")
        for path in files:
            print_line(console, f"  {program()} predict {path} IMAGES")
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
    stores = [f"{one.extractor} ({decimal(one.bytes)})" for one in category.features]
    print_line(console, f"features: {', '.join(stores) or 'none'}")
    if not (category.models or category.others):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "fitted with", "size", "experiment", "scored with"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "size" else "left")
    for heading in ("seed", *SHOWN.values()):
        table.add_column(heading, justify="right")
    for model in category.models:
        for i, experiment in enumerate(model.experiments or [None]):
            about = _about(model, experiment) if i == 0 else ("", "", "")
            table.add_row(*map(plain, about), *_scored(experiment, model.seed))
    for experiment in category.others:
        table.add_row("", "model unknown", "", *_scored(experiment, experiment.seed))
    console.print(table)


def _about(model: Model, experiment: Experiment | None) -> tuple[str, str, str]:
    scoring = experiment.parameters if experiment else {}  # shown with the experiment
    own = {name: value for name, value in model.parameters.items() if name not in scoring}
    return model.method or "?", model.problem or _settings(own), decimal(model.bytes)


def _scored(experiment: Experiment | None, seed: int) -> list[str]:
    if experiment is None:
        return ["[dim]not scored[/]", "", str(seed), *("-" for _ in SHOWN)]
    metrics = experiment.metrics
    return [
        plain(experiment.name),
        plain(_settings(experiment.parameters)),
        str(experiment.seed),
        *(f"{100 * metrics[name]:.1f}" if name in metrics else "-" for name in SHOWN),
    ]


def _settings(parameters: dict[str, object]) -> str:
    texts = {
        name: "+".join(map(str, value)) if isinstance(value, list) else value
        for name, value in parameters.items()
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items())
