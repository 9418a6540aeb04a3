"""The ``predict`` command: score new images with a fitted model."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from indad.cli.reporter import Interruption, Printer, Reporter, discard_output
from indad.core.errors import ConfigError
from indad.core.names import printable
from indad.evaluation.calibration import Calibration, Threshold
from indad.inference import photos
from indad.inference.image_files import ImageFiles, check_apart
from indad.inference.loading import choose_experiment, load_model
from indad.inference.model import Model, refuse_training_images
from indad.inference.tables import COLUMNS, ResultTables

#: Exit codes.
GOOD, ANOMALOUS, ERROR = 0, 1, 2

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
  An image is anomalous when its score is above the threshold. With --false-alarms RATE (default:
  0.05, or the lowest rate that the stored scores of good test images allow) a new good image of
  the same kind is called anomalous with a probability of at most RATE.

config/README.md, "Using a model", describes thresholds, copied models and --watch.

exit code
  0  no image is anomalous      1  at least one is
  2  an image or anything else could not be used, or the command was interrupted before all
     images were scored (also with --exit-zero)
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
    add_model_options(parser)
    add = parser.add_argument
    add("images", metavar="IMAGES", nargs="*", type=Path, help="images, and folders to search")
    add("--watch", type=Path, metavar="FOLDER", help="score what is and what arrives in a folder")
    text = "seconds between looks at the watched folder (default: %(default)g)"
    add("--interval", type=float, default=1.0, metavar="S", help=text)
    add("--output", type=Path, metavar="DIR", help="write a heat map of each image (PNG)")
    text = "write the anomaly map of each image at its own size (TIFF, float32)"
    add("--maps", type=Path, metavar="DIR", help=text)
    text = "write the pixels above the threshold of each image (PNG, black and white)"
    add("--masks", type=Path, metavar="DIR", help=text)
    add("--csv", metavar="FILE", help=f"table: {', '.join(COLUMNS)}; - prints it")
    text = "the same as JSON: a line per image for *.jsonl, else one document; - prints it"
    add("--json", metavar="FILE", help=text)
    text = "good images, none of them used to fit, to take the threshold from"
    add("--good", type=Path, metavar="DIR", help=text)
    add("--features", type=Path, metavar="FILE", help="SPADE's feature store")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    text = "images the backbone gets at once (default: 8 on a CPU, 64 on a GPU)"
    add("--batch-size", type=_positive, metavar="N", help=text)
    add("--exit-zero", action="store_true", help="exit code 0 also if images are anomalous")
    add("-q", "--quiet", action="store_true", help="print only anomalous images and errors")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and its threshold."""
    add, limit = parser.add_argument, parser.add_mutually_exclusive_group()
    add("model", metavar="MODEL", help="a model file, or an experiment's scores folder")
    add("--experiment", metavar="NAME", help="which experiment's, if several share the model")
    add("--weights", type=Path, metavar="FILE", help="the backbone's weights")
    text = "threshold by the share of good images that may exceed it (default: 0.05)"
    limit.add_argument("--false-alarms", type=float, metavar="RATE", help=text)
    text = "threshold: a number, f1max (best on the labelled test images), or none: no verdicts"
    limit.add_argument("--threshold", metavar="T", help=text)


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
    if "-" in (arguments.csv, arguments.json):
        console = Console(stderr=True)
    only = not any((arguments.csv, arguments.json, arguments.output, arguments.maps))
    say = Printer(console, only and not arguments.masks)
    interruption = Interruption()
    try:
        with interruption.handled():
            return _predict(arguments, say, interruption)
    except KeyboardInterrupt:
        say("interrupted before an image was scored")
        return ERROR
    except BrokenPipeError:  # the reader of the console has gone
        discard_output()
        return ERROR


def _predict(arguments: argparse.Namespace, say: Printer, interruption: Interruption) -> int:
    folder = arguments.watch
    if bool(arguments.images) == (folder is not None):
        raise ConfigError("give images and folders to score, or a folder to --watch: one of them")
    if arguments.masks is not None and arguments.threshold == "none":
        raise ConfigError("--masks: needs a threshold; leave out --threshold none")
    written = {"--output": arguments.output, "--maps": arguments.maps, "--masks": arguments.masks}
    written = {option: path for option, path in written.items() if path is not None}
    found = photos.list_photos(arguments.images, list(written.values()))
    if not arguments.quiet:
        for line in photos.describe_others(arguments.images, list(written.values())):
            say(f"note       {line}")
    # Errors in the outputs or the threshold come before the backbone is loaded.
    for option, path in written.items():
        check_apart(path, option, [folder] if folder else found)
    for option, name in (("--csv", arguments.csv), ("--json", arguments.json)):
        if name and Path(name).resolve() in {p.resolve() for p in [*found, Path(arguments.model)]}:
            raise ConfigError(f"{option} {name}: this file is read; name another one")
    tables = ResultTables(arguments.csv, arguments.json, live=folder is not None)
    try:
        base = folder or Path(os.path.commonpath([path.absolute().parent for path in found]))
        files = ImageFiles(base, arguments.output, arguments.maps, arguments.masks)
        model = _prepare_model(arguments, say)
    except BaseException:
        tables.discard()
        raise
    draw = partial(files.write, model) if written else None
    total = None if folder else len(found)
    reporter = Reporter(say, tables, draw, total, arguments.quiet, interruption)
    tables.begin()
    started = time.perf_counter()
    try:
        if folder:
            arrivals = photos.Arrivals(folder, list(written.values()), tables.done)
            watch(model, arrivals, reporter, arguments.interval)
        else:
            reporter.take(model.stream(map(str, found)))
    except KeyboardInterrupt:
        interruption.asked = True
    finally:
        seconds = time.perf_counter() - started
        tables.finish(_facts(model, reporter, seconds))
    return _close(arguments, reporter, seconds)


