"""Faults of real machines: killed jobs, full disks, damaged files.

After every fault the next run must recover without more clean-up than the message says, report no
wrong figure, and keep finished products. What is made after a fault equals the products of an
undisturbed run to the byte. The summary counts the faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from conftest import make_job
from indad.core.errors import IndadError
from small_run import METRICS, SMALL, command, fail, succeed

pytestmark = pytest.mark.slow

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


#: What a run of the drawn category alone is compared by: of `finished`, whose tables have two.
KINDS = ("manifests", "pixels", "features", "models", "scores", "metrics")
DRAWN = {"datasets": ["drawn"], "experiments": SMALL["run"]["experiments"][::-1]}


def products(folder: Path) -> dict[str, bytes]:
    """Return the content of all products of the drawn category, up to its metrics."""
    results = folder / "results"
    found = (path for kind in KINDS for path in (results / kind / "drawn").rglob("*.*"))
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


def copy(finished: Path, folder: Path, *left_out: str) -> Path:
    """Copy the drawn category of a finished run, without its tables and some products."""
    shutil.copytree(finished, folder)
    for product in ("metrics.csv", "tables", "provenance.json", *left_out):
        (path,) = (folder / "results").glob(product)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


# -- killed ---------------------------------------------------------------------------------------


#: How often the workflow is killed before it may finish.
KILLS = 3


def job_started(folder: Path, since: int) -> bool:
    """Return whether a job has written to its log after ``since``, in nanoseconds."""
    logs = (folder / "results/logs").rglob("*.log")
    return any(path.stat().st_mtime_ns > since for path in logs)


def test_killed_at_random_moments(finished, tmp_path):
    """SIGKILL to the workflow and all its jobs: first while it plans, then while jobs run.

    The result is that of an undisturbed run to the byte, although more jobs run at once, with more
    threads each, and in another order.
    """
    moments = Random(0)
    run = DRAWN | {"experiments": ["PatchCore-10", "SPADE"]}
    kept: dict[Path, int] = {}
    for attempt in range(KILLS + 1):
        start = time.time_ns()
        running = subprocess.Popen(
            command(tmp_path, METRICS, cores=9, threads=8, run=run),
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
        done = times(tmp_path)
        if not incomplete:
            for path, moment in kept.items():
                assert done[path] == moment, f"{path} was finished and made again"
            kept = done
    assert COUNTS["workflow and jobs killed (SIGKILL)"] >= 2
    undisturbed = products(finished).items()
    assert products(tmp_path) == {k: v for k, v in undisturbed if "padim" not in k.lower()}
    assert not list((tmp_path / "results").rglob(".*.tmp*"))


def test_a_killed_job_fails_the_run_and_the_next_goes_on(finished, tmp_path):
    """The job alone is killed, as by a node's out-of-memory killer."""
    model = "models/drawn/wood/padim*"
    run = copy(finished, tmp_path / "run", model, "scores/drawn/wood/PaDiM")
    target = "results/scores/drawn/wood/PaDiM/seed0/scores.csv"
    running = subprocess.Popen(
        command(run, target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
    succeed(run, target)
    assert products(run) == products(finished)


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


def test_a_read_only_and_a_full_disk_are_reported_and_survived(finished, tmp_path):
    disk = tmp_path / "results"
    (pixels,) = (finished / "results/pixels/drawn/wood").glob("*.h5")
    target = f"results/pixels/drawn/wood/{pixels.name}"
    with small_disk(disk, "1000k"):
        remount(disk, "ro")
        message = fail(tmp_path, target)
        COUNTS["read-only results folder"] += 1
        assert "the file system is read-only; choose another 'results' folder" in message

        remount(disk, "rw")
        message = fail(tmp_path, target)
        COUNTS["disk full"] += 1
        assert re.search("the disk is full.*; free some space, then run again", message)
        kept = times(tmp_path)
        assert kept

        remount(disk, "size=200M")
        succeed(tmp_path, target)
        sound = products(finished)
        made = products(tmp_path)
        assert {name.split("/")[0] for name in made} == {"manifests", "pixels"}
        assert all(content == sound[name] for name, content in made.items())
        after = times(tmp_path)
        assert all(after[path] == moment for path, moment in kept.items() if path in after)


# -- damaged files --------------------------------------------------------------------------------

#: The products that the job of a rule reads first, by the names of its inputs.
READS = {
    "decode": {"manifest": "manifests/drawn/wood.csv"},
    "extract": {"manifest": "manifests/drawn/wood.csv", "pixels": "pixels/drawn/wood/*.h5"},
    "fit": {"features": "features/drawn/wood/lite0.h5", "manifest": "manifests/drawn/wood.csv"},
    "score": {
        "features": "features/drawn/wood/lite0.h5",
        "model": "models/drawn/wood/padim*/seed0.safetensors",
    },
    "evaluate": {
        "manifest": "manifests/drawn/wood.csv",
        "table": "scores/drawn/wood/PaDiM/seed0/scores.csv",
        "maps": "scores/drawn/wood/PaDiM/seed0/maps.h5",
        "pixels": "pixels/drawn/wood/*.h5",
    },
}


def damage(path: Path, kind: str, random: Random) -> None:
    """Cut a file off, or flip one of its bits, as storage does: its time stays."""
    content, status = bytearray(path.read_bytes()), path.stat()
    if kind == "truncated":
        del content[random.randrange(1, len(content)) :]
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def run_job(rule: str, results: Path, folder: Path) -> None:
    """Run the script of a rule in this process, with the settings of its finished job."""
    (record, *_) = (results / "records" / rule / "drawn").rglob("*.json")
    recorded = json.loads(record.read_text())
    inputs = {name: str(next(results.glob(each))) for name, each in READS[rule].items()}
    job = make_job(
        input=inputs,
        settings=recorded["settings"],
        params={"folder": str(results / "data/drawn/wood"), "one_size": []},
        wildcards=recorded["wildcards"],
    )
    outputs = ("pixels", "features", "model", "table", "metrics")
    job.output = SimpleNamespace(**{name: str(folder / name) for name in outputs})
    import_module(rule).main(job)


@pytest.mark.parametrize(
    ("rule", "name", "kind"),
    [
        ("decode", "manifests/drawn/wood.csv", "bit flipped"),
        ("decode", "data/drawn/wood/train/good/000.png", "bit flipped"),
        ("extract", "pixels/drawn/wood/*.h5", "bit flipped"),
        ("fit", "features/drawn/wood/lite0.h5", "truncated"),
        ("score", "models/drawn/wood/padim*/seed0.safetensors", "bit flipped"),
        ("evaluate", "scores/drawn/wood/PaDiM/seed0/scores.csv", "bit flipped"),
        ("evaluate", "scores/drawn/wood/PaDiM/seed0/maps.h5", "truncated"),
    ],
)
def test_a_damaged_product_is_named_by_the_job_that_reads_it(finished, tmp_path, rule, name, kind):
    """Its time and size may be as they were, so only its hash tells."""
    (path,) = (finished / "results").glob(name)
    sound, status = path.read_bytes(), path.stat()
    damage(path, kind, Random(1))
    COUNTS[f"product {kind}"] += 1
    try:
        with pytest.raises(IndadError) as refused:
            run_job(rule, finished / "results", tmp_path)
    finally:
        path.write_bytes(sound)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.name in str(refused.value)
    assert "data" in name or "delete" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_damaged_products_are_named_and_made_again(finished, tmp_path):
    """What the message says is done: the files deleted."""
    made_again = [f"metrics/drawn/wood/{name}" for name in ("PaDiM", "SPADE")]
    run = copy(finished, tmp_path / "run", *made_again)
    damaged = (("PaDiM/seed0/scores.csv", "bit flipped"), ("SPADE/seed0/maps.h5", "truncated"))
    paths = [run / "results/scores/drawn/wood" / name for name, _ in damaged]
    for path, (_, kind) in zip(paths, damaged, strict=True):
        damage(path, kind, Random(1))
        COUNTS[f"product {kind}"] += 1
    target = [f"results/{folder}/seed0.csv" for folder in made_again]
    message = fail(run, *target, "--keep-going")
    told = [line for line in message.splitlines() if line.startswith("indad: ")]
    for path in paths:
        assert any(path.name in line and "delete" in line for line in told), message[-3000:]
        path.unlink()
    assert not any((run / name).exists() for name in target)
    succeed(run, *target)
    assert products(run) == products(finished)
