"""One run at a time in a results folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from conftest import ROOT
from indad.core import atomic, checksum
from indad.core.errors import ConfigError, DataError
from indad.data.public import archives
from indad.pipeline import lock

CLAIM = (
    "import sys; from pathlib import Path; from indad.pipeline import lock; "
    "lock.claim(Path(sys.argv[1]))"
)


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """Release the locks of a test when it ends; wait for none."""
    monkeypatch.setattr(lock, "PATIENCE", 0)
    monkeypatch.setattr(lock, "_held", [])


def process(code: str, results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(results)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    with process(f"{CLAIM}\nprint('held', flush=True); sys.stdin.read()", tmp_path) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(ConfigError) as refused:
            lock.claim(tmp_path)
        first.kill()
    message = str(refused.value)
    assert f"another run uses the folder {tmp_path} ({{ " in message
    for key, value in ("host", atomic.HOST), ("process", first.pid), ("directory", str(Path.cwd())):
        assert f'"{key}": {json.dumps(value)}' in message
    lock.claim(tmp_path)
    assert json.loads((tmp_path / ".run.json").read_text())["process"] == os.getpid()


def test_a_run_that_has_just_started(tmp_path):
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match="just started"):
        lock.claim(tmp_path)


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_run_without_locks_is_warned_of_a_second_one(tmp_path, no_locks):
    warning = lock.claim(tmp_path)
    assert f"{tmp_path}: this file system has no locks ([Errno 37] No locks available)" in warning
    assert "set 'results' to a folder on another file system" in warning


def test_archives_need_locks(tmp_path, no_locks):
    message = "No locks available.; set 'downloads' to a folder"
    with pytest.raises(DataError, match=message), archives._locked(tmp_path):
        pass


def test_hdf5_files_need_no_locks(tmp_path):
    """Another process that holds HDF5's lock is no reason to wait or to fail."""
    path = tmp_path / "a.h5"
    with checksum.create_hdf5(path, "maps", 1) as file:
        file["a"] = 1
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with checksum.open_hdf5(path, "maps", 1, "file") as file:
            assert file["a"][()] == 1
