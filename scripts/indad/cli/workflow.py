"""Starting Snakemake, and following it through the events that the logger plugin writes."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from indad.cli.events import EventFile, Job, RunState
from indad.core.paths import PACKAGE, is_checkout, project_root
from indad.pipeline.config_files import default_config


def snakemake_command(arguments: argparse.Namespace, override: Path) -> list[str]:
    """Return the Snakemake call for a command line and the settings it amounts to."""
    workflow = project_root() / "workflow"
    files = [default_config(), arguments.configfile, override]
    # An NVIDIA driver, found without importing torch.
    has_gpu = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    return [
        sys.executable, "-m", "snakemake",
        "--snakefile", str(workflow / "Snakefile"),
        "--workflow-profile", str(workflow / "profiles" / "default"),
        "--configfile", *(str(file) for file in files if file),
        "--cores", str(arguments.cores),
        # The profile lets one job at a time claim the GPU. Without a driver, nothing is shared.
        *([] if has_gpu else ["--resources", f"gpu={arguments.cores}"]),
        "--nocolor",
        *(["--dry-run"] if arguments.dry_run else []),
        *arguments.snakemake,
    ]  # fmt: skip


class WorkflowProcess:
    """A run of Snakemake. As a context manager it ends the process if the block raises.

    Args:
        command: the Snakemake call.
        folder: temporary folder for the events and Snakemake's own output.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self.state = RunState()
        self._events = EventFile(folder / "events.jsonl")
        self._output = folder / "snakemake.txt"
        options = ["--logger", "indad", "--logger-indad-events", str(self._events.path)]
        with self._output.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                # Before the user's options: --configfile and others take several values.
                [*command[:3], *options, *command[3:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
            )

    def __enter__(self) -> WorkflowProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.poll() is None

    def read_events(self) -> list[Job]:
        """Update the state with the new events; return the jobs that were started."""
        return [job for event in self._events.read() if (job := self.state.apply(event))]

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        code = self._process.wait()
        self.read_events()
        return code

    def output(self) -> str:
        """Return what Snakemake and its jobs have written."""
        return self._output.read_text(encoding="utf-8", errors="replace")


def environment() -> dict[str, str]:
    """Return the environment for Snakemake and its jobs.

    In a checkout they must find its package and plugin, even if another version is installed.
    """
    paths = [str(PACKAGE.parent)] if is_checkout() else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
