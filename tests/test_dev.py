"""Developer tools: they run, and the documents show what they write."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import interval_coverage
import numpy as np
import pandas as pd
import pytest
import simulated_comparisons
import simulated_intervals
from PIL import Image
from simulated_sets import Cell

from conftest import ROOT, make_features, save_image
from dev import job_resources, rule_graph


@pytest.fixture
def tool(monkeypatch):
    """Import a developer tool and run it in this process, its measurements too."""
    monkeypatch.syspath_prepend(ROOT / "scripts/dev")

    def run(name: str, *arguments: object, **replaced: object) -> None:
        module = import_module(name)
        for attribute, replacement in replaced.items():
            monkeypatch.setattr(module, attribute, replacement)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        module.main()

    return run


def test_a_measurement_runs_in_a_process_of_its_own(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "scripts/dev")
    measure = import_module("measure")
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys; print('text'); "
        "print(json.dumps([sys.argv[1:], os.environ['OMP_NUM_THREADS']]))"
    )
    found = measure.run_child(str(script), "a", "b", threads=3)
    assert found == [["--child", "a", "b"], "3"]
    script.write_text("raise ValueError('no data')")
    with pytest.raises(SystemExit, match=r"(?s)a: failed.*ValueError: no data"):
        measure.run_child(str(script), "a")


@pytest.mark.slow
def test_benchmark_measures_all_installed_contenders(tool, tmp_path):
    def run_child(script: str, case: str, contender: str, *_: str, threads: int):
        module = import_module("benchmark")
        given = SimpleNamespace(small=True, threads=threads, device="cpu")
        return module.measure(module.CASES[case], contender, given)

    options = ("--small", "--runs", 1, "--case", "coreset", "--output", tmp_path / "speed")
    tool("benchmark", *options, run_child=run_child)
    table = pd.read_csv(tmp_path / "speed.csv").set_index("contender")
    assert {"indad", "matrix products", "plain loop (scaled)"} <= set(table.index)
    assert (table["seconds"] > 0).all()
    assert table.loc["indad", "times_indad"] == 1
    assert "Reduced sizes (`--small`)" in (tmp_path / "speed.md").read_text()


def test_exports_are_compared_with_the_first_contender(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "scripts/dev")
    module = import_module("benchmark_export")
    image = save_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))

    def contender(score: float, height: float, anomalous: bool):
        answer = module.Answer(score, np.full((2, 2), height), anomalous)
        return module.Contender("name", lambda pixels: answer, [image])

    others = [contender(2.0, 4.0, False), contender(2.1, 3.0, True), contender(2.0, 4.0, False)]
    rows = module.compare(others, [image, image])
    assert rows[0][0] == "name"
    assert [row[3:] for row in rows] == [
        [],
        ["5e-02", "2e-01", "2 of 2"],
        ["0e+00", "0e+00", "0 of 2"],
    ]


@pytest.mark.slow
def test_scaling_measures_all_stages_and_draws_them(tool, tmp_path):
    def run_child(script: str, folder: str, scratch: str, count: str, side: str, stage: str):
        module = import_module("scaling")
        return module.measure_stage(Path(folder), Path(scratch), int(count), int(side), stage)

    options = ("--images", 4, 6, "--sides", 64, 96, "--output", tmp_path / "scaling")
    tool("scaling", *options, run_child=run_child, TEST=2)
    table = pd.read_csv(tmp_path / "scaling.csv")
    assert (table.groupby("stage").size() == 3).all()
    assert (table["seconds"] >= 0).all()
    assert min(Image.open(tmp_path / "scaling.png").size) > 500


@pytest.mark.slow
def test_scale_counts_the_jobs_and_measures_the_methods(tool, tmp_path):
    def run_child(script: str, features: str, name: str, count: str, threads: int):
        return import_module("scale").measure_method(Path(features), name, int(count))

    options = ("--small", "--images", 9, "--output", tmp_path / "scale.md")
    tool("scale", *options, run_child=run_child, TEST=2)
    text = (tmp_path / "scale.md").read_text()
    (jobs,) = re.findall(r"15 x 1 x 2 x 1 +\| (\d+) ", text)
    # Of each category: download, index, decode, extract, one fit (both coresets are prefixes of
    # one), two scores and evaluations, pictures, figures.
    assert int(jobs) >= 15 * 11
    assert re.search(r"PatchCore, 1 % +\| \d+\.\d+ ", text)


def test_repeated_features_are_the_same_however_they_are_read(monkeypatch, rng):
    monkeypatch.syspath_prepend(ROOT / "scripts/dev")
    repeated = import_module("scale").repeated(make_features(rng, 3, shapes={"a": (4, 6, 5)}), 8)
    whole = repeated.maps("a")
    assert len(repeated) == len(whole) == len(repeated.embedding()) == 8
    np.testing.assert_array_equal(repeated.maps("a", slice(5, 7), slice(2, 4)), whole[5:7, :, 2:4])
    assert not np.array_equal(whole[1], whole[4])
    assert np.corrcoef(whole[1].ravel(), whole[4].ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_intervals_cover_the_truth_and_equals_are_not_called_different():
    """A short simulation: 95 % within the accuracy of this few test sets."""
    for cell in (Cell("normal", 0.97, 12, 30), Cell("normal", 3.0, 12, 30)):
        found = simulated_intervals.test_sets(cell, 60, 100)
        rates = pd.DataFrame(simulated_intervals.coverage(cell, found)).set_index("method")["rate"]
        assert rates.loc["indad"].min() >= 0.8
        for tests in simulated_comparisons.pair_tests(cell, 60, 100).values():
            assert simulated_comparisons.claims(tests).mean() <= 0.17
    rows = pd.DataFrame(simulated_comparisons.five_experiments("15 points better", 40))
    assert (rows["rate"] > 0.95).all()


def test_the_page_about_coverage_shows_its_table():
    docs = ROOT / "docs"
    text = interval_coverage.page(pd.read_csv(docs / "coverage.csv"))
    assert text == (docs / "coverage.md").read_text(encoding="utf-8")


def test_job_resources_reads_what_snakemake_wrote(tmp_path):
    folder = tmp_path / "benchmarks/fit/d/c"
    folder.mkdir(parents=True)
    header = "s\tmax_rss\tparams\tresources"
    resources = "{'_cores': 2, 'mem_mb': 1500, 'runtime': 11, 'tmpdir': '/tmp'}"
    (folder / "seed0.tsv").write_text(f"{header}\n30.0\t700.5\t{{}}\t{resources}\n")
    (tmp_path / "benchmarks/aggregate.tsv").write_text(f"{header}\n1.0\t90.0\t{{}}\t{resources}\n")
    jobs = job_resources.read_jobs(tmp_path)
    assert jobs.to_numpy().tolist() == [["fit/d/c/seed0", 1500, 1000.5, 11, 0.5]]
    assert "| 1,500      | 1,000" in job_resources.page(jobs, tmp_path)
    (folder / "seed0.tsv").write_text("s\tmax_rss\n30.0\t700.5\n")
    with pytest.raises(SystemExit, match="--benchmark-extended"):
        job_resources.read_jobs(tmp_path)


def arrows(mermaid: str) -> set[tuple[str, str]]:
    """Return the arrows of a graph, by the names of its rules."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", mermaid))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", mermaid)}


