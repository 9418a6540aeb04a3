"""More than ten thousand damaged files of every kind: each is refused, or harmless, or told apart.

What is refused ends in one of the project's errors. What is harmless reads as the very same values.
Formats without a checksum of their own (a bitmap, a state dict) may read as something else; then
the next stage refuses it by its hash. An interpreter that crashes or hangs fails here and names the
case.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

import fuzz
from conftest import ROOT

#: Most megabytes a damaged file may take: an image that states the most pixels read, as RGB.
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
