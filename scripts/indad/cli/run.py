"""``indad run METHOD``: run the workflow, show its progress, print the tables."""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markdown import Markdown

from indad.cli.console import path_argument, print_labelled, print_line, program
from indad.cli.display import Display
from indad.cli.events import Job, RunState
from indad.cli.override import override
from indad.cli.workflow import (
    StoppedError,
    WorkflowProcess,
    snakemake_command,
    unwritable_cache,
)
from indad.core.cores import available_cores
from indad.core.errors import ConfigError, IndadError
from indad.core.progress import duration
from indad.data.data_warnings import DataWarning, read_warnings
from indad.data.public import catalogue
from indad.methods import NAMES

#: Lines of Snakemake's output that are shown of a failure that left no message.
OUTPUT_LINES = 40
#: Lists of data warnings that jobs write, by rule.
WARNING_FILES = {
    "index": "manifests/{dataset}/{category}.warnings.json",
    "decode": "pixels/{dataset}/{category}/{geometry}.warnings.json",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "run",
        usage=f"{program()} run METHOD [options] [-- SNAKEMAKE_OPTION ...]",
        description="Run SPADE, PaDiM or PatchCore on a data set and print the tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Whatever follows -- is passed on to snakemake, for example: -- --keep-going\n"
        f"{program()} --help has examples and describes the data folder.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "method",
        metavar="METHOD",
        choices=[*NAMES, "all"],
        help=f"one of {', '.join(NAMES)}, or all",
    )
    add_data_options(parser)
    parser.add_argument(
        "--results",
        type=path_argument,
        metavar="DIR",
        help="folder of all products (default: the configuration's)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="K", help="seeds (default: 0)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        help="where to compute (default: the configuration's)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="show what would be done, do nothing"
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``run`` and ``check`` share."""
    parser.add_argument(
        "--dataset",
        help="a data set of the configuration; with --data-root, the name to give the folder "
        "(default: its own)",
    )
    parser.add_argument(
        "--data-root",
        type=path_argument,
        metavar="DIR",
        help="a folder in MVTec AD layout: categories, or a single category",
    )
    parser.add_argument(
        "--category", action="append", metavar="NAME", help="only this category; may be repeated"
    )
    parser.add_argument(
        "--configfile",
        type=path_argument,
        metavar="FILE",
        help="settings merged over config/config.yaml",
    )
    parser.add_argument(
        "--extractor",
        metavar="NAME",
        help="only experiments on this extractor of the configuration",
    )
    parser.add_argument(
        "--cores",
        type=int,
        default=available_cores(),
        metavar="N",
        help="cores to use (default: all that this process may use, %(default)s)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the workflow; return the exit code.

    Raises:
        IndadError: the arguments do not fit the configuration or the data folder.
    """
    if not os.access(Path.cwd(), os.W_OK):
        raise ConfigError(
            f"{Path.cwd()}: this working directory cannot be written, but Snakemake keeps its "
            "state in it (.snakemake): start in another folder"
        )
    settings, config, notes = override(arguments)
    for line in notes:
        print_labelled(console, "note", line)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="indad-") as folder:
        file = Path(folder) / "command-line.yaml"
        file.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        process = WorkflowProcess(snakemake_command(arguments, file), Path(folder))
        if reason := unwritable_cache():
            note = f"caches cannot be written ({reason}); this run has temporary ones"
            print_labelled(console, "warning", note)
        try:
            code = follow(process, console, config, quiet=arguments.dry_run)
        except StoppedError as stopped:
            with contextlib.suppress(OSError):  # the terminal may be closed
                console.print("stopped; finished results are kept, run again to continue")
            return stopped.code
        output = process.output()
    if code:
        explain_failure(process.state, output, console)
    elif arguments.dry_run:
        print(output, end="")
    else:
        show_results(Path(config.get("results", "results")), process.state, started, console)
    return code


