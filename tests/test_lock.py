"""One run at a time in a results folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from conftest import ROOT
from indad.core import atomic
from indad.core.errors import ConfigError
from indad.pipeline import lock

CLAIM = (
    "import sys; from pathlib import Path; from indad.pipeline import lock; "
    "lock.claim(Path(sys.argv[1]))"
)


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """Release the locks of a test when it ends."""
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


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    class Unsupported(filelock.FileLock):
        def acquire(self, *_: object, **__: object) -> None:
            raise OSError("Function not implemented")

    monkeypatch.setattr(filelock, "FileLock", Unsupported)
    lock.claim(tmp_path)
    assert f"{tmp_path}: this file system has no locks (Function not implemented)" in caplog.text
