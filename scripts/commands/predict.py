"""run.py predict: score new images with a fitted model."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import os
import signal
import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from indad.core import atomic
from indad.core.errors import ConfigError, DataError
from indad.core.progress import duration
from indad.evaluation.calibration import Calibration, Threshold
from indad.inference import photos
from indad.inference.model import Failure, Model, Result, choose, load_model

#: Columns of the CSV file, and fields of an image in the JSON file.
COLUMNS = ("image", "score", "threshold", "anomalous", "seconds", "error")
GOOD, ANOMALOUS, ERROR = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parse = argparse.ArgumentParser(
        prog="run.py predict",
        description="Score new images with a fitted model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.dedent(
            """\
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
              images, which the model was not fitted on, are kept beside each experiment's scores
              (calibration.json). With --false-alarms RATE the threshold is the lowest of them for
              which a new good image of the same kind is called anomalous with a probability of at
              most RATE; this needs 1 / RATE - 1 good images. 0.05 where nothing is asked, or the
              lowest rate that fewer images allow. Where you have good images of your own, give
              them with --good.

            copying a model
              The model file, the calibration.json of its experiment beside it, the backbone's
              weights (--weights, if they lie elsewhere there); for SPADE also its feature store
              (--features).

            exit code
              0  no image is anomalous      1  at least one is
              2  an image or anything else could not be used (also with --exit-zero)
            """
        ),
    )
    parse.add_argument(
        "model", metavar="MODEL", help="a model file, or an experiment's scores folder"
    )
    parse.add_argument(
        "images", metavar="IMAGES", nargs="*", type=Path, help="images, and folders to search"
    )
    parse.add_argument(
        "--watch", type=Path, metavar="FOLDER", help="score what is and what arrives in a folder"
    )
    parse.add_argument(
        "--interval", type=float, default=1.0, metavar="S",
        help="seconds between looks at the watched folder (default: %(default)g)",
    )  # fmt: skip
    parse.add_argument("--output", type=Path, metavar="DIR", help="write a heat map of each image")
    parse.add_argument("--csv", metavar="FILE", help=f"table: {', '.join(COLUMNS)}; - prints it")
    parse.add_argument(
        "--json",
        metavar="FILE",
        help="the same as JSON: a line an image for *.jsonl, else one document; - prints it",
    )
    limit = parse.add_mutually_exclusive_group()
    limit.add_argument(
        "--false-alarms", type=float, metavar="RATE",
        help="threshold by the share of good images it may exceed (default: 0.05)",
    )  # fmt: skip
    limit.add_argument(
        "--threshold", metavar="T",
        help="threshold: a number, f1max (best on the labelled test images), or none: scores alone",
    )  # fmt: skip
    parse.add_argument(
        "--good", type=Path, metavar="DIR",
        help="good images, none of them used to fit, to take the threshold from",
    )  # fmt: skip
    parse.add_argument(
        "--experiment", metavar="NAME", help="which experiment's, where several share the model"
    )
    parse.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's weights")
    parse.add_argument("--features", type=Path, metavar="FILE", help="SPADE's feature store")
    parse.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s"
    )
    parse.add_argument(
        "--batch-size", type=_positive, metavar="N",
        help="images the backbone sees at once (default: 8 on a CPU, 64 on a GPU)",
    )  # fmt: skip
    parse.add_argument(
        "--exit-zero", action="store_true", help="exit code 0 also where images are anomalous"
    )
    parse.add_argument(
        "-q", "--quiet", action="store_true", help="print anomalous images and errors alone"
    )
    return parse


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


@dataclass
class Tally:
    """What was found so far.

    Attributes:
        total: images in all, or None while watching.
        done: images dealt with.
        good: images at most at the threshold.
        anomalous: images above it.
        scored: both, or all where there is no threshold.
        failed: images that could not be scored, or drawn.
        worked: seconds that the images so far took by themselves: results come in batches, so the
            time since the start says little of what is left.
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
        """Time since the first image was begun."""
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

    def code(self, exit_zero: bool) -> int:
        """Return the exit code."""
        if self.failed:
            return ERROR
        return ANOMALOUS if self.anomalous and not exit_zero else GOOD

    def summary(self) -> str:
        """Say what was found, and how fast."""
        counts = f"{self.anomalous} anomalous, {self.good} good"
        if not self.anomalous + self.good:
            counts = f"{self.scored} scored"
        if self.failed:
            counts += f", {self.failed} with errors"
        return f"{self.done} images: {counts}"


