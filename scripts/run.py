"""Run anomaly-detection methods on a data set and show the results.

    python scripts/run.py padim --data-root /data/products       every category below a folder
    python scripts/run.py patchcore --dataset mvtec_ad           a data set of the configuration
    python scripts/run.py all --configfile config/quickstart.yaml
    python scripts/run.py list                                   what has been computed
    python scripts/run.py predict MODEL new/*.png                score new images

It drives the same workflow as `snakemake` does: the same cache, the same products, and a second
run computes only what changed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from indad.data.check import Report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from commands import COMMANDS  # noqa: E402
from commands import plain as _plain  # noqa: E402
from indad.core.disk import explain_disk_errors  # noqa: E402
from indad.core.errors import IndadError  # noqa: E402
from indad.core.progress import duration  # noqa: E402
from indad.data.categories import is_category  # noqa: E402
from indad.data.folder_layout import GOOD, Reading  # noqa: E402
from indad.data.public import catalogue  # noqa: E402
from indad.data.public.suggest import find_categories  # noqa: E402
from indad.methods import METHODS  # noqa: E402
from indad.pipeline.config import check_schema, read_yaml  # noqa: E402

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"

#: Rough share of a run that a job of each rule takes, for the time left.
WEIGHTS = {
    "archive": 20, "extract": 10, "fit": 8, "score": 8, "download": 2, "index": 2, "decode": 2,
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = argparse.ArgumentParser(
        description="Run SPADE, PaDiM or PatchCore on a data set and print the tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.dedent(
            """\
            examples
              run.py padim --data-root /data/products
                  PaDiM on every sub-folder of /data/products that has train/good, with the
                  backbone of config/config.yaml (downloads its weights once)
              run.py all --data-root /data/products --extractor lite0
                  all three methods with the small backbone that comes as a pip package
              run.py patchcore --dataset mvtec_ad --category bottle --cores 8
                  PatchCore on one category of a data set of the configuration
              run.py all --configfile config/quickstart.yaml
                  what `make quickstart` runs
              run.py check --data-root /data/products
                  what is in the folders, and everything that is wrong with them

            other commands, each with a --help of its own
              run.py list                       what has been computed, and with which models
              run.py predict MODEL IMAGES...    score new images with a fitted model
              run.py verify RESULTS             whether a finished run, its data and its weights
                                                are what they were

            a data folder
              <data root>/<category>/train/good/*.png          good images to learn from
              <data root>/<category>/test/good/*.png           good images to test with
              <data root>/<category>/test/<defect>/*.png       defective images, by kind
              <data root>/<category>/ground_truth/<defect>/*_mask.png     optional masks
            other names, a list instead of folders, or no good test images: options of a data
            set, described in config/README.md

            Results lie below --results: report/index.html (all in one page), metrics.csv,
            tables/results.md, pictures/,
            scores/<data set>/<category>/<experiment>/seed<k>/scores.csv.
            """
        ),
    )
    parse.add_argument(
        "method",
        metavar="METHOD",
        choices=[*METHODS, "all", "check", *COMMANDS],
        help=f"one of {', '.join(METHODS)}, all, or check: examine the data, compute nothing; or "
        f"a command: {', '.join(COMMANDS)}",
    )
    parse.add_argument(
        "--dataset",
        help="a data set of the configuration; with --data-root, the "
        "name to give the folder (default: its own)",
    )
    parse.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="a folder in MVTec AD layout: categories, or a single category",
    )
    parse.add_argument(
        "--category", action="append", metavar="NAME", help="only this category; may be repeated"
    )
    parse.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of all products (default: the configuration's)",
    )
    parse.add_argument(
        "--configfile", type=Path, metavar="FILE", help="settings merged over config/config.yaml"
    )
    parse.add_argument(
        "--extractor",
        metavar="NAME",
        help="run only experiments on this extractor of the configuration",
    )
    parse.add_argument("--seeds", type=int, nargs="+", metavar="K", help="seeds (default: 0)")
    parse.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        help="where to compute (default: the configuration's)",
    )
    parse.add_argument(
        "--cores",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="cores to use (default: all, %(default)s)",
    )
    parse.add_argument(
        "-n", "--dry-run", action="store_true", help="show what would be done, do nothing"
    )
    parse.add_argument(
        "snakemake", nargs="*", metavar="-- OPTION", help="after --: options passed on to snakemake"
    )
    return parse  # fmt: skip


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge as Snakemake does: dictionaries deeply, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = merged(result[key], value)
        result[key] = value
    return result


def load_config(path: Path | None) -> dict[str, Any]:
    """Read config/config.yaml with an override file merged in.

    Raises:
        IndadError: a file is missing, is not YAML, or has a key or value that is not allowed.
    """
    config: dict[str, Any] = {}
    for file in filter(None, [ROOT / "config" / "config.yaml", path]):
        config = merged(config, read_yaml(file))
    check_schema(config, read_yaml(SCHEMA))
    return config


def choose_experiments(config: dict[str, Any], method: str, extractor: str | None) -> list[str]:
    """Return the experiments to run: those of the run section, or of the whole catalogue.

    Raises:
        IndadError: none fits.
    """
    catalogue = config.get("experiments") or {}
    listed = config.get("run", {}).get("experiments", [])
    for names in (listed, catalogue):
        chosen = [
            name
            for name in names
            if method in ("all", catalogue.get(name, {}).get("method"))
            and extractor in (None, catalogue.get(name, {}).get("extractor"))
        ]
        if chosen:
            return chosen
    known = ", ".join(sorted({each.get("extractor", "?") for each in catalogue.values()}))
    raise IndadError(
        f"no experiment of the configuration has method {method!r}"
        + (f" and extractor {extractor!r}; extractors in use: {known}" if extractor else "")
    )


def reading_of(config: dict[str, Any], dataset: str | None) -> Reading:
    """Return how the folders of a data set are read: by its options, where it has any.

    Raises:
        IndadError: an option has a value that cannot be used.
    """
    settings = config.get("datasets", {}).get(dataset) or {}
    return Reading.from_config(settings, f"datasets.{dataset}")


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn the command line into settings that are merged over the configuration.

    Raises:
        IndadError: the arguments do not fit the configuration or the data folder.
    """
    config = load_config(arguments.configfile)
    run: dict[str, Any] = {
        "experiments": choose_experiments(config, arguments.method, arguments.extractor)
    }
    settings: dict[str, Any] = {"run": run}
    categories = arguments.category
    if arguments.data_root is not None:
        folder = arguments.data_root.expanduser().resolve()
        reading = reading_of(config, arguments.dataset)
        if is_category(folder, reading):  # a single one: its parent is the data set
            categories = categories or [folder.name]
            folder = folder.parent
        name = arguments.dataset or folder.name.lstrip(".") or "data"
        dataset: dict[str, Any] = {"path": str(folder)}
        if name in config.get("datasets", {}):
            if not arguments.dataset:
                name = f"{name}-folder"
            source = config["datasets"].get(name, {}).get("source")
            if source and source not in catalogue.load():
                raise IndadError(
                    f"--dataset {name}: the configuration makes this data set; choose another "
                    "name for --data-root"
                )
            # Merging cannot take a list of categories away, so name all that are there.
            try:
                categories = categories or find_categories(folder, reading)
            except IndadError:
                if not (source and folder.is_dir()):
                    raise
                dataset = {"mirrors": [str(folder)]}  # in the public data set's own layout
        run["datasets"] = [name]
    elif arguments.dataset:
        name, dataset = arguments.dataset, {}
        if name not in config.get("datasets", {}):
            known = ", ".join(config.get("datasets", {}))
            raise IndadError(
                f"--dataset {name}: not in the configuration, which has {known}. For a folder of "
                "your own add --data-root DIR"
            )
        run["datasets"] = [name]
    elif categories:
        raise IndadError("--category needs --dataset or --data-root")
    if "datasets" in run:
        if categories:
            dataset["categories"] = categories
        settings["datasets"] = {name: dataset}
    if arguments.seeds:
        run["seeds"] = arguments.seeds
    if arguments.results:
        settings["results"] = str(arguments.results)
    if arguments.device:
        settings["device"] = arguments.device
    return settings


class Display:
    """Progress of the workflow: a bar with the time left on a terminal, else plain lines."""

    _SHARE = re.compile(r" (\d+)/(\d+) ")
    _COUNT = re.compile(r"^(\w+)\s+(\d+)$")
    _RULE = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):")
    _JOB = re.compile(r"^    jobid: (\d+)")
    _LOG = re.compile(r"^    log: (\S.*?)(?: \(.*)?$")
    DONE = re.compile(r"^Finished jobid: (\d+)")

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.total = self.done = 0.0
        self.rule, self.log = "", ""
        self.running: dict[str, tuple[str, str]] = {}
        self.progress = Progress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}"),
            console=console,
        )
        self.task = self.progress.add_task("planning", total=None, left="")
        self.last_line = 0.0

    def read(self, line: str) -> None:
        """Take in one line of Snakemake's output."""
        if match := self._COUNT.match(line):
            rule, count = match[1], int(match[2])
            if rule != "total":
                self.total += WEIGHTS.get(rule, 1) * count
        elif match := self._RULE.match(line):
            self.rule, self.log = match[1], ""
        elif match := self._LOG.match(line):
            self.log = match[1]
            # Snakemake prints the log before or after the job's number.
            for job, (rule, log) in self.running.items():
                if rule == self.rule and not log:
                    self.running[job] = (rule, self.log)
        elif match := self._JOB.match(line):
            self.running[match[1]] = (self.rule, self.log)
        elif line.startswith("licence: "):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif match := self.DONE.match(line):
            rule, _ = self.running.pop(match[1], (self.rule, ""))
            self.done += WEIGHTS.get(rule, 1)
        self.show()

    def said(self) -> list[tuple[str, str]]:
        """Return the rule of each running job and the last line of its log, or the rule's name."""
        result = []
        for rule, log in list(self.running.values()):
            text = rule
            with contextlib.suppress(OSError, IndexError):
                line = Path(log).read_text(encoding="utf-8").splitlines()[-1]
                # Without the date and time that each line of a log begins with.
                text = line.split(" ", 2)[2]
            result.append((rule, text if text.startswith(rule) else rule))
        return result

    def activity(self) -> str:
        """Say what runs now."""
        return "; ".join(text for _, text in self.said()[:2])

    def finished(self) -> float:
        """Return the work done, in the units of ``WEIGHTS``, with the running jobs' shares."""
        running = 0.0
        for rule, text in self.said():
            if match := self._SHARE.search(text):
                running += WEIGHTS.get(rule, 1) * int(match[1]) / max(1, int(match[2]))
        return self.done + running

    def left(self) -> str:
        """Say how long the rest will take, once there is something to go by."""
        elapsed = time.monotonic() - self.started
        finished = self.finished()
        if finished < self.total / 20 or elapsed < 3:
            return ""
        return f"{duration(elapsed / finished * (self.total - finished))} left"

    def show(self) -> None:
        """Update the bar, or print a line every five seconds."""
        if self.console.is_terminal:
            self.progress.update(
                self.task,
                total=self.total or None,
                completed=self.finished(),
                description=self.activity(),
                left=self.left(),
            )
        elif self.total and time.monotonic() - self.last_line >= 5:
            self.last_line = time.monotonic()
            percent = 100 * self.finished() / self.total
            self.console.print(
                f"{percent:3.0f} %  {self.left():14}  {self.activity()}",
                highlight=False,
                soft_wrap=True,
            )

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Keep the display moving while the block runs."""
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(0.5):
                self.show()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            if self.console.is_terminal:
                with self.progress:
                    yield
            else:
                yield
        finally:
            ended.set()
            ticking.join()


def has_gpu() -> bool:
    """Tell whether this machine has an NVIDIA driver, without importing torch."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def snakemake_command(arguments: argparse.Namespace, override: Path) -> list[str]:
    """Return the Snakemake call that does what was asked for."""
    files = [ROOT / "config" / "config.yaml", arguments.configfile, override]
    return [
        sys.executable, "-m", "snakemake",
        "--snakefile", str(ROOT / "workflow" / "Snakefile"),
        "--workflow-profile", str(ROOT / "workflow" / "profiles" / "default"),
        "--configfile", *(str(file) for file in files if file),
        "--cores", str(arguments.cores),
        # The profile lets one job at a time claim the GPU. Where no driver is, nothing is shared.
        *([] if has_gpu() else ["--resources", f"gpu={arguments.cores}"]),
        "--nocolor",
        *(["--dry-run"] if arguments.dry_run else []),
        *arguments.snakemake,
    ]  # fmt: skip


def run_workflow(command: list[str], console: Console) -> tuple[int, list[str]]:
    """Run Snakemake under the display; return its exit code and output."""
    lines: list[str] = []
    display = Display(console)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    with display.live():
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                display.read(lines[-1])
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    return process.wait(), lines


def explain_failure(lines: list[str], console: Console) -> None:
    """Show the messages meant for the user, or failing those the end of the output."""
    messages = []
    stripped = [line.strip() for line in lines]
    for i, line in enumerate(stripped):
        if line.startswith("indad: "):
            # Behind the message Snakemake tells where in the workflow it arose.
            ends = re.compile(r"$|Wildcards:|Traceback:|File \"")
            end = next((j for j in range(i, len(lines)) if ends.match(stripped[j])), len(lines))
            messages.append("\n".join([line, *lines[i + 1 : end]]).removeprefix("indad: "))
    if not messages:
        interesting = [line for line in lines if line.strip()]
        start = next((i for i, line in enumerate(interesting) if "Error" in line), -30)
        messages = ["\n".join(interesting[start:][:40])]
    for message in dict.fromkeys(messages):
        console.print(f"[bold red]error[/] {_plain(message)}", highlight=False, soft_wrap=True)
    if any("timm's pretrained weights could not be had" in message for message in messages):
        console.print(
            "Or run with --extractor lite0: a small backbone whose weights were installed with "
            "this project's packages.",
            soft_wrap=True,
        )


def check_data(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a data folder holds and all that is wrong with it; return the exit code.

    Raises:
        IndadError: no such folder, or nothing in it.
    """
    from indad.data.check import check
    from indad.data.images import Geometry
    from indad.pipeline.config import check_schema

    if not console.is_terminal:
        console = Console(width=120)
    config = load_config(arguments.configfile)
    if arguments.dataset and arguments.data_root:
        over = {"datasets": {arguments.dataset: {"path": str(arguments.data_root)}}}
        config = merged(config, over)
    check_schema(config, yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    settings = config.get("datasets", {}).get(arguments.dataset) or {}
    folder = arguments.data_root
    if folder is None:
        if "path" not in settings:
            raise IndadError("check needs --data-root DIR, or --dataset with a 'path'")
        folder = Path(settings["path"])
    folder = folder.expanduser().resolve()
    reading = reading_of(config, arguments.dataset)
    single = is_category(folder, reading)
    root = folder.parent if single else folder
    categories = arguments.category or ([folder.name] if single else [])
    categories = categories or settings.get("categories") or find_categories(folder, reading)
    extractor = config.get("extractors", {}).get(arguments.extractor or "wrn50")
    if extractor is None:
        known = ", ".join(config.get("extractors", {}))
        raise IndadError(f"--extractor {arguments.extractor}: unknown; there are {known}")
    resize, crop = extractor.get("resize", 256), extractor.get("crop", 224)
    geometry = Geometry.from_config(resize, crop)
    reports = []
    with Progress(console=console, transient=True) as bar:
        for name in categories:
            update = partial(_show, bar, bar.add_task(_plain(name)))
            reports.append(
                check(root / name, geometry, reading, threads=arguments.cores, progress=update)
            )
    _show_reports(reports, console)
    for report in reports:
        for kind, colour, lines in (
            ("problem", "red", report.problems),
            ("warning", "yellow", report.warnings),
        ):
            for line in lines:
                console.print(
                    f"[{colour}]{kind}[/] {_plain(report.category)}: {_plain(line)}",
                    highlight=False,
                    soft_wrap=True,
                )
    problems = sum(len(report.problems) for report in reports)
    checked = _counted(len(reports), "category", "categories")
    if problems:
        bad = [report.category for report in reports if report.problems]
        console.print(
            f"{_counted(problems, 'problem', 'problems')} in {_plain(', '.join(bad))}: nothing "
            "can be run on such a category before it is mended.",
            soft_wrap=True,
        )
        return 1
    warned = sum(len(report.warnings) for report in reports)
    look = f" {_counted(warned, 'warning', 'warnings')} to look at." if warned else ""
    console.print(
        f"Nothing wrong in {checked}, for resize {resize}, crop {crop}.{look}", highlight=False
    )
    return 0


def _show_reports(reports: list[Report], console: Console) -> None:
    """Print what was found, a row a category, or a block where the terminal is narrow."""
    columns = ("train", "good", "defects", "masks", "sizes", "files", "problems")
    table = Table("category", *columns)
    narrow = console.width < 80
    for report in reports:
        kinds = [(k, n) for k, n in report.counts.items() if k not in ("train", f"test {GOOD}")]
        cells = (
            str(report.counts["train"]),
            str(report.counts[f"test {GOOD}"]),
            _plain("\n".join(f"{n} {kind.removeprefix('test ')}" for kind, n in kinds)),
            f"{report.masks} of {report.defective}",
            _most_common(report.sizes),
            _most_common(report.modes),
            f"[red]{len(report.problems)}[/]" if report.problems else "none",
        )
        table.add_row(_plain(report.category), *cells)
        if narrow:
            console.print(f"[bold]{_plain(report.category)}[/]", highlight=False)
            for column, cell in zip(columns, cells, strict=True):
                console.print(f"  {column:8} {cell.replace(chr(10), ', ')}", highlight=False)
    if not narrow:
        console.print(table)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _most_common(counts: Counter[str], most: int = 3) -> str:
    lines = [f"{count} {name}" for name, count in counts.most_common(most)]
    return "\n".join([*lines, *(["..."] if len(counts) > most else [])])


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    console = Console()
    given = sys.argv[1:]
    try:
        if given and given[0] in COMMANDS:
            with explain_disk_errors():
                return import_module(COMMANDS[given[0]]).main(given[1:], console)
        arguments = parser().parse_args(given)
        if arguments.method in COMMANDS:
            raise IndadError(f"{arguments.method} comes first: run.py {arguments.method} ...")
        if arguments.method == "check":
            return check_data(arguments, console)
        settings = overrides(arguments)
        results = Path(
            settings.get("results") or load_config(arguments.configfile).get("results", "results")
        )
    except IndadError as error:
        console.print(f"[bold red]error[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder) / "command-line.yaml"
        override.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        started = time.monotonic()
        command = snakemake_command(arguments, override)
        try:
            code, lines = run_workflow(command, console)
        except KeyboardInterrupt:
            console.print("stopped; what is finished stays, run again to go on")
            return 130
    if arguments.dry_run:
        print("\n".join(lines))
        return code
    if code:
        explain_failure(lines, console)
        if any(Display.DONE.match(line) for line in lines):
            console.print("Everything finished so far is kept: mend this and run again.")
        return code
    console.print(Markdown((results / "tables" / "summary.md").read_text(encoding="utf-8")))
    took = duration(time.monotonic() - started)
    if any("Nothing to be done" in line for line in lines):
        console.print(f"Nothing to do: all results were up to date (checked in {took}).")
    else:
        console.print(f"Done in {took}.")
    place = results.resolve()
    console.print(
        f"Report: {place}/report/index.html   tables: {place}/tables/   "
        f"metrics: {place}/metrics.csv   everything: {place}/\n"
        f"Models, to score new images with: python scripts/run.py list {results}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
