"""The ``predict`` command: score new images with a fitted model."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from indad.core.errors import ConfigError, DataError
from indad.core.progress import duration
from indad.inference import photos
from indad.inference.loading import load_model
from indad.inference.locate import choose_experiment
from indad.inference.model import Model
from indad.inference.result import Failure, Result
from indad.inference.tables import COLUMNS, ResultTables, Row, as_row
from indad.inference.threshold import choose_threshold

if TYPE_CHECKING:
    from indad.inference.overlay import HeatMaps

#: Exit codes.
GOOD, ANOMALOUS, ERROR, INTERRUPTED = 0, 1, 2, 130
#: Seconds between lines with the time left, where there is no progress bar.
LINE_EVERY = 5.0

EPILOG = """\
examples
  run.py list                                  which models there are
  run.py predict results/models/mine/screw/padim-r18-4cb67777/seed0.safetensors new/
  run.py predict results/scores/mine/screw/PaDiM-R18/seed0 new/ --output seen/
      the model of an experiment; heat maps of all images below new/ to seen/
  run.py predict MODEL new/ --csv scores.csv --false-alarms 0.01
  run.py predict MODEL --watch /camera --csv scores.csv --output seen/
      score each image that arrives, until Ctrl-C

the threshold
  An image is anomalous when its score is above the threshold. Scores of good test
  images, which the model was not fitted on, are stored with each experiment's scores
  (calibration.json). With --false-alarms RATE the threshold is the lowest of them for
  which a new good image of the same kind is called anomalous with a probability of at
  most RATE; this needs 1 / RATE - 1 good images. The default is 0.05, or the lowest rate
  that fewer images allow. If you have good images of your own, give them with --good.

copying a model
  Copy the model file, the calibration.json of its experiment into the same folder, and
  the backbone's weights (--weights names them if they are elsewhere); for SPADE also its
  feature store (--features).

exit code
  0  no image is anomalous      1  at least one is
  2  an image or anything else could not be used (also with --exit-zero)
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "predict",
        description="Score new images with a fitted model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or an experiment's scores folder")
    add("images", metavar="IMAGES", nargs="*", type=Path, help="images, and folders to search")
    add("--watch", type=Path, metavar="FOLDER", help="score what is and what arrives in a folder")
    interval = "seconds between looks at the watched folder (default: %(default)g)"
    add("--interval", type=float, default=1.0, metavar="S", help=interval)
    add("--output", type=Path, metavar="DIR", help="write a heat map of each image")
    add("--csv", metavar="FILE", help=f"table: {', '.join(COLUMNS)}; - prints it")
    lines = "the same as JSON: a line per image for *.jsonl, else one document; - prints it"
    add("--json", metavar="FILE", help=lines)
    _add_threshold(parser)
    _add_model(parser)
    add("--exit-zero", action="store_true", help="exit code 0 also if images are anomalous")
    add("-q", "--quiet", action="store_true", help="print only anomalous images and errors")


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    limit = parser.add_mutually_exclusive_group()
    rate = "threshold by the share of good images that may exceed it (default: 0.05)"
    value = "threshold: a number, f1max (best on the labelled test images), or none: scores alone"
    good = "good images, none of them used to fit, to take the threshold from"
    limit.add_argument("--false-alarms", type=float, metavar="RATE", help=rate)
    limit.add_argument("--threshold", metavar="T", help=value)
    parser.add_argument("--good", type=Path, metavar="DIR", help=good)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--experiment", metavar="NAME", help="which experiment's, if several share the model")
    add("--weights", type=Path, metavar="FILE", help="the backbone's weights")
    add("--features", type=Path, metavar="FILE", help="SPADE's feature store")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    size = "images the backbone gets at once (default: 8 on a CPU, 64 on a GPU)"
    add("--batch-size", type=_positive, metavar="N", help=size)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