def _facts(model: Model, reporter: Reporter, seconds: float) -> dict[str, Any]:
    """Return what a JSON document says about the model and the run."""
    return {
        "model": printable(str(model.path)),
        "experiment": _experiment(model),
        "threshold": None if model.threshold is None else asdict(model.threshold),
        "images_per_second": round(reporter.done / seconds, 2),
        "complete": reporter.done == reporter.total,
    }


def _close(arguments: argparse.Namespace, reporter: Reporter, seconds: float) -> int:
    """Print how it ended; return the exit code."""
    end = reporter.summary()
    if reporter.total is not None:
        end += f"; {seconds:.1f} s, {reporter.done / seconds:.1f} images/s"
    stopped = reporter.total is not None and reporter.done < reporter.total
    if stopped:
        end = f"stopped after {reporter.done} of {reporter.total} images. {end}"
    problems = reporter.tables.problems()
    for problem in problems:
        reporter.say(f"error      {problem}; its last rows are missing", "red")
    reporter.say(end)
    if stopped or problems or reporter.say.failed:
        return ERROR
    return exit_code(reporter.counts, arguments.exit_zero)


def exit_code(counts: Counter[str], exit_zero: bool) -> int:
    """Return the exit code for the ``counts`` of a `Reporter`."""
    if counts["error"]:
        return ERROR
    return ANOMALOUS if counts["anomalous"] and not exit_zero else GOOD


def _prepare_model(arguments: argparse.Namespace, say: Printer) -> Model:
    """Load the model and choose its threshold."""
    path, calibration = choose_experiment(arguments.model, arguments.experiment)
    wish = arguments.false_alarms, arguments.threshold
    if arguments.good:
        good = photos.list_photos([arguments.good])
        refuse_training_images(path, good)
    else:
        threshold = choose_threshold(path, calibration, *wish)
        if arguments.output is not None and not (calibration and calibration.colour_range()):
            raise ConfigError(
                "--output: heat maps need the colour scale of good images, and no calibration.json "
                "of the model's experiment is found; give good images with --good DIR"
            )
        if arguments.masks is not None and (not threshold or threshold.peak is None):
            raise ConfigError(
                "--masks: needs a threshold of the pixels, and none is known for this model; give "
                "good images with --good DIR"
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
    say(f"model      {name}")
    spent = time.perf_counter() - started
    say(f"loaded     in {spent:.1f} s, on {model.device}")
    if arguments.good:
        model.calibrate(model.predict(good), f"images of {arguments.good}")
        _warn_if_low(model, calibration, say)
    model.threshold = choose_threshold(path, model.calibration, *wish)
    if model.threshold is not None:
        chosen = f"threshold  {model.threshold.score:.5g}: {model.threshold.source}"
        say(chosen)
    return model


def _warn_if_low(model: Model, known: Calibration | None, say: Printer) -> None:
    """Warn if given good images score far below those of the test, as training images do."""
    if model.calibration and known and known.good.scores:
        highest, lowest = max(model.calibration.good.scores), min(known.good.scores)
        if highest < lowest / 2:
            say(
                f"warning    the good images given score at most {highest:.5g}, good test images "
                f"at least {lowest:.5g}: are they copies of training images? Then good images are "
                "called anomalous",
                "yellow",
            )


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


def watch(model: Model, arrivals: photos.Arrivals, reporter: Reporter, interval: float) -> None:
    """Score images as they arrive, until Ctrl-C or SIGTERM."""
    reporter.say(f"watching   {arrivals.folder} (Ctrl-C ends)")
    with contextlib.suppress(KeyboardInterrupt):
        while not reporter.interruption.asked:
            polled = time.monotonic()
            new = arrivals.poll()
            if new:
                started = time.perf_counter()
                reporter.take(model.stream(map(str, new)))
                if not reporter.quiet:
                    seconds = time.perf_counter() - started
                    reporter.say(f"{len(new)} images in {seconds:.2f} s")
            # Between polls that are too close a file that is being written would not change.
            time.sleep(max(0.0, polled + interval - time.monotonic()))
