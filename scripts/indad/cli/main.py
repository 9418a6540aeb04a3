"""Entry point of ``indad`` and ``scripts/run.py``: find the command, parse, run it."""

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from rich.console import Console

from indad import __version__
from indad.cli.console import print_labelled, program
from indad.core.device import end_process
from indad.core.disk import explain_disk_errors
from indad.core.errors import ConfigError, IndadError
from indad.methods import NAMES

#: Each command with its module and its line in the list of commands. Only the module of the given
#: command is imported: some of them need seconds.
COMMANDS = {
    "run": ("indad.cli.run", "run methods on a data set and print the tables"),
    "check": ("indad.cli.check", "examine a data folder, compute nothing"),
    "list": ("indad.cli.listing", "show what has been computed, and with which models"),
    "predict": ("indad.cli.predict", "score new images with a fitted model"),
    "export": ("indad.cli.export", "write a fitted model as an ONNX file"),
    "verify": ("indad.cli.verify", "compare a finished run, its data and weights with its record"),
    "package": ("indad.cli.package", "describe a finished run as a data package, to publish it"),
}

EPILOG = """\
examples
  {program} run padim --data-root /data/products
      PaDiM on every sub-folder of /data/products that has train/good, with the backbone of
      config/config.yaml (downloads its weights once)
  {program} run all --data-root /data/products --extractor lite0
      all three methods with the small backbone that comes as a pip package
  {program} run all --configfile config/quickstart.yaml
      what `make quickstart` runs
  {program} check --data-root /data/products
      what is in the folders, and everything that is wrong with them
  {program} predict MODEL new/*.png
      score new images

"run" may be left out: {program} METHOD ... means {program} run METHOD ...
Each command has a --help of its own.

a data folder
  <data root>/<category>/train/good/*.png          good images to learn from
  <data root>/<category>/test/good/*.png           good images to test with
  <data root>/<category>/test/<defect>/*.png       defective images, by kind
  <data root>/<category>/ground_truth/<defect>/*_mask.png     optional masks
other names, a list instead of folders, or no good test images: options of a data set, described in
config/README.md

Results are below --results: report/index.html (all in one page), metrics.csv, tables/results.md,
pictures/, scores/<data set>/<category>/<experiment>/seed<k>/scores.csv.
"""


def build_parser(command: str | None) -> tuple[argparse.ArgumentParser, argparse.Action]:
    """Return the parser and its sub-parsers; of these only that of ``command`` has options."""
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Run SPADE, PaDiM or PatchCore on a data set and print the tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.format(program=program()),
    )
    parser.add_argument("--version", action="version", version=f"indad {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        if name == command:
            import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser, subparsers


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    The old form without a command is a run: ``METHOD ...`` means ``run METHOD ...``.

    Raises:
        ConfigError: a command is not the first argument.
    """
    first = given[0] if given else "--help"
    if first in ("-h", "--help", "--version"):
        build_parser(None)[0].parse_args([first])
    if first in COMMANDS:
        return parse_command(first, given[1:])
    misplaced = [] if {*NAMES, "all"} & {*given} else [each for each in given if each in COMMANDS]
    if misplaced == ["check"]:  # was accepted after its options too
        return parse_command("check", [each for each in given if each != "check"])
    if misplaced:
        raise ConfigError(f"{misplaced[0]} comes first: {program()} {misplaced[0]} ...")
    return parse_command("run", given)


def parse_command(name: str, given: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of one command."""
    parser = build_parser(name)[1].choices[name]
    if name == "predict":  # options may be between the images
        return parser.parse_intermixed_args(given)
    if name != "run":
        return parser.parse_args(given)
    end = list(given).index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:end])
    arguments.snakemake = list(given[end + 1 :])
    arguments.dry_run |= bool({"-n", "--dry-run", "--dryrun"} & {*arguments.snakemake})
    return arguments


def run_and_exit() -> NoReturn:
    """Run the command line of this process, and end the process with its exit code."""
    code = main()
    if "torch" in sys.modules:
        with suppress(OSError):  # Python's own exit reports it
            end_process(code)
    sys.exit(code)


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code: 2 for every error."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):  # names of files may have any bytes
            stream.reconfigure(errors="backslashreplace")
    console = Console()
    try:
        arguments = parse(sys.argv[1:] if given is None else given)
        with explain_disk_errors():
            return arguments.run(arguments, console)
    except IndadError as error:
        with suppress(OSError):  # the error may be that nothing can be printed
            print_labelled(console, "error", str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:  # Python's own exit code for it is 1, which means an anomalous image
        traceback.print_exc()
        return 2