@pytest.mark.slow
def test_the_readme_shows_the_rules_of_the_workflow():
    (block,) = re.findall(
        r"<!-- begin rule graph -->\n```mermaid\n(.*?)\n```\n<!-- end rule graph -->",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    assert arrows(block) == arrows(rule_graph.rule_graph()), "run make rulegraph"
    assert {("extract", "fit"), ("fit", "score")} <= arrows(block)


def test_results_of_two_devices_are_compared(tool, tmp_path):
    metrics = pd.DataFrame(
        {
            **{"dataset": "d", "category": "c", "experiment": ["A", "A", "B"]},
            **{"seed": [0, 1, 0], "metric": "image_auroc", "value": [0.5, 0.75, 1.0]},
        }
    )
    scores = pd.DataFrame({"image": ["a.png", "b.png"], "score": [2.0, 4.0]})
    for name, change in (("cpu", 0.0), ("gpu", 0.0008)):
        folder = tmp_path / name / "scores/d/c/A/seed1"
        folder.mkdir(parents=True)
        changed = metrics.assign(value=metrics["value"] - [0, change, 0])
        changed.to_csv(tmp_path / name / "metrics.csv", index=False)
        scores.assign(score=scores["score"] + [0, change]).to_csv(folder / "scores.csv")
    page = tmp_path / "page.md"
    tool("compare_results", tmp_path / "cpu", tmp_path / "gpu", "--output", page)
    rows = [re.split(r"\s*\|\s*", line)[3:7] for line in page.read_text().splitlines()]
    assert ["A", "2", "8e-04", "2e-04"] in rows
    assert ["B", "1", "0e+00", "–"] in rows
