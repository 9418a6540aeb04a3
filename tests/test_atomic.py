"""Products are whole or absent."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from conftest import ROOT
from indad.core import atomic


def test_a_file_appears_at_the_end_only(tmp_path):
    path = tmp_path / "sub" / "x.csv"
    with atomic.replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".")
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["x.csv"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_keeps_what_was_there(tmp_path, folder):
    path = tmp_path / "x"
    path.write_text("old")

    def fail():
        with atomic.replacing(path) as temporary:
            if folder:
                temporary.mkdir()
                (temporary / "half").write_text("half")
            else:
                temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "x"
    path.mkdir()
    (path / "old").touch()
    with atomic.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [p.name for p in path.iterdir()] == ["new"]


def test_what_a_killed_process_left_is_removed_by_the_next_try(tmp_path):
    path = tmp_path / "x.csv"
    script = f"""
import os, signal
from indad.core import atomic
with atomic.replacing({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "scripts")}
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = [tmp_path / ".x.elsewhere-1-01234567.tmp.csv", tmp_path / ".xy.h-1-01234567.tmp.csv"]
    for other in others:
        other.touch()
    with atomic.replacing(path) as temporary:
        assert not left.exists()
        temporary.write_text("whole")
        with atomic.replacing(path) as second:  # a living process's is left alone
            second.write_text("other")
        assert temporary.exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert path.read_text() == "whole"
