"""Products are whole or absent."""

from __future__ import annotations

import pytest

from indad import atomic


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
