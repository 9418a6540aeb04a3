"""The ``predict`` command: score new images with a fitted model."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from indad.core import atomic
from indad.core.errors import ConfigError, DataError
from indad.core.progress import duration
from indad.evaluation.calibration import Calibration, Threshold
from indad.inference import photos
from indad.inference.loading import choose_experiment, load_model
from indad.inference.model import Failure, Model, Result
from indad.inference.tables import COLUMNS, ResultTables, Row, as_row

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
    add, limit = parser.add_argument, parser.add_mutually_exclusive_group()
    add("model", metavar="MODEL", help="a model file, or an experiment's scores folder")
    add("images", metavar="IMAGES", nargs="*", type=Path, help="images, and folders to search")
    add("--watch", type=Path, metavar="FOLDER", help="score what is and what arrives in a folder")
    text = "seconds between looks at the watched folder (default: %(default)g)"
    add("--interval", type=float, default=1.0, metavar="S", help=text)
    add("--output", type=Path, metavar="DIR", help="write a heat map of each image")
    add("--csv", metavar="FILE", help=f"table: {', '.join(COLUMNS)}; - prints it")
    text = "the same as JSON: a line per image for *.jsonl, else one document; - prints it"
    add("--json", metavar="FILE", help=text)
    text = "threshold by the share of good images that may exceed it (default: 0.05)"
    limit.add_argument("--false-alarms", type=float, metavar="RATE", help=text)
    text = "threshold: a number, f1max (best on the labelled test images), or none: scores alone"
    limit.add_argument("--threshold", metavar="T", help=text)
    text = "good images, none of them used to fit, to take the threshold from"
    add("--good", type=Path, metavar="DIR", help=text)
    add("--experiment", metavar="NAME", help="which experiment's, if several share the model")
    add("--weights", type=Path, metavar="FILE", help="the backbone's weights")
    add("--features", type=Path, metavar="FILE", help="SPADE's feature store")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    text = "images the backbone gets at once (default: 8 on a CPU, 64 on a GPU)"
    add("--batch-size", type=_positive, metavar="N", help=text)
    add("--exit-zero", action="store_true", help="exit code 0 also if images are anomalous")
    add("-q", "--quiet", action="store_true", help="print only anomalous images and errors")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Score images; return the exit code.

    Raises:
        IndadError: the images cannot be scored as asked.
    """
    folder, output = arguments.watch, arguments.output
    if bool(arguments.images) == (folder is not None):
        raise ConfigError("give images and folders to score, or a folder to --watch: one of them")
    if "-" in (arguments.csv, arguments.json):
        console = Console(stderr=True)
    found = photos.list_photos(arguments.images, output)
    if output is not None:
        _check_output(output, [folder] if folder else found)
    # Errors in the tables or the threshold come before the backbone is loaded.
    tables = ResultTables(arguments.csv, arguments.json, live=folder is not None)
    model = _prepare_model(arguments, console)
    draw = None
    if output is not None:
        base = folder or Path(os.path.commonpath([path.resolve().parent for path in found]))
        draw = partial(write_heat_map, model, base, output)
    total = None if folder else len(found)
    reporter = Reporter(console, tables, draw, total, arguments.quiet)
    if folder:
        arrivals = photos.Arrivals(folder, output, tables.done)
        watch(model, arrivals, reporter, arguments.interval)
        console.out(reporter.summary(), highlight=False)
        return exit_code(reporter.counts, arguments.exit_zero)
    started = time.perf_counter()
    try:
        reporter.take(model.stream(map(str, found)))
    except KeyboardInterrupt:
        stopped = f"stopped after {reporter.done} of {len(found)} images; no table was written"
        console.out(stopped, highlight=False)
        return INTERRUPTED
    seconds = time.perf_counter() - started
    speed = len(found) / seconds
    facts = {
        "model": str(model.path),
        "experiment": _experiment(model),
        "threshold": None if model.threshold is None else asdict(model.threshold),
        "images_per_second": round(speed, 2),
    }
    tables.finish(facts)
    spent = f"{seconds:.1f} s, {speed:.1f} images/s"
    console.out(f"{reporter.summary()}; {spent}", highlight=False)
    return exit_code(reporter.counts, arguments.exit_zero)