@dataclass
class Tally:
    """Counts of the results so far.

    Attributes:
        total: number of all images, or None while watching.
        done: images with a result or an error.
        good: images at or below the threshold.
        anomalous: images above it.
        scored: good and anomalous images, or all if there is no threshold.
        failed: images that could not be scored or drawn.
        worked: sum of the images' own seconds. Results come in batches, so that the time since the
            start would give a poor estimate of the time left.
    """

    total: int | None = None
    done: int = 0
    good: int = 0
    anomalous: int = 0
    scored: int = 0
    failed: int = 0
    worked: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.started

    def add(self, result: Result | Failure) -> str:
        """Count a result and return its verdict."""
        self.done += 1
        if isinstance(result, Failure):
            self.failed += 1
            return "error"
        self.scored += 1
        self.worked += result.seconds
        if result.anomalous is None:
            return "scored"
        self.anomalous += result.anomalous
        self.good += not result.anomalous
        return "anomalous" if result.anomalous else "good"

    def exit_code(self, exit_zero: bool) -> int:
        """Return the exit code."""
        if self.failed:
            return ERROR
        return ANOMALOUS if self.anomalous and not exit_zero else GOOD

    def summary(self) -> str:
        """Return the counts in words."""
        counts = f"{self.anomalous} anomalous, {self.good} good"
        if not self.anomalous + self.good:
            counts = f"{self.scored} scored"
        if self.failed:
            counts += f", {self.failed} with errors"
        return f"{self.done} images: {counts}"

    def time_left(self, total: int) -> str:
        """Return the estimated time left in words."""
        each = self.worked / max(self.scored, 1)
        return f"{duration(each * (total - self.done))} left"


