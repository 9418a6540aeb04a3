"""One run at a time in a results folder; two hosts whose file locks do not reach each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Unreached:
    """A lock that no other host sees."""

    def __init__(self, *_: object, **__: object) -> None:
        self.held = 0

    def acquire(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


@pytest.fixture
def claim_as(monkeypatch, tmp_path) -> Callable[[str], Path]:
    """Give a function that starts a run on a host and returns the host's file."""
    monkeypatch.setattr(filelock, "FileLock", Unreached)
    monkeypatch.setattr(lock, "_held", [])

    def claim(host: str) -> Path:
        monkeypatch.setattr(atomic, "HOST", host)
        lock.claim(tmp_path / "results")
        return tmp_path / f"results/.run.{host}.json"

    return claim


def age(file: Path, seconds: float) -> None:
    moment = file.stat().st_mtime - seconds
    os.utime(file, (moment, moment))


def process(code: str, results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(results)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_run_of_another_host_keeps_the_folder(claim_as, monkeypatch):
    first = claim_as("alpha")
    age(first, 30)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # whatever this host's clock says
    with pytest.raises(ConfigError) as refused:
        claim_as("beta")
    said = str(refused.value)
    assert f"another run has the folder {first.parent}" in said
    assert f'"host": "alpha", "process": {os.getpid()}' in said
    assert (
        f"last showed life 30 s ago: if you know that it is dead, wait 60 s or delete {first}"
        in (said)
    )
    # Nothing stays of the one that was refused: it would keep the first from starting again.
    assert list(first.parent.glob(".run.*")) == [first]
    assert claim_as("alpha") == first


def test_a_run_that_shows_no_life_any_more_gives_way(claim_as):
    first = claim_as("alpha")
    age(first, lock.SILENCE + 1)
    second = claim_as("beta")
    assert json.loads(second.read_text())["host"] == "beta"
    with pytest.raises(ConfigError, match='"host": "beta"'):
        claim_as("alpha")


def test_of_two_that_start_at_once_one_is_refused(claim_as, monkeypatch):
    """The second starts when the first has told of itself and has not looked yet."""
    look, refused = lock._runs, []

    def meanwhile(results: Path) -> dict[Path, tuple[float, str]]:
        monkeypatch.setattr(lock, "_runs", look)
        with pytest.raises(ConfigError) as error:
            claim_as("beta")
        refused.append(str(error.value))
        return look(results)

    monkeypatch.setattr(lock, "_runs", meanwhile)
    first = claim_as("alpha")
    assert '"host": "alpha"' in refused[0]
    assert list(first.parent.glob(".run.*")) == [first]


def test_a_host_whose_file_cannot_be_read_is_taken_to_live(claim_as, monkeypatch):
    """A network file system may list a file and still remember that it was missing."""
    first = claim_as("alpha")
    opened = Path.open

    def remembered(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == first:
            raise FileNotFoundError(path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", remembered)
    with pytest.raises(ConfigError, match=r"by \.run\.alpha\.json"):
        claim_as("beta")


def test_a_run_shows_life_and_does_not_bring_back_what_was_removed(claim_as, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    file = claim_as("alpha")
    text = file.read_text()
    age(file, 1000)
    aged, until = file.stat().st_mtime, time.monotonic() + 10
    while file.stat().st_mtime == aged and time.monotonic() < until:
        time.sleep(0.01)
    assert file.stat().st_mtime > aged + 900
    assert file.read_text() == text
    file.unlink()
    time.sleep(0.1)
    assert not file.exists()


def test_a_run_withdraws_at_its_end_and_its_forks_do_not(tmp_path):
    started = time.monotonic()
    with process(
        f"{CLAIM}\nimport os\nif os.fork() == 0: sys.exit()\n"
        f"os.wait(); print(*Path(sys.argv[1]).glob('.run.*'))",
        tmp_path,
    ) as run:
        said, _ = run.communicate()
    assert run.returncode == 0
    assert said.strip() == str(tmp_path / f".run.{atomic.HOST}.json")
    assert not list(tmp_path.glob(".run.*"))
    assert time.monotonic() - started < lock.BEAT  # nothing waits for the next beat


def test_on_one_host_a_killed_run_is_in_nobodys_way(tmp_path):
    with process(f"{CLAIM}\nprint('held', flush=True); sys.stdin.read()", tmp_path) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with process(CLAIM, tmp_path) as second:
            _, said = second.communicate()
        assert f'another run has the folder {tmp_path} (by {{ "directory"' in said
        assert f'"process": {first.pid} }}' in said
        first.kill()
    assert list(tmp_path.glob(".run.*"))
    with process(CLAIM, tmp_path) as third:
        third.communicate()
    assert third.returncode == 0


def test_a_file_system_without_locks_is_said_and_the_beat_counts(claim_as, monkeypatch, caplog):
    def refuse(_: Unreached) -> None:
        raise OSError("Function not implemented")

    monkeypatch.setattr(Unreached, "acquire", refuse)
    claim_as("alpha")
    assert "cannot be locked on this file system" in caplog.text
    with pytest.raises(ConfigError, match="last showed life"):
        claim_as("beta")
