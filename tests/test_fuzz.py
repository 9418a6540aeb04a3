"""More than ten thousand damaged files of every kind: each is refused, harmless or noticed later.

A refused file gives one of the project's errors. A harmless change leaves all values the same.
Formats without a checksum (a bitmap, a state dict) may be read with other content; then the next
stage refuses it by its hash. If the interpreter crashes or hangs, the test fails and names it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

import fuzz
from conftest import ROOT

#: Most memory for reading a damaged file, in megabytes: an RGB image of the most pixels allowed.
MOST_MB = 900


@pytest.mark.slow
@pytest.mark.parametrize("group", fuzz.GROUPS)
def test_damaged_files_are_refused(group, tmp_path, capsys):
    command = [sys.executable, str(ROOT / "tests/fuzz.py"), group, str(tmp_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs at {(tmp_path / 'case').read_text()}")
    case = (tmp_path / "case").read_text() if (tmp_path / "case").exists() else "the start"
    assert done.returncode == 0, f"died at {case}\n{done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        for reader, counts in found["counts"].items():
            print(
                f"\n  {reader}: {', '.join(f'{n} {k}' for k, n in sorted(counts.items()))}", end=""
            )
    assert not found["failures"], "\n".join(found["failures"][:20])
    assert found["grown_mb"] < MOST_MB
    total = sum((Counter(each) for each in found["counts"].values()), Counter())
    assert total["refused"] > total.total() / 2