class Reporter:
    """Prints results as they come, and passes them on to the tables and heat maps."""

    def __init__(
        self,
        console: Console,
        tally: Tally,
        tables: ResultTables,
        heat_maps: HeatMaps | None,
        quiet: bool,
    ) -> None:
        self.console, self.tally, self.tables = console, tally, tables
        self.heat_maps, self.quiet = heat_maps, quiet
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal and tally.total is not None:
            self._bar = Progress(
                TextColumn("{task.percentage:3.0f} %"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=tally.total, left="")

    def take(self, results: Iterable[Result | Failure]) -> None:
        """Report results one by one, as they are scored."""
        with self._bar or contextlib.nullcontext():
            for result in results:
                row = as_row(result)
                verdict = self.tally.add(result)
                if self.heat_maps and isinstance(result, Result):
                    row["error"] = self._draw(self.heat_maps, result)
                self.tables.add(row)
                self._print_row(row, verdict)
                self._show_progress()

    def _draw(self, heat_maps: HeatMaps, result: Result) -> str | None:
        """Write the heat map; return an error message if the file has gone since it was scored."""
        started = time.perf_counter()
        try:
            heat_maps.write(result)
        except DataError as error:
            self.tally.failed += 1
            return f"no heat map: {error}"
        finally:
            self.tally.worked += time.perf_counter() - started
        return None

    def _print_row(self, row: Row, verdict: str) -> None:
        if verdict != "error" and not (self.quiet and verdict != "anomalous"):
            style = {"anomalous": "bold red", "good": "green"}.get(verdict, "")
            _print(self.console, f"{verdict:9}  {row['score']:<10.5g}  {row['image']}", style)
        if row["error"]:
            _print(self.console, f"error      {row['error']}", "red")

    def _show_progress(self) -> None:
        done, total = self.tally.done, self.tally.total
        if total is None:
            return
        left = self.tally.time_left(total)
        if self._bar:
            self._bar.update(self._task, completed=done, left=left)
        elif time.monotonic() - self._last_line >= LINE_EVERY and done < total:
            self._last_line = time.monotonic()
            _print(self.console, f"{done}/{total} images, {left}")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Score images; return the exit code.

    Raises:
        IndadError: the images cannot be scored as asked.
    """
    if bool(arguments.images) == (arguments.watch is not None):
        raise ConfigError("give images and folders to score, or a folder to --watch: one of them")
    if arguments.csv == "-" or arguments.json == "-":
        console = Console(stderr=True)
    output = arguments.output
    found = photos.list_photos(arguments.images, output)
    if output is not None:
        _check_output(output, [arguments.watch] if arguments.watch else found)
    # Errors in the tables or the threshold come before the backbone is loaded.
    tables = ResultTables(arguments.csv, arguments.json, arguments.watch is not None)
    model = _prepare_model(arguments, console)
    heat_maps = None
    if output is not None:
        from indad.inference.overlay import HeatMaps

        parents = [path.resolve().parent for path in found]
        heat_maps = HeatMaps(model, output, arguments.watch or Path(os.path.commonpath(parents)))
    tally = Tally(total=None if arguments.watch else len(found))
    reporter = Reporter(console, tally, tables, heat_maps, arguments.quiet)
    if arguments.watch:
        arrivals = photos.Arrivals(arguments.watch, output, tables.done)
        watch(model, arrivals, reporter, arguments.interval)
        _print(console, tally.summary())
        return tally.exit_code(arguments.exit_zero)
    try:
        reporter.take(model.stream(map(str, found)))
    except KeyboardInterrupt:
        _print(console, f"stopped after {tally.done} of {len(found)} images; no table was written")
        return INTERRUPTED
    seconds = tally.seconds
    speed = len(found) / seconds
    tables.finish(_facts(model) | {"images_per_second": round(speed, 2)})
    _print(console, f"{tally.summary()}; {seconds:.1f} s, {speed:.1f} images/s")
    return tally.exit_code(arguments.exit_zero)


def _check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write heat maps into the images' folder, where they could replace the images."""
    folder = output.resolve()
    for path in inputs:
        if path.resolve() == folder or folder in path.resolve().parents:
            raise ConfigError(
                f"--output {output}: {path} is in this folder; heat maps need a folder of their own"
            )


def _prepare_model(arguments: argparse.Namespace, console: Console) -> Model:
    """Load the model and choose its threshold."""
    path, calibration = choose_experiment(arguments.model, arguments.experiment)
    choose = partial(
        choose_threshold, path, false_alarms=arguments.false_alarms, given=arguments.threshold
    )
    threshold = None if arguments.good else choose(calibration)
    has_colours = arguments.good or (calibration and calibration.colour_range())
    if arguments.output is not None and not has_colours:
        raise ConfigError(
            "--output: heat maps need the colour scale of good images, and no calibration.json of "
            "the model's experiment is found; give good images with --good DIR"
        )
    started = time.perf_counter()
    model = load_model(
        arguments.model,
        experiment=arguments.experiment,
        weights=arguments.weights,
        features=arguments.features,
        device=arguments.device,
        batch_size=arguments.batch_size or "auto",
    )
    experiment = _experiment(model)
    _print(console, f"model      {model.path}" + (f" ({experiment})" if experiment else ""))
    _print(console, f"loaded     in {time.perf_counter() - started:.1f} s, on {model.device}")
    if arguments.good:
        model.calibrate(_score_good(model, arguments.good), f"images of {arguments.good}")
        threshold = choose(model.calibration)
    model.threshold = threshold
    if threshold is not None:
        _print(console, f"threshold  {threshold.score:.5g}: {threshold.source}")
    return model


def _score_good(model: Model, folder: Path) -> Iterator[Result]:
    """Score the good images of a folder.

    Raises:
        DataError: one of them cannot be scored.
    """
    for result in model.stream(map(str, photos.list_photos([folder]))):
        if isinstance(result, Failure):
            raise result.error
        yield result


def _experiment(model: Model) -> str | None:
    return (model.calibration.experiment or None) if model.calibration else None


def _facts(model: Model) -> dict[str, object]:
    """Return the entries of the JSON document besides the images."""
    return {
        "model": str(model.path),
        "experiment": _experiment(model),
        "threshold": None if model.threshold is None else asdict(model.threshold),
    }


def watch(model: Model, arrivals: photos.Arrivals, reporter: Reporter, interval: float) -> None:
    """Score images as they arrive, until Ctrl-C or SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        _print(reporter.console, f"watching   {arrivals.folder} (Ctrl-C ends)")
        while True:
            polled = time.monotonic()
            new = arrivals.poll()
            if new:
                started = time.perf_counter()
                reporter.take(model.stream(map(str, new)))
                if not reporter.quiet:
                    seconds = time.perf_counter() - started
                    _print(reporter.console, f"{len(new)} images in {seconds:.2f} s")
            # Between polls that are too close a file that is being written would not change.
            time.sleep(max(0.0, polled + interval - time.monotonic()))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
