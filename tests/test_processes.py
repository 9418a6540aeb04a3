"""Signals that stop a run, and the cores that it may use: real processes, but no Snakemake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conftest import ROOT
from indad.core.cores import available_cores
from indad.pipeline import lock

#: Does what Snakemake does: has the lock, loads the plugin, starts a job that does not end by
#: itself, and stops after its jobs.
WORKFLOW = """
import pathlib, signal, subprocess, sys, threading
from snakemake_logger_plugin_indad import stop_after
from indad.pipeline import lock
folder = pathlib.Path(sys.argv[1])
lock.claim(folder / "results")
parent = int(sys.argv[sys.argv.index("--logger-indad-parent") + 1])
threading.Thread(target=stop_after, args=[parent], daemon=True).start()
ignore = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); "
with subprocess.Popen([sys.executable, "-c", ignore + "time.sleep(600)"], stdout=-1) as job:
    job.stdout.readline()
    (folder / "started").touch()
    try:
        job.wait()
    except KeyboardInterrupt:
        (folder / "asked").touch()
        job.wait()
"""
RUN = """
import pathlib, sys
from indad.cli import workflow
from indad.cli.workflow import StoppedError, WorkflowProcess
workflow.GRACE = 1.5  # as short as a busy machine allows
folder = pathlib.Path(sys.argv[1])
try:
    with WorkflowProcess([sys.executable, folder / "workflow.py", folder], folder) as process:
        process.wait()
except StoppedError as stopped:
    sys.exit(stopped.code)
"""


def start(
    folder: Path, *, nohup: bool = False
) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """Start a run; return it, and it with all that it has started."""

    def signals() -> None:  # the tests themselves may run in the background or with nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

    (folder / "workflow.py").write_text(WORKFLOW)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", RUN, str(folder)]
    process = subprocess.Popen(command, env=environment, preexec_fn=signals)
    wait_for((folder / "started").exists)
    own = psutil.Process(process.pid)
    return process, [own, *own.children(recursive=True)]


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != "zombie"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_whole_run(tmp_path, number):
    process, started = start(tmp_path)
    assert len(started) == 3
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert (tmp_path / "asked").exists()  # the workflow first
    assert not alive(started)
    lock.claim(tmp_path / "results")


def test_a_second_signal_does_not_wait(tmp_path):
    process, started = start(tmp_path)
    process.send_signal(signal.SIGINT)
    wait_for((tmp_path / "asked").exists)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not alive(started)
    assert time.monotonic() - asked < 60


def test_a_killed_run_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 60)  # on a busy machine the end takes longer
    process, started = start(tmp_path)
    process.kill()
    process.wait()
    lock.claim(tmp_path / "results")  # the next run
    wait_for(lambda: not alive(started))


def test_jobs_of_a_killed_workflow_are_stopped(tmp_path):
    process, started = start(tmp_path)
    started[1].kill()
    assert process.wait(timeout=60) == 0
    assert not alive(started)


def test_a_run_under_nohup_outlives_its_terminal(tmp_path):
    process, started = start(tmp_path, nohup=True)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not alive(started)


@pytest.mark.parametrize(
    ("groups", "limits", "cores"),
    [
        ("", {}, 8),
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "600000"}, 6),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1"}, 8),
        ("4:cpu:/docker/x\n3:memory:/y\n0::/", {"cpu/cpu.cfs_quota_us": "200000"}, 2),
    ],
)
def test_cores_obey_affinity_and_control_groups(tmp_path, monkeypatch, groups, limits, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(tmp_path) == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    assert available_cores(tmp_path) == 1
