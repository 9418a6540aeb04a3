"""Run times come from the records and measurements of the jobs asked for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from conftest import table_rows
from indad.core.csv_files import read_csv
from indad.core.errors import StoreError
from indad.pipeline.currency import job_name
from indad.reporting import runtime
from indad.reporting.tables import Layout

MODELS = {"A-0.1": ("m", "r"), "B": ("m", "r")}
IMAGES = {"fit": 10, "score": 5, "evaluate": 5, "pictures": None}


def job(stage, name="", seed=None, **more):
    """Return a record as a job writes it."""
    wildcards = {"dataset": "d", "category": "c"}
    wildcards |= {"name": name} if name else {}
    wildcards |= {} if seed is None else {"seed": str(seed)}
    record = {
        "rule": stage, "wildcards": wildcards, "images": IMAGES.get(stage, 15), "seconds": 1.0,
        "torch_seconds": 0.0, "device": "", "machine": "Abacus, 2 cores", "output_mb": 2.0,
        "cached": False, "finished": "2026-01-01 00:00:10.500",
    }  # fmt: skip
    return record | more


def leave(folder, records, seconds=4.0, memory="100.0"):
    """Leave records and measurements of jobs; return the table of these."""
    paths = []
    for record in records:
        path = folder / "records" / job_name(record["rule"], record["wildcards"])
        paths.append(path.with_name(f"{path.name}.json"))
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(json.dumps(record))
        if seconds is not None:
            tsv = folder / "benchmarks" / paths[-1].relative_to(folder / "records")
            tsv.parent.mkdir(parents=True, exist_ok=True)
            measured = record.get("wall", seconds)
            text = f"s\th:m:s\tmax_rss\tcpu_time\n{measured}\t0:00:01\t{memory}\t7.5\n"
            tsv.with_suffix(".tsv").write_text(text)
    return runtime.collect(paths, folder / "records", folder / "benchmarks")


def test_a_job_is_measured_from_outside_and_from_within(tmp_path):
    scored = job("score", "A-0.1", 0, seconds=6.0, torch_seconds=1.0, device="cpu", model_mb=3.0)
    scored["coreset_radius"] = 0.5
    table = leave(tmp_path, [scored], seconds=8.0)
    assert list(table) == list(runtime.COLUMNS)
    (row,) = table.to_dict("records")
    assert (row["stage"], row["name"], row["seed"]) == ("score", "A-0.1", 0)
    assert (row["seconds"], row["cpu_seconds"], row["max_rss_mb"]) == (8.0, 7.5, 100.0)
    assert (row["compute_seconds"], row["load_seconds"]) == (5.0, 1.0)
    assert (row["images"], row["images_per_second"]) == (5, 1.0)
    assert (row["device"], row["machine"]) == ("cpu", "Abacus, 2 cores")
    assert (row["model_mb"], row["coreset_radius"], row["product_mb"]) == (3.0, 0.5, 2.0)


def test_rows_are_in_the_order_of_the_stages(tmp_path):
    jobs = [job("pictures"), job("score", "B", 0), job("index")]
    table = leave(tmp_path, jobs)
    assert table["stage"].tolist() == ["index", "score", "pictures"]
    assert table["images"].tolist()[:2] == [15, 5]
    assert pd.isna(table["images"][2])


def test_missing_measurements_are_reported_and_left_out_of_sums(tmp_path):
    leave(tmp_path, [job("index", seconds=1.5)], seconds=2.0, memory="-")
    leave(tmp_path, [job("decode", "256-224")], seconds=None)
    paths = sorted((tmp_path / "records").rglob("*.json"), reverse=True)
    table = runtime.collect(paths, tmp_path / "records", tmp_path / "benchmarks")
    assert table["seconds"].tolist()[0] == 2.0
    assert np.isnan(table["seconds"][1])
    assert np.isnan(table["max_rss_mb"].iloc[0])  # too short to be measured
    text = runtime.document(table, {}, Layout([]))
    assert "1 of 2 jobs have no measurement in benchmarks/, for example decode of d/c" in text
    assert table_rows(text)[-1][:3] == ["all", "1", "2.0"]


def test_a_damaged_record_is_named(tmp_path):
    leave(tmp_path, [job("index")])
    path = tmp_path / "records/index/d/c.json"
    path.write_text("{")
    with pytest.raises(StoreError, match=r"c\.json: damaged record .*; delete it and run again"):
        runtime.collect([path], tmp_path / "records", tmp_path / "benchmarks")


def test_experiments_cost_their_shared_fit_and_features(tmp_path):
    jobs = [job("extract", "r", seconds=3.0), job("fit", "m", 0, seconds=20.0)]
    jobs += [job("score", name, seed, seconds=1.0 + seed) for name in MODELS for seed in (0, 1)]
    table = leave(tmp_path, jobs, seconds=30.0)
    row = runtime.experiments(table, MODELS).set_index("experiment").loc["B"]
    assert (row["fit_seconds"], row["score_seconds"]) == (20.0, 1.5)
    assert row["seconds_per_image"] == pytest.approx(3 / 10)
    assert row["score_per_second"] == pytest.approx(10 / 3)
    assert row["with_backbone"] == pytest.approx(3 / 10 + 3 / 15)
    text = runtime.document(table, MODELS, Layout(list(MODELS)))
    assert "A-0.1 and B share one fit." in text
    assert "Machine: Abacus, 2 cores." in text


def test_the_covering_radius_is_shown_of_the_experiments_that_have_one(tmp_path):
    jobs = [job("score", "A-0.1", seed, coreset_radius=1.0 + seed) for seed in (0, 1)]
    table = leave(tmp_path, [*jobs, job("score", "B", 0), job("fit", "m", 0)])
    text = runtime.document(table, MODELS, Layout(list(MODELS)))
    assert [row[-1] for row in table_rows(text) if row[0] == "A-0.1"] == ["1.500"]
    assert "The covering radius is the largest distance" in text
    without = runtime.document(table.assign(coreset_radius=np.nan), MODELS, Layout(list(MODELS)))
    assert "covering" not in without


def test_a_fit_costs_what_the_jobs_of_its_parts_cost(tmp_path):
    wildcards = {"dataset": "d", "category": "c", "model": "m", "seed": "0"}
    jobs = [
        job("coreset", seconds=10.0, wildcards=wildcards | {"part": f"{part}of2"})
        for part in (1, 2)
    ]
    table = leave(tmp_path, [*jobs, job("fit", "m", 0, seconds=3.0), job("score", "B", 0)])
    assert table["stage"].tolist() == ["coreset", "coreset", "fit", "score"]
    (cost,) = runtime.experiments(table, {"B": ("m", "r")}).itertuples()
    assert cost.fit_seconds == 23.0


def test_an_ensemble_costs_what_its_members_and_its_own_jobs_cost(tmp_path):
    jobs = [job("extract", name, seconds=3.0) for name in ("r", "s")]
    jobs += [job("fit", name, 0, seconds=20.0) for name in ("m", "n", "both")]
    jobs += [job("score", name, 0, seconds=1.0, model_mb=2.0) for name in ("A", "B", "C", "Both")]
    table = leave(tmp_path, jobs)
    members = [["A", "m", "r"], ["B", "n", "r"], ["C", "n", "s"]]  # B and C share a fit
    models = {"Both": ["both", "r", *members]}
    (cost,) = runtime.experiments(table, models).itertuples()
    assert (cost.fit_seconds, cost.score_seconds) == (60.0, 4.0)
    assert cost.with_backbone == pytest.approx(4 * 1 / 5 + 2 * 3 / 15)
    assert cost.model_mb == 8.0
    assert "sums over its members" in runtime.document(table, models, Layout(["Both"]))


def test_copied_features_count_for_no_extraction(tmp_path):
    jobs = [job("extract", "r", seconds=3.0, cached=True), job("score", "B", 0, seconds=3.0)]
    table, models = leave(tmp_path, jobs), {"B": ("m", "r")}
    assert table["cached"].tolist() == [True, False]
    assert np.isnan(table["images_per_second"][0])
    (cost,) = runtime.experiments(table, models).itertuples()
    assert np.isnan(cost.with_backbone)
    assert cost.seconds_per_image == pytest.approx(3 / 5)
    text = runtime.document(table, models, Layout(["B"]))
    assert "1 of 1 were copied from a cache" in text
    assert "| r           |            - |          - |" in text
    table.to_csv(tmp_path / "runtime.csv", index=False)
    again = read_csv(tmp_path / "runtime.csv", runtime.COLUMNS, "table of run times")
    assert np.isnan(runtime.experiments(again, models)["with_backbone"][0])


def test_the_papers_times_are_shown_on_their_data_set(tmp_path):
    jobs = [job("extract", "r"), job("fit", "m", 0), job("score", "B", 0)]
    table, models = leave(tmp_path, [each | {"seconds": 3.0} for each in jobs]), {"B": ("m", "r")}
    layout = Layout(["B"], compared={"d": "mvtec_ad"}, published={"B": "PatchCore-10"})
    text = runtime.document(table, models, layout)
    (row,) = (row for row in table_rows(text) if "2106.08265" in row[-1])
    assert row[:4] == ["B", "inference", "0.800", "0.22"]
    elsewhere = Layout(["B"], published={"B": "PatchCore-10"})
    assert "arXiv" not in runtime.document(table, models, elsewhere)


def test_where_a_second_goes(tmp_path):
    jobs = [
        job("index", wall=10.0, seconds=10.0),
        job("fit", "m", 0, wall=10.0, seconds=8.0, torch_seconds=2.0),
        job("score", "B", 0, wall=6.0, seconds=3.0),
        job("evaluate", "B", 0, wall=6.0, seconds=6.0),
    ]
    text = runtime.document(leave(tmp_path, jobs), {}, Layout([]))
    rows = table_rows(text)
    assert ["fit", "1", "10.0", "6.0", "2.0", "2.0", "40 %"] in rows
    assert rows[-1] == ["all", "4", "32.0", "25.0", "2.0", "5.0", "22 %"]
