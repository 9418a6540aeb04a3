"""Faults of real machines: killed jobs, full disks, damaged files.

After every fault the next run must recover without more clean-up than the message says, report no
wrong figure, and keep finished products. Metrics after a fault equal those of an undisturbed run to
the byte. The runs go up to metrics.csv. The summary counts the faults.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from test_workflow import METRICS, command, snakemake

pytestmark = pytest.mark.slow

LAYERS = {"layers": ["blocks.1", "blocks.2"], "embedding": "blocks.2", "resize": 64, "crop": 64}
TINY: dict[str, Any] = {
    "run": {"datasets": ["drawn"], "experiments": ["SPADE", "PaDiM", "PatchCore-10"]},
    "datasets": {
        "drawn": {
            "categories": ["wood"],
            "options": {"train": 8, "good": 3, "per_defect": 2, "size": 64},
        }
    },
    "extractors": {"lite0": LAYERS},
    "experiments": {
        "SPADE": {"method": "spade", "extractor": "lite0", "k_image": 3, "k_pixel": 3},
        "PaDiM": {"method": "padim", "extractor": "lite0", "dimensions": 9},
        "PatchCore-10": {
            "method": "patchcore",
            "extractor": "lite0",
            "layers": ["blocks.1", "blocks.2"],
            "embedding": "concat",
        },
    },
}
PRODUCTS = ("metrics.csv", "scores/drawn/wood/*/seed0/scores.csv")

#: Faults injected, by kind: printed at the end (``pytest -rP``, and in the terminal summary).
COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def counted(request):
    yield
    lines = [f"  {count:4d}  {kind}" for kind, count in sorted(COUNTS.items())]
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and lines:
        total = f"  {sum(COUNTS.values()):4d}  faults injected and survived"
        reporter.write_line("\n" + "\n".join([*lines, total]))


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    done = run_tiny(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def run_tiny(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return snakemake(folder, *(arguments or [METRICS]), **TINY)


def figures(folder: Path) -> dict[str, bytes]:
    results = folder / "results"
    found = [path for pattern in PRODUCTS for path in results.glob(pattern)]
    return {str(path.relative_to(results)): path.read_bytes() for path in found}


def times(folder: Path) -> dict[Path, int]:
    """Return when each product was finished, without logs and run-time records."""
    results = folder / "results"
    return {
        path: path.stat().st_mtime_ns
        for path in results.rglob("*")
        if path.is_file()
        and path.relative_to(results).parts[0] not in ("logs", "benchmarks", "settings")
        and not path.name.startswith(".")
    }


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


#: Products made from the scores.
RESULTS = ("metrics", "metrics.csv", "tables", "provenance.json")


def forget(folder: Path, *products: str | Path) -> None:
    for product in products:
        path = folder / "results" / product
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


# -- killed ---------------------------------------------------------------------------------------


#: How often the workflow is killed before it may finish.
KILLS = 6


def job_started(folder: Path, since: int) -> bool:
    """Return whether a job has written to its log after ``since``, in nanoseconds."""
    logs = (folder / "results/logs").rglob("*.log")
    return any(path.stat().st_mtime_ns > since for path in logs)


def test_killed_at_random_moments(reference, tmp_path):
    """SIGKILL to the workflow and all its jobs: first while it plans, then while jobs run."""
    moments = Random(0)
    kept: dict[Path, int] = {}
    for attempt in range(KILLS + 1):
        start = time.time_ns()
        running = subprocess.Popen(
            command(tmp_path, METRICS, **TINY),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if attempt < KILLS:
            while attempt and running.poll() is None and not job_started(tmp_path, start):
                time.sleep(0.02)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(moments.uniform(0.1, 4))
        if attempt == KILLS or running.poll() is not None:
            assert running.wait() == 0
            break
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        COUNTS["workflow and jobs killed (SIGKILL)"] += 1
        # A job that was killed between its rename and Snakemake's note of it runs again.
        incomplete = {
            path.name for path in (tmp_path / ".snakemake/incomplete").glob("*") if path.is_file()
        }
        finished = times(tmp_path)
        if not incomplete:
            for path, moment in kept.items():
                assert finished[path] == moment, f"{path} was finished and made again"
            kept = finished
    assert COUNTS["workflow and jobs killed (SIGKILL)"] >= 3
    assert figures(tmp_path) == figures(reference)
    leftovers = list((tmp_path / "results").rglob(".*.tmp*"))
    assert not leftovers


def test_a_killed_job_fails_the_run_and_the_next_goes_on(reference, tmp_path):
    """The job alone is killed, as by a node's out-of-memory killer."""
    shutil.copytree(reference, tmp_path / "run")
    run = tmp_path / "run"
    forget(run, next(run.glob("results/models/drawn/wood/padim*")), "scores/drawn/wood/PaDiM")
    forget(run, "metrics/drawn/wood/PaDiM", "metrics.csv")
    running = subprocess.Popen(
        command(run, METRICS, **TINY), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    killed = False
    while running.poll() is None and not killed:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if any(word.endswith(b"fit.py") and str(run).encode() in b" ".join(words)
                       for word in words):  # fmt: skip
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    killed = True
        time.sleep(0.02)
    output, _ = running.communicate()
    assert killed
    assert running.returncode != 0, output[-2000:]
    COUNTS["one job killed (SIGKILL)"] += 1
    assert run_tiny(run).returncode == 0
    assert figures(run) == figures(reference)


def test_two_workflows_in_one_folder(reference, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    forget(run, "scores", ".run.json", *RESULTS)
    first = subprocess.Popen(
        command(run, METRICS, **TINY), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while not list(run.glob("results/.run.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = run_tiny(run)
    COUNTS["second workflow in the same folder"] += 1
    output, _ = first.communicate()
    assert second.returncode != 0
    assert "another run" in said(second)
    assert first.returncode == 0, output[-2000:]
    assert figures(run) == figures(reference)


# -- disks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk of its own can only be mounted as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_read_only_and_a_full_disk_are_reported_and_survived(reference, tmp_path):
    disk = tmp_path / "results"
    with small_disk(disk, "1100k"):
        remount(disk, "ro")
        failed = run_tiny(tmp_path)
        COUNTS["read-only results folder"] += 1
        assert failed.returncode != 0
        assert "the file system is read-only; choose another 'results' folder" in said(failed)
        assert "Traceback (most recent call last)" not in said(failed)

        remount(disk, "rw")
        failed = run_tiny(tmp_path)
        COUNTS["disk full"] += 1
        assert failed.returncode != 0
        assert re.search("the disk is full.*; free some space, then run again", said(failed))
        kept = times(tmp_path)
        assert kept

        remount(disk, "size=200M")
        assert run_tiny(tmp_path).returncode == 0
        assert figures(tmp_path) == figures(reference)
        after = times(tmp_path)
        assert all(after[path] == moment for path, moment in kept.items() if path in after)


# -- damaged files --------------------------------------------------------------------------------

#: Products from the last to the first: with those before gone, each is what a run reads next.
DAMAGED = (
    ("scores/drawn/wood/PaDiM/seed0/scores.csv", "bit flipped"),
    ("scores/drawn/wood/SPADE/seed0/maps.h5", "truncated"),
    ("models/drawn/wood/padim*/seed0.safetensors", "bit flipped"),
    ("features/drawn/wood/lite0.h5", "truncated"),
    ("pixels/drawn/wood/64-64.h5", "bit flipped"),
    ("manifests/drawn/wood.csv", "bit flipped"),
)


def damage(path: Path, kind: str, random: Random) -> None:
    """Cut a file off, or flip one of its bits, as storage does: its time stays."""
    content, status = bytearray(path.read_bytes()), path.stat()
    if kind == "truncated":
        del content[random.randrange(1, len(content)) :]
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_damaged_products_are_named_and_made_again(reference, tmp_path):
    """One after the other, and each time what the message says is done: the file deleted."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    random = Random(1)
    for pattern, kind in DAMAGED:
        # Results made from undamaged files stay valid, so they are removed first.
        forget(run, *RESULTS)
        (path,) = (run / "results").glob(pattern)
        if path.suffix == ".safetensors":
            forget(run, "scores")
        if path.name == "lite0.h5":
            forget(run, "models")
        damage(path, kind, random)
        COUNTS[f"product {kind}"] += 1
        failed = run_tiny(run)
        assert failed.returncode != 0, pattern
        told = [line for line in said(failed).splitlines() if line.startswith("indad: ")]
        assert any(path.name in line and "delete" in line for line in told), said(failed)[-3000:]
        assert "Traceback" not in said(failed)
        assert not (run / "results/metrics.csv").exists()
        path.unlink()
    assert run_tiny(run).returncode == 0
    assert figures(run) == figures(reference)


def test_a_bit_flipped_in_an_image_is_noticed(reference, tmp_path):
    """The file's time and size are as they were, so only its hash tells."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    image = run / "results/data/drawn/wood/train/good/000.png"
    content, status = bytearray(image.read_bytes()), image.stat()
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    COUNTS["image bit flipped"] += 1
    (run / "results/pixels/drawn/wood/64-64.h5").unlink()
    failed = run_tiny(run, "--forcerun", "decode", "--until", "decode")
    assert failed.returncode != 0
    assert "train/good/000.png" in said(failed)
    assert figures(run) == figures(reference)