def exit_code(counts: Counter[str], exit_zero: bool) -> int:
    """Return the exit code for the ``counts`` of a `Reporter`."""
    if counts["error"]:
        return ERROR
    return ANOMALOUS if counts["anomalous"] and not exit_zero else GOOD


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
    wish = arguments.false_alarms, arguments.threshold
    if not arguments.good:
        choose_threshold(path, calibration, *wish)
        if arguments.output is not None and not (calibration and calibration.colour_range()):
            raise ConfigError(
                "--output: heat maps need the colour scale of good images, and no calibration.json "
                "of the model's experiment is found; give good images with --good DIR"
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
    name = f"{model.path} ({experiment})" if experiment else model.path
    console.out(f"model      {name}", highlight=False)
    spent = time.perf_counter() - started
    console.out(f"loaded     in {spent:.1f} s, on {model.device}", highlight=False)
    if arguments.good:
        good = model.predict(photos.list_photos([arguments.good]))
        model.calibrate(good, f"images of {arguments.good}")
    model.threshold = choose_threshold(path, model.calibration, *wish)
    if model.threshold is not None:
        chosen = f"threshold  {model.threshold.score:.5g}: {model.threshold.source}"
        console.out(chosen, highlight=False)
    return model


def choose_threshold(
    model: Path, calibration: Calibration | None, false_alarms: float | None, given: str | None
) -> Threshold | None:
    """Choose the threshold of ``--false-alarms`` and ``--threshold``; None for ``none``.

    Raises:
        ConfigError: ``given`` has no such value, or there are too few scores to choose from.
    """
    if given == "none":
        return None
    if given not in (None, "f1max"):
        value = math.nan
        with contextlib.suppress(ValueError):
            value = float(given)
        if not math.isfinite(value):
            raise ConfigError(f"--threshold: must be a number, f1max or none, got {given!r}")
        return calibration.at(value) if calibration else Threshold(value, None, "as given")
    if calibration is None:
        raise ConfigError(
            f"{model}: no threshold is known: there is no calibration.json of an experiment of "
            "this model in its folder or in its results folder. Run the workflow again, or give "
            "--good DIR with good images, --threshold NUMBER, or --threshold none for scores alone"
        )
    return calibration.at_f1_max() if given else calibration.at_false_alarms(false_alarms)


def _experiment(model: Model) -> str | None:
    return (model.calibration.experiment or None) if model.calibration else None


def write_heat_map(model: Model, base: Path, folder: Path, result: Result) -> None:
    """Write the heat map of a file below ``base`` to the same place below ``folder``.

    Raises:
        DataError: the image cannot be read again.
    """
    assert result.image is not None
    picture = model.overlay(result.image, result)
    inside = Path(os.path.relpath(Path(result.image).resolve(), base.resolve()))
    # Other formats keep their ending before ".png", so that a.jpg and a.png stay apart.
    name = inside.name if inside.suffix.lower() == ".png" else inside.name + ".png"
    with atomic.replacing(folder / inside.with_name(name)) as temporary:
        picture.save(temporary, compress_level=3)


class Reporter:
    """Counts and prints results as they come, and passes them on to the tables and heat maps.

    Attributes:
        done: images with a result or an error.
        counts: images by verdict: ``anomalous`` or ``good``, ``scored`` without a threshold, and
            ``error`` for images that could not be scored or drawn.
    """

    def __init__(
        self,
        console: Console,
        tables: ResultTables,
        draw: Callable[[Result], None] | None,
        total: int | None,
        quiet: bool,
    ) -> None:
        self.console, self.tables, self.draw = console, tables, draw
        self.total, self.quiet = total, quiet
        self.done, self.counts = 0, Counter[str]()
        # Sum of the images' own seconds. Results come in batches, so that the time since the start
        # would give a poor estimate of the time left.
        self._worked = 0.0
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=total is None or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, left="")

    def take(self, results: Iterable[Result | Failure]) -> None:
        """Report results one by one, as they are scored."""
        with self._bar:
            for result in results:
                row, verdict = as_row(result), "error"
                if isinstance(result, Result):
                    verdict = {None: "scored", True: "anomalous", False: "good"}[result.anomalous]
                    self._worked += result.seconds
                    if self.draw:
                        row["error"] = self._draw(self.draw, result)
                self.done += 1
                self.counts[verdict] += 1
                self.tables.add(row)
                self._print_row(row, verdict)
                if self.total is not None:
                    self._show_progress(self.total)

    def _print_row(self, row: Row, verdict: str) -> None:
        if verdict == "anomalous" or (verdict != "error" and not self.quiet):
            style = {"anomalous": "bold red", "good": "green"}.get(verdict)
            line = f"{verdict:9}  {row['score']:<10.5g}  {row['image']}"
            self.console.out(line, style=style, highlight=False)
        if row["error"]:
            self.console.out(f"error      {row['error']}", style="red", highlight=False)

    def _draw(self, draw: Callable[[Result], None], result: Result) -> str | None:
        """Write the heat map; return an error message if the file has gone since it was scored."""
        started = time.perf_counter()
        try:
            draw(result)
        except DataError as error:
            self.counts["error"] += 1
            return f"no heat map: {error}"
        finally:
            self._worked += time.perf_counter() - started
        return None

    def _show_progress(self, total: int) -> None:
        each = self._worked / max(self.counts.total() - self.counts["error"], 1)
        left = f"{duration(each * (total - self.done))} left"
        self._bar.update(self._task, completed=self.done, left=left)
        if (
            self._bar.disable
            and time.monotonic() - self._last_line >= LINE_EVERY
            and self.done < total
        ):
            self._last_line = time.monotonic()
            self.console.out(f"{self.done}/{total} images, {left}", highlight=False)

    def summary(self) -> str:
        """Return the counts in words."""
        counts = f"{self.counts['anomalous']} anomalous, {self.counts['good']} good"
        if not self.counts["anomalous"] + self.counts["good"]:
            counts = f"{self.counts['scored']} scored"
        if self.counts["error"]:
            counts += f", {self.counts['error']} with errors"
        return f"{self.done} images: {counts}"


def watch(model: Model, arrivals: photos.Arrivals, reporter: Reporter, interval: float) -> None:
    """Score images as they arrive, until Ctrl-C or SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        reporter.console.out(f"watching   {arrivals.folder} (Ctrl-C ends)", highlight=False)
        while True:
            polled = time.monotonic()
            new = arrivals.poll()
            if new:
                started = time.perf_counter()
                reporter.take(model.stream(map(str, new)))
                if not reporter.quiet:
                    seconds = time.perf_counter() - started
                    reporter.console.out(f"{len(new)} images in {seconds:.2f} s", highlight=False)
            # Between polls that are too close a file that is being written would not change.
            time.sleep(max(0.0, polled + interval - time.monotonic()))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