def follow(
    process: WorkflowProcess, console: Console, config: Mapping[str, Any], *, quiet: bool
) -> int:
    """Wait for a run, showing its progress unless ``quiet``; return Snakemake's exit code."""
    if quiet:
        with process:
            return process.wait()
    with process:
        try:
            with Display(console, process.state) as display:
                show_progress(process, console, display, config)
        except StoppedError:
            with contextlib.suppress(OSError):  # the terminal may be closed
                console.print("stopping ...")
            raise
    return process.wait()


def show_progress(
    process: WorkflowProcess, console: Console, display: Display, config: Mapping[str, Any]
) -> None:
    """Show the progress, licences and warnings of a run until it ends."""
    running = True
    messages = Messages(process.state, Path(config.get("results", "results")))
    while running:
        running = process.running()
        for job in process.read_events():
            if notice := licence_notice(job, config):
                print_line(console, notice)
        for label, text in messages.new():
            print_labelled(console, label, text)
        display.show()
        time.sleep(0.2 if running else 0)


class Messages:
    """The messages of the workflow, and the data warnings of its finished jobs.

    Args:
        state: the state of the run.
        results: the results folder.
    """

    def __init__(self, state: RunState, results: Path) -> None:
        self.state, self.results = state, results
        self._jobs = 0
        self._shown: set[tuple[str, str]] = set()

    def new(self) -> list[tuple[str, str]]:
        """Return label and text of each message that was not returned yet."""
        finished = [*self.state.finished.values()][self._jobs :]
        self._jobs += len(finished)
        warnings = [each for job in finished for each in self._data_warnings(job) if not each.note]
        found = [*self.state.messages, *(("warning", f"{w.category}: {w}") for w in warnings)]
        new = [each for each in dict.fromkeys(found) if each not in self._shown]
        self._shown.update(new)
        return new

    def _data_warnings(self, job: Job) -> list[DataWarning]:
        if job.rule not in WARNING_FILES:
            return []
        file = self.results / WARNING_FILES[job.rule].format(**job.wildcards)
        with contextlib.suppress(IndadError):  # reported by the rules that read the file
            return read_warnings(file)
        return []


def licence_notice(job: Job, config: Mapping[str, Any]) -> str | None:
    """Return who made the data set that a job is about to download, and its licence."""
    if job.rule != "archive":
        return None
    dataset = config["datasets"][job.wildcards["dataset"]]
    entry = catalogue.load()[dataset["source"]]
    return f"licence: {entry.title}: {entry.credit}"


def explain_failure(state: RunState, output: str, console: Console) -> None:
    """Print why a run failed."""
    end = "\n".join(output.splitlines()[-OUTPUT_LINES:])
    messages = [job.failure(message, end) for job, message in state.failures.values()]
    # Without any message it is no failure of the workflow: a wrong option, for example.
    messages = messages or state.errors or [f"Snakemake failed; its output ends with:\n{end}"]
    for message in dict.fromkeys(messages):
        print_labelled(console, "error", message)
    if any("pretrained weights" in message for message in messages):
        print_line(
            console,
            "Or run with --extractor lite0: a small backbone whose weights were installed with "
            "this project's packages.",
        )
    if state.finished:
        console.print("Finished results are kept: fix the error and run again.")


def show_results(results: Path, state: RunState, started: float, console: Console) -> None:
    """Print the summary table and where everything is."""
    summary = results / "tables" / "summary.md"
    if summary.exists():  # not after --until, for example
        console.print(Markdown(summary.read_text(encoding="utf-8")))
    took = duration(time.monotonic() - started)
    if state.counts:
        console.print(f"Done in {took}.")
    else:
        console.print(f"Nothing to do: all results were up to date (checked in {took}).")
    place = results.resolve()
    call = "indad" if program() == "indad" else "python scripts/run.py"
    print_line(
        console,
        f"Report: {place}/report/index.html   tables: {place}/tables/   "
        f"metrics: {place}/metrics.csv   everything: {place}/\n"
        f"Models, to score new images with: {call} list {results}",
    )
