"""Starting Snakemake, and following it through the events that the logger plugin writes."""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from indad.cli.events import EventFile, Job, RunState
from indad.core.atomic import process_exists
from indad.core.paths import PACKAGE, is_checkout, project_root
from indad.pipeline.config_files import default_config


def snakemake_command(arguments: argparse.Namespace, override: Path) -> list[str]:
    """Return the Snakemake call for a command line and the file of its settings."""
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


#: Seconds that a program gets to end its jobs itself, and then jobs get to end. Containers are
#: killed ten seconds after they were asked to stop.
GRACE = 3.0
#: Signals that stop a run.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """A signal asks to stop; ``code`` is the exit code of a program that a signal ends."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class WorkflowProcess:
    """A run of Snakemake. As a context manager it stops the whole run if the block raises.

    Within the block, the signals of ``STOPPING`` raise `StoppedError`. Snakemake leads a group of
    processes of its own, so that a signal from the terminal reaches it and its jobs in order.

    Args:
        command: the Snakemake call.
        folder: temporary folder for the events and Snakemake's own output.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self.state = RunState()
        self._events = EventFile(folder / "events.jsonl")
        self._output = folder / "snakemake.txt"
        options = ["--logger", "indad", "--logger-indad-events", str(self._events.path)]
        # If this process is killed, the plugin stops the run.
        options += ["--logger-indad-parent", str(os.getpid())]
        # Before the user's options: --configfile and others take several values.
        self._command = [*command[:3], *options, *command[3:]]
        self._environment = environment(folder)
        self._handlers: dict[int, Any] = {}
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        for number in STOPPING:
            self._handlers[number] = signal.getsignal(number)
            # nohup lets a run continue when the terminal is closed.
            if number != signal.SIGHUP or self._handlers[number] != signal.SIG_IGN:
                signal.signal(number, _raise_stopped)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspend)
        with self._output.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        for number in STOPPING:
            signal.signal(number, self._kill)
        code = self._process.poll()
        if code is None or code < 0:  # it runs, or was killed and may have left jobs
            stop_group(self._process.pid, lambda: self._process.poll() is not None)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _kill(self, *_: object) -> None:
        """Stop at once: a second signal has come."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _suspend(self, *_: object) -> None:
        """Suspend the run with this process (Ctrl-Z), until both are continued."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.killpg(self._process.pid, signal.SIGCONT)

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


def stop_group(leader: int, ended: Callable[[], bool]) -> None:
    """Stop a program and its process group: the program first, the rest after a grace period.

    Args:
        leader: the program, a process that leads a group of its own.
        ended: whether it has ended; called until it has.
    """
    if not ended():
        os.kill(leader, signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if ended() and not process_exists(-leader):
                return
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)
    ended()


def _raise_stopped(number: int, _: object) -> None:
    raise StoppedError(number)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment for Snakemake and its jobs.

    In a checkout they must find its package and plugin, even if another version is installed.

    Args:
        folder: temporary folder for caches, used if the usual one cannot be written.
    """
    paths = [str(PACKAGE.parent)] if is_checkout() else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if unwritable_cache():
        variables |= {"XDG_CACHE_HOME": str(folder), "MPLCONFIGDIR": str(folder / "matplotlib")}
    return os.environ | variables


def unwritable_cache() -> str:
    """Return why Snakemake, matplotlib and timm cannot write their caches; "" if they can."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return ""
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        return str(error)