def row(result: Result | Failure) -> dict[str, Any]:
    """Return a result as a row of ``COLUMNS``."""
    if isinstance(result, Failure):
        return dict.fromkeys(COLUMNS) | {"image": result.image, "error": str(result.error)}
    return {name: getattr(result, name, None) for name in COLUMNS}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else value or ""


class Tables:
    """The CSV and JSON files: written whole at the end, or line by line while watching."""

    def __init__(self, csv_file: str | None, json_file: str | None, live: bool) -> None:
        self.csv_file, self.json_file, self.live = csv_file, json_file, live
        self.rows: list[dict[str, Any]] = []
        self.done: list[Path] = []
        self.lines = (json_file or "").endswith(".jsonl") or (live and json_file == "-")
        if live and json_file and not self.lines:
            raise ConfigError(
                "--watch: a JSON file that grows has a line an image: name it *.jsonl"
            )
        if live:
            self._continue()

    def _continue(self) -> None:
        """Read which images earlier runs have written, and begin the files that are not there."""
        if self.csv_file and self.csv_file != "-":
            path = Path(self.csv_file)
            if path.exists() and path.stat().st_size:
                with path.open(encoding="utf-8", newline="") as text:
                    reader = csv.DictReader(text)
                    if tuple(reader.fieldnames or ()) != COLUMNS:
                        raise DataError(f"{path}: exists and is no table of this command's")
                    self.done += [Path(each["image"]) for each in reader]
            else:
                self._append(self.csv_file, ",".join(COLUMNS) + "\n")
        elif self.csv_file:
            self._append("-", ",".join(COLUMNS) + "\n")
        if self.json_file and self.json_file != "-" and Path(self.json_file).exists():
            try:
                with Path(self.json_file).open(encoding="utf-8") as text:
                    self.done += [Path(json.loads(line)["image"]) for line in text]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.json_file}: exists and is no table of this command's ({error})"
                ) from None

    def add(self, one: dict[str, Any]) -> None:
        """Take in a row."""
        if not self.live:
            self.rows.append(one)
            return
        if self.csv_file:
            self._append(self.csv_file, _csv([one], header=False))
        if self.json_file:
            self._append(self.json_file, json.dumps(one, ensure_ascii=False) + "\n")

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the files, unless they grew line by line."""
        if self.live:
            return
        if self.csv_file:
            _write(self.csv_file, _csv(self.rows))
        if self.json_file and self.lines:
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in self.rows]
            _write(self.json_file, "".join(lines))
        elif self.json_file:
            text = json.dumps(facts | {"images": self.rows}, indent=2, ensure_ascii=False)
            _write(self.json_file, text + "\n")

    def _append(self, file: str, text: str) -> None:
        if file == "-":
            print(text, end="", flush=True)
            return
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with Path(file).open("a", encoding="utf-8", newline="") as stream:
            stream.write(text)


def _csv(rows: Iterable[dict[str, Any]], header: bool = True) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows([_cell(one[name]) for name in COLUMNS] for one in rows)
    return text.getvalue()


def _write(file: str, text: str) -> None:
    if file == "-":
        print(text, end="", flush=True)
    else:
        atomic.write_text(file, text)


class Pictures:
    """Writes heat maps below a folder, named and arranged as the images are."""

    def __init__(self, model: Model, folder: Path, base: Path) -> None:
        self.model, self.folder, self.base = model, folder, base.resolve()

    def target(self, image: Path) -> Path:
        """Return where the heat map of an image goes."""
        inside = Path(os.path.relpath(image.resolve(), self.base))
        # A PNG keeps its name; others keep their ending too, so that no two become one.
        name = inside.name if inside.suffix.lower() == ".png" else inside.name + ".png"
        return self.folder / inside.with_name(name)

    def draw(self, result: Result) -> None:
        """Write the heat map of one result."""
        assert result.image is not None
        picture = self.model.overlay(result.image, result)
        with atomic.replacing(self.target(Path(result.image))) as temporary:
            picture.save(temporary, compress_level=3)


class Reporter:
    """Shows results as they come, and hands them to the files."""

    def __init__(
        self, console: Console, tally: Tally, tables: Tables, pictures: Pictures | None, quiet: bool
    ) -> None:
        self.console, self.tally, self.tables = console, tally, tables
        self.pictures, self.quiet = pictures, quiet
        self.last_line = time.monotonic()
        self.progress: Progress | None = None
        if console.is_terminal and tally.total is not None:
            self.progress = Progress(
                TextColumn("{task.percentage:3.0f} %"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=console,
                transient=True,
            )
            self.task = self.progress.add_task("", total=tally.total, left="")

    def take(self, results: Iterable[Result | Failure]) -> None:
        """Deal with results one by one."""
        with self.progress or contextlib.nullcontext():
            for result in results:
                one = row(result)
                verdict = self.tally.add(result)
                if self.pictures and isinstance(result, Result):
                    one["error"] = self._draw(self.pictures, result)
                self.tables.add(one)
                self._line(one, verdict)
                self._show()

    def _draw(self, pictures: Pictures, result: Result) -> str | None:
        """Write the heat map; return what went wrong, if its file is gone since it was scored."""
        began = time.perf_counter()
        try:
            pictures.draw(result)
        except DataError as error:
            self.tally.failed += 1
            return f"no heat map: {error}"
        finally:
            self.tally.worked += time.perf_counter() - began
        return None

    def _line(self, one: dict[str, Any], verdict: str) -> None:
        if verdict != "error" and not (self.quiet and verdict != "anomalous"):
            style = {"anomalous": "bold red", "good": "green"}.get(verdict, "")
            self._print(f"{verdict:9}  {one['score']:<10.5g}  {one['image']}", style)
        if one["error"]:
            self._print(f"error      {one['error']}", "red")

    def _print(self, text: str, style: str) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        done, total = self.tally.done, self.tally.total
        if total is None:
            return
        each = self.tally.worked / max(self.tally.scored, 1)
        left = f"{duration(each * (total - done))} left"
        if self.progress:
            self.progress.update(self.task, completed=done, left=left)
        elif time.monotonic() - self.last_line >= 5 and done < total:
            self.last_line = time.monotonic()
            self.console.print(f"{done}/{total} images, {left}", highlight=False, soft_wrap=True)


def main(given: list[str], console: Console) -> int:
    """Score images; return the exit code.

    Raises:
        IndadError: what was asked for cannot be done.
    """
    arguments = parser().parse_intermixed_args(given)
    if bool(arguments.images) == (arguments.watch is not None):
        raise ConfigError("give images and folders to score, or a folder to --watch: one of them")
    if arguments.csv == "-" or arguments.json == "-":
        console = Console(stderr=True)
    output = arguments.output
    found = photos.listed(arguments.images, output)
    base = arguments.watch or Path(os.path.commonpath([path.resolve().parent for path in found]))
    if output is not None:
        _keep_apart(output, [arguments.watch] if arguments.watch else found)

    # What is wrong with the tables or the threshold is said before the backbone is loaded.
    tables = Tables(arguments.csv, arguments.json, arguments.watch is not None)
    path, known = choose(arguments.model, arguments.experiment)
    asked = partial(threshold, path, false_alarms=arguments.false_alarms, asked=arguments.threshold)
    limit = None if arguments.good else asked(known)
    if output is not None and not (arguments.good or (known and known.colour_range())):
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
    _say(console, f"model      {model.path}{_of(model)}")
    _say(console, f"loaded     in {time.perf_counter() - started:.1f} s, on {model.device}")
    if arguments.good:
        model.calibrate(_score_good(model, arguments.good), f"images of {arguments.good}")
        limit = asked(model.calibration)
    model.threshold = limit
    if limit is not None:
        _say(console, f"threshold  {limit.score:.5g}: {limit.source}")

    tally = Tally(total=None if arguments.watch else len(found))
    pictures = None if output is None else Pictures(model, output, base)
    reporter = Reporter(console, tally, tables, pictures, arguments.quiet)
    if arguments.watch:
        arrivals = photos.Arrivals(arguments.watch, output, tables.done)
        watch(model, arrivals, reporter, arguments.interval)
        _say(console, tally.summary())
        return tally.code(arguments.exit_zero)
    try:
        reporter.take(model.stream(map(str, found)))
    except KeyboardInterrupt:
        _say(console, f"stopped after {tally.done} of {len(found)} images; no table was written")
        return 130
    took = tally.seconds
    tables.finish(
        {
            "model": str(model.path),
            "experiment": (known.experiment or None) if known else None,
            "threshold": None if model.threshold is None else asdict(model.threshold),
            "images_per_second": round(len(found) / took, 2),
        }
    )
    _say(console, f"{tally.summary()}; {took:.1f} s, {len(found) / took:.1f} images/s")
    return tally.code(arguments.exit_zero)


def watch(model: Model, arrivals: photos.Arrivals, reporter: Reporter, interval: float) -> None:
    """Score images as they arrive, until interrupted (Ctrl-C, or asked to terminate)."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        _say(reporter.console, f"watching   {arrivals.folder} (Ctrl-C ends)")
        while True:
            looked = time.monotonic()
            new = arrivals.poll()
            if new:
                began, count = time.perf_counter(), len(new)
                reporter.take(model.stream(map(str, new)))
                took = time.perf_counter() - began
                if not reporter.quiet:
                    _say(reporter.console, f"{count} images in {took:.2f} s")
            # Two looks too close to each other would take a file that grows for a finished one.
            time.sleep(max(0.0, looked + interval - time.monotonic()))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def threshold(
    model: Path, known: Calibration | None, *, false_alarms: float | None, asked: str | None
) -> Threshold | None:
    """Choose the threshold asked for on the command line.

    Raises:
        ConfigError: it cannot be had.
    """
    if asked == "none":
        return None
    if asked not in (None, "f1max"):
        try:
            value = float(asked)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"--threshold: must be a number, f1max or none, got {asked!r}")
        return known.at(value) if known else Threshold(value, None, "as given")
    if known is None:
        raise ConfigError(
            f"{model}: no threshold is known: no calibration.json of an experiment of this very "
            "model lies beside it or in its results folder. Run the workflow (again), or give "
            "--good DIR with good images, --threshold NUMBER, or --threshold none for scores alone"
        )
    return known.at_f1_max() if asked else known.at_false_alarms(false_alarms)


def _score_good(model: Model, folder: Path) -> Iterator[Result]:
    """Score the good images of a folder; one that cannot be used is an error."""
    for result in model.stream(map(str, photos.listed([folder]))):
        if isinstance(result, Failure):
            raise result.error
        yield result


def _keep_apart(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write heat maps where the images lie: they could replace them."""
    folder = output.resolve()
    for path in inputs:
        if path.resolve() == folder or folder in path.resolve().parents:
            raise ConfigError(
                f"--output {output}: {path} lies there; heat maps need a folder of their own"
            )


def _of(model: Model) -> str:
    known = model.calibration
    return f" ({known.experiment})" if known and known.experiment else ""


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
