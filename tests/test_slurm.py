"""The real workflow through a real Slurm of two nodes, which kills jobs and loses its head."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from slurm import cluster
from small_run import METRICS, SMALL

REASON = cluster.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

CHANGES = {
    "device": "auto",  # claims the GPU that one node says it has
    "run": {"datasets": ["drawn"], "experiments": ["PatchCore-10", "PatchCore-1"]},
    # Both use one model: each submission takes Snakemake and torch some seconds to start.
    "experiments": SMALL["experiments"]
    | {"PatchCore-1": SMALL["experiments"]["PatchCore-10"] | {"coreset_ratio": 0.01}},
}
#: For a Slurm without an accounting database.
OPTIONS = ["--slurm-status-command", "squeue", "--slurm-no-account"]
OPTIONS += ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20"]
#: Seconds to wait for what must come: many times what an idle machine takes.
PATIENCE = 500
PROFILE = ["--workflow-profile", str(ROOT / "workflow/profiles/slurm")]


class Head:
    """Snakemake as a user starts it on the head node, and the Slurm behind it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.log = folder / "head.log"

    def start(self, *options: str, snakefile: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "tests/slurm/head.py"), "-s", str(snakefile)]
        command += [*PROFILE, *OPTIONS, "--directory", str(self.folder), *options]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment | {"OMP_NUM_THREADS": "1"}
            )

    def run_workflow(self, *options: str) -> subprocess.Popen[bytes]:
        files = [str(ROOT / "config/config.yaml"), str(self.folder / "config.yaml")]
        options = (METRICS, *options, "--configfile", *files)
        return self.start(*options, snakefile=ROOT / "workflow/Snakefile")

    def queue(self, state: str) -> dict[str, str]:
        """Return the jobs in a state, id to comment, which names the rule or group."""
        done = subprocess.run(
            ["squeue", "--noheader", "-t", state, "-o", "%i %k"],
            env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def await_job(self, rule: str, process: subprocess.Popen[bytes]) -> str:
        """Return the id of a job of the rule once it runs."""

        def running() -> str | None:
            return next((i for i, name in self.queue("RUNNING").items() if rule in name), None)

        return eventually(running, f"a running job of {rule}", process, self.log)


def eventually(
    what: Callable[[], str | None], name: str, process: subprocess.Popen[bytes], log: Path
) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if found := what():
            return found
        time.sleep(0.2)
    pytest.fail(f"waited for {name}\n{log.read_text()[-4000:]}")


def wait(process: subprocess.Popen[bytes], log: Path) -> str:
    code = process.wait(timeout=PATIENCE)
    text = log.read_text()
    assert code == 0, text[-6000:]
    return text


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    with cluster.running(folder):
        yield folder


@pytest.fixture(scope="module")
def story(slurm, tmp_path_factory) -> dict:
    """Everything that can go wrong, in one run; what each test asks about."""
    environment = cluster.environment(slurm)
    remote, timed = (tmp_path_factory.mktemp(name) for name in ("remote", "timed"))
    config = SMALL | {"results": "results"} | CHANGES
    (remote / "config.yaml").write_text(yaml.safe_dump(config))

    # A job whose time runs out takes a minute: beside all else.
    patient = Head(timed, environment)
    waiting = patient.start(snakefile=ROOT / "tests/slurm/Snakefile")

    head = Head(remote, environment)
    # 400 MB do not hold torch; the second attempt asks for four times as much.
    starved = ["--set-resources", "extract:mem_mb=400*4**(attempt-1)"]
    first = head.run_workflow(*starved)
    cancelled = head.await_job("prepare", first)
    subprocess.run(["scancel", cancelled], env=environment, check=True)
    lost = head.await_job("fit", first)
    described = subprocess.run(
        ["scontrol", "show", "job", lost], env=environment, capture_output=True, text=True
    ).stdout
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = cluster.finished(slurm)
    features = remote / "results/features/drawn/wood/lite0.h5"
    stamp = features.stat().st_mtime_ns

    # Its lock is left behind, and its jobs run on.
    refused = head.run_workflow(*starved)
    assert refused.wait() != 0
    assert "Directory cannot be locked" in head.log.read_text()
    assert head.run_workflow("--unlock").wait() == 0
    second = head.run_workflow(*starved)
    text = wait(second, head.log)
    return {
        "remote": remote,
        "text": text,
        "cancelled": cancelled,
        "described": described,
        "before": before,
        "kept": features.stat().st_mtime_ns == stamp,
        "patient": (waiting, patient.log, timed),
        "jobs": cluster.finished(slurm),
        "slurm": slurm,
    }


def of_run(story: dict, *rules: str) -> list[dict[str, str]]:
    """Return the submissions of some rules or groups, in order; all if none is named."""
    log = story["text"]
    named = dict(
        re.findall(r"SLURM jobid (\d+) \(log: \S*/slurm_logs/(?:rule|group)_([a-z]+)", log)
    )
    own = [job for job in story["jobs"] if job["WorkDir"] == str(story["remote"])]
    assert {job["JobId"] for job in own} == set(named)
    return [job for job in own if not rules or named[job["JobId"]] in rules]


def test_metrics_are_those_of_the_local_run(story, finished):
    for name in ("scores/drawn/wood/{}/seed0/scores.csv", "metrics/drawn/wood/{}/seed0.csv"):
        local, remote = (
            folder / "results" / name.format("PatchCore-10")
            for folder in (finished, story["remote"])
        )
        assert remote.read_text() == local.read_text(), name
    assert (story["remote"] / "results/metrics.csv").exists()


def test_both_nodes_worked_on_it(story):
    nodes = cluster.nodes(story["slurm"])
    if len(nodes) < 2:
        pytest.skip("one node only: no network namespaces can be made here")
    assert {job["NodeList"] for job in of_run(story)} == set(nodes) == {"indad-a", "indad-b"}
    # What one node writes, the other reads, and back.
    assert {job["NodeList"] for job in of_run(story, "prepare", "measure")} == {"indad-b"}
    assert {job["NodeList"] for job in of_run(story, "extract", "fit", "score")} == {"indad-a"}


def test_a_cancelled_job_is_tried_again(story):
    cancelled, retried = of_run(story, "prepare")
    assert (cancelled["JobId"], cancelled["JobState"]) == (story["cancelled"], "CANCELLED")
    assert "mem=1500M" in cancelled["Tres"]
    assert retried["JobState"] == "COMPLETED"
    assert "mem=3000M" in retried["Tres"]


def test_a_job_out_of_memory_is_tried_again_with_more(story):
    starved, *retried = of_run(story, "extract")
    assert "mem=400M" in starved["Tres"]
    assert starved["JobState"] != "COMPLETED"
    assert "mem=1600M" in retried[0]["Tres"]
    assert [job["JobState"] for job in retried] == ["COMPLETED"]


def test_a_job_out_of_time_is_tried_again_with_more(story):
    process, log, folder = story["patient"]
    text = wait(process, log)
    assert "SLURM status is: 'TIMEOUT'" in text
    assert (folder / "patient.txt").read_text().strip() == "2"


def test_jobs_that_claim_the_gpu_never_overlap(story):
    assert "gpu:1" in story["described"]
    claims = of_run(story, "extract", "fit", "score")
    assert len(claims) >= 5  # two attempts to extract, a fit, two scores
    spans = sorted((seconds(job["StartTime"]), seconds(job["EndTime"])) for job in claims)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_small_jobs_go_out_as_one_submission(story):
    """Index with decode, and both evaluations: 2 submissions for 4 jobs."""
    assert [job["JobState"] for job in of_run(story, "prepare")] == ["CANCELLED", "COMPLETED"]
    assert [job["JobState"] for job in of_run(story, "measure")] == ["COMPLETED"]
    benchmarks = story["remote"] / "results/benchmarks"
    rules = ("index", "decode", "evaluate")
    assert sum(len(list((benchmarks / rule).rglob("*.tsv"))) for rule in rules) == 4


def test_a_killed_head_goes_on_where_it_was(story):
    assert "unlock" in story["text"].lower()
    assert story["kept"], "the features were made again"
    assert not [path for path in (story["remote"] / "results").rglob("*") if ".tmp" in path.name]
