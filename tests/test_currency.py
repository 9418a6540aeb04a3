"""What is current is decided by records and digests, whatever the times and the folder."""

from __future__ import annotations

import json
import os
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import Named, make_job
from indad.core import atomic
from indad.pipeline.config import Config
from indad.pipeline.config_files import load_config, merged
from indad.pipeline.currency import Planner, job_name
from indad.pipeline.job import write_record
from indad.pipeline.settings import job_settings
from small_run import SMALL

RUN = {"dataset": "d", "category": "c", "experiment": "E", "seed": "0"}
#: Rule, what it reads and what it writes.
CHAIN = (("score", "model.txt", "scores.csv"), ("evaluate", "scores.csv", "metrics.csv"))
clock = count(1_000_000_000, 10)


def finish(results: Path, rule: str, source: str, product: str, settings: dict) -> None:
    """Do what a job does: write its product, and its record last."""
    (results / product).write_text(f"{rule} of {(results / source).read_text()}")
    record = results / "records" / f"{job_name(rule, RUN)}.json"
    job = make_job(
        input={"source": str(results / source)},
        output={"product": str(results / product), "record": str(record)},
        settings=settings,
        wildcards=RUN,
        config={"results": str(results)},
    )
    write_record(SimpleNamespace(**vars(job), scriptdir=str(results / "scripts")), {}, 1.0)
    for path in (results / product, record):
        set_time(path)


def set_time(path: Path, time: int | None = None) -> None:
    time = time or next(clock)
    os.utime(path, (time, time))


@pytest.fixture
def results(tmp_path) -> Path:
    """Two finished jobs, one after the other."""
    folder = tmp_path / "results"
    (folder / "scripts").mkdir(parents=True)
    for rule, source, product in CHAIN:
        (folder / "scripts" / f"{rule}.py").write_text(rule)
        set_time(folder / "scripts" / f"{rule}.py")
        if source == "model.txt":
            (folder / source).write_text("model")
            set_time(folder / source)
        finish(folder, rule, source, product, {"k": 5})
    return folder


def outdated(results: Path, settings: dict | None = None) -> list[str]:
    """Return the rules that Snakemake would run by the times of files alone."""
    planner = Planner(results, results / "scripts")
    found = []
    for rule, source, product in CHAIN:
        name = job_name(rule, RUN)
        file = Path(planner.settings_file(name, (settings or {}).get(rule, {"k": 5})))
        record = results / "records" / f"{name}.json"
        oldest = min(path.stat().st_mtime for path in (results / product, record))
        newest = max(path.stat().st_mtime for path in (results / source, file))
        script = results / "scripts" / f"{rule}.py"
        if newest > oldest or script.stat().st_mtime >= oldest:
            found.append(rule)
    return found


def test_the_name_of_a_job_is_that_of_its_files():
    assert job_name("score", RUN) == "score/d/c/E/seed0"
    assert job_name("aggregate", {}) == "aggregate"


def test_finished_jobs_are_current_and_nothing_is_written_twice(results):
    assert outdated(results) == []
    before = {path: path.stat().st_ino for path in results.rglob("*.json")}
    assert outdated(results) == []
    assert {path: path.stat().st_ino for path in results.rglob("*.json")} == before


def test_no_two_settings_files_share_a_folder(results):
    """Snakemake lists a folder once, and planning writes the files one after the other."""
    planner = Planner(results)
    jobs = ["aggregate", "compare", "fit/d/c/E/seed0", "fit/d/c/E/seed1"]
    files = [Path(planner.settings_file(job, {})) for job in jobs]
    assert len({file.parent for file in files}) == len(jobs)
    assert all(list(file.parent.iterdir()) == [file] for file in files)


def test_other_settings_run_the_job_and_the_old_ones_do_not(results):
    assert outdated(results, {"score": {"k": 6}}) == ["score"]
    assert outdated(results) == []
    assert outdated(results, {"evaluate": {"k": [1, (2, 3)]}}) == ["evaluate"]
    finish(results, "evaluate", "scores.csv", "metrics.csv", {"k": [1, [2, 3]]})
    assert outdated(results, {"evaluate": {"k": [1, (2, 3)]}}) == []


def test_the_content_of_a_settings_file_never_returns(results):
    """Snakemake ignores a newer input whose checksum it remembers."""
    seen = set()
    for k in (5, 6, 5, 6):
        planner = Planner(results)
        file = Path(planner.settings_file("score/d/c/E/seed0", {"k": k}))
        if k != 5 or len(seen):
            assert file.read_text() not in seen
        seen.add(file.read_text())
        finish(results, "score", "model.txt", "scores.csv", {"k": k})
        record = results / "records/score/d/c/E/seed0.json"
        written = json.loads(record.read_text())
        atomic.write_json(record, written | {"finished": f"at {len(seen)}"})


def test_a_copy_with_any_times_is_current(results, tmp_path):
    assert outdated(results) == []
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for order in (files, files[::-1], files[1::2] + files[::2]):
        for path in order:
            set_time(path)
        assert outdated(copy) == []


def test_other_content_of_an_input_is_noticed(results):
    (results / "scores.csv").write_text("edited")
    assert outdated(results) == ["evaluate"]


def test_another_script_runs_the_job(results):
    script = results / "scripts/evaluate.py"
    set_time(script)  # a new checkout
    assert outdated(results) == []
    script.write_text("changed")
    assert outdated(results) == ["evaluate"]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 0}'])
def test_a_damaged_record_runs_the_job(results, text):
    assert outdated(results) == []
    (results / "records/evaluate/d/c/E/seed0.json").write_text(text)
    assert outdated(results) == ["evaluate"]


def test_a_record_names_the_files_relative_to_the_results(results):
    record = json.loads((results / "records/score/d/c/E/seed0.json").read_text())
    assert list(record["inputs"]) == ["model.txt"]
    assert list(record["outputs"]) == ["scores.csv"]
    assert (record["rule"], record["wildcards"], record["settings"]) == ("score", RUN, {"k": 5})
    assert {"seconds", "torch_seconds", "images", "device", "machine", "cached"} <= set(record)
    assert Named(record["wildcards"]).seed == "0"


WILDCARDS = {
    "dataset": "drawn", "category": "wood", "extractor": "lite0", "experiment": "PaDiM",
    "geometry": "128-112", "seed": "0",
}  # fmt: skip
RULES = ("decode", "extract", "fit", "score", "evaluate", "count", "aggregate", "compare")
RULES += ("pictures", "figures", "runtime", "tradeoff", "html_report")


def settings_of_all_rules(**changes) -> dict[str, dict]:
    written = merged(merged(load_config(None), SMALL), changes)
    config = Config.read(written)
    wildcards = WILDCARDS | {"model": config.experiments["PaDiM"].model}
    return {rule: job_settings(config, rule, wildcards) for rule in RULES}


GROUPED = {"groups": {"g": ["wood"]}}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        # Neither changes a result.
        ({"batch_size": 3, "device": "auto", "threads": 2, "memory_mb": 64}, set()),
        ({"coreset_jobs": 3}, set()),
        ({"tf32": True}, {"extract", "fit", "score"}),
        ({"datasets": {"drawn": GROUPED}}, {"aggregate", "html_report"}),
        ({"uncertainty": {"resamples": 0}}, {"evaluate", "html_report"}),
    ],
)
def test_a_setting_is_one_of_the_rules_whose_results_it_decides(changes, rules):
    settings, others = settings_of_all_rules(), settings_of_all_rules(**changes)
    assert {rule for rule in RULES if settings[rule] != others[rule]} == rules
