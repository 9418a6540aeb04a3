"""Run times are those of the records, of the jobs asked for, and nothing is guessed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indad.features import store
from indad.reporting import runtime
from indad.reporting.tables import Layout

IMAGES = pd.DataFrame(
    [
        ("d", "c", "train", "good", 10, 0),
        ("d", "c", "test", "good", 2, 0),
        ("d", "c", "test", "cut", 3, 3),
    ],
    columns=["dataset", "category", "split", "defect", "images", "masks"],
)
MODELS = {"A-0.1": ("m", "r"), "B": ("m", "r")}


def job(stage, name="", seed=None, **more):
    return {"stage": stage, "dataset": "d", "category": "c", "name": name, "seed": seed} | more


def leave(folder, job, seconds, done, loaded=None, memory="100.0", at="2026-01-01 00:00:10"):
    """Leave the records that a job leaves."""
    tsv = runtime.record(folder / "benchmarks", job, ".tsv")
    tsv.parent.mkdir(parents=True, exist_ok=True)
    tsv.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:01\t{memory}\t7.5\n")
    log = runtime.record(folder / "logs", job, ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{at},001 machine: Abacus, 2 cores"]
    if loaded is not None:
        lines.append(f"{at},002 device: cpu (2 threads); torch loaded in {loaded:.2f} s")
    log.write_text("\n".join([*lines, f"{at},003 done in {done:.2f} s", ""]))


def collect(folder, jobs):
    return runtime.collect(jobs, folder / "benchmarks", folder / "logs", IMAGES)


def test_a_job_is_measured_from_outside_and_from_within(tmp_path):
    scored = job("score", "A-0.1", 0)
    leave(tmp_path, scored, 8.0, done=6.0, loaded=1.0)
    leave(tmp_path, job("score", "left by another run", 0), 99.0, done=99.0)
    table = collect(tmp_path, [scored])
    assert list(table) == list(runtime.COLUMNS)
    (row,) = table.to_dict("records")
    assert (row["seconds"], row["cpu_seconds"], row["max_rss_mb"]) == (8.0, 7.5, 100.0)
    assert (row["compute_seconds"], row["load_seconds"]) == (5.0, 1.0)
    assert (row["images"], row["images_per_second"]) == (5, 1.0)
    assert (row["device"], row["machine"]) == ("cpu (2 threads)", "Abacus, 2 cores")


def test_images_are_those_a_stage_works_on(tmp_path):
    jobs = [job(stage) for stage in ("index", "extract", "fit", "score", "pictures")]
    counted = collect(tmp_path, jobs)["images"]
    assert counted.tolist()[:4] == [15, 15, 10, 5]
    assert counted.isna().tolist() == [False] * 4 + [True]


def test_a_job_without_records_is_named_and_left_out_of_sums(tmp_path):
    known, unknown = job("index"), job("decode", "256-224")
    leave(tmp_path, known, 2.0, done=1.5, memory="-")
    table = collect(tmp_path, [known, unknown])
    assert table["seconds"].tolist()[0] == 2.0
    assert table[["seconds", "compute_seconds"]].iloc[1].isna().all()
    assert np.isnan(table["max_rss_mb"].iloc[0])  # too short to be watched
    text = runtime.document(table, {}, Layout([]))
    assert "1 of 2 jobs left no record or log, decode of d/c among them" in text
    assert "1 jobs took 2.0 s" in text


def test_the_model_is_what_scoring_reads(tmp_path):
    model, path = tmp_path / "m.safetensors", tmp_path / "f.h5"
    model.write_bytes(bytes(4_000_000))
    made_with = {"layers": ["a", "b"], "input_size": [8, 8]}
    with store.create(path, made_with, dtype="float32") as writer:
        for split, count in (("train", 10), ("test", 5)):
            names = [f"{i}.png" for i in range(count)]
            writer.add_split(split, names, {"a": (4, 50, 50), "b": (4, 25, 25)}, 6)
            maps = {"a": np.ones((count, 4, 50, 50)), "b": np.ones((count, 4, 25, 25))}
            writer.write(split, 0, maps, np.ones((count, 6)))
    parts = {"model": str(model), "share": 0.25, "gallery": "", "layers": None}
    size = collect(tmp_path, [job("score", "B", 0, **parts)])["model_mb"][0]
    assert size == 1.0  # a quarter of a shared model
    parts |= {"share": 1.0, "gallery": str(path), "layers": ["b"]}
    size = collect(tmp_path, [job("score", "B", 0, **parts)])["model_mb"][0]
    embeddings = 10 * 6 * 4
    assert size == pytest.approx(4 + (10 * 4 * 25 * 25 * 4 + embeddings) / 1e6)


def test_experiments_cost_their_shared_fit_and_features(tmp_path):
    jobs = [job("extract", "r"), job("fit", "m", 0)]
    jobs += [job("score", name, seed) for name in MODELS for seed in (0, 1)]
    for each in jobs:
        done = {"extract": 3.0, "fit": 20.0, "score": 1.0 + (each["seed"] or 0)}
        leave(tmp_path, each, 30.0, done=done[each["stage"]])
    costs = runtime.experiments(collect(tmp_path, jobs), MODELS).set_index("experiment")
    row = costs.loc["B"]
    assert (row["fit_seconds"], row["score_seconds"]) == (20.0, 1.5)
    assert row["seconds_per_image"] == pytest.approx(3 / 10)
    assert row["score_per_second"] == pytest.approx(10 / 3)
    assert row["with_backbone"] == pytest.approx(3 / 10 + 3 / 15)
    text = runtime.document(collect(tmp_path, jobs), MODELS, Layout(list(MODELS)))
    assert "A-0.1 and B share one fit." in text
    assert "Machine: Abacus, 2 cores." in text


def test_copied_features_count_for_no_extraction(tmp_path):
    jobs = [job("extract", "r"), job("score", "B", 0)]
    for each in jobs:
        leave(tmp_path, each, 4.0, done=3.0)
    log = runtime.record(tmp_path / "logs", jobs[0], ".log")
    log.write_text(f"2026-01-01 00:00:10,001 cache: features copied from k.h5\n{log.read_text()}")
    table, models = collect(tmp_path, jobs), {"B": ("m", "r")}
    assert table["cached"].tolist() == [True, False]
    assert np.isnan(table["images_per_second"][0])
    (cost,) = runtime.experiments(table, models).itertuples()
    assert np.isnan(cost.with_backbone)
    assert cost.seconds_per_image == pytest.approx(3 / 5)
    text = runtime.document(table, models, Layout(["B"]))
    assert "1 of 1 were copied from a cache" in text
    assert "| r           |            - |          - |" in text
    table.to_csv(tmp_path / "runtime.csv", index=False)
    again = runtime.read(tmp_path / "runtime.csv")
    assert np.isnan(runtime.experiments(again, models)["with_backbone"][0])


def test_the_papers_times_stand_beside_ours_on_their_data_set(tmp_path):
    jobs = [job("extract", "r"), job("fit", "m", 0), job("score", "B", 0)]
    for each in jobs:
        leave(tmp_path, each, 4.0, done=3.0)
    table, models = collect(tmp_path, jobs), {"B": ("m", "r")}
    layout = Layout(["B"], compared={"d": "mvtec_ad"}, published={"B": "PatchCore-10"})
    text = runtime.document(table, models, layout)
    (line,) = (line for line in text.splitlines() if "2106.08265" in line)
    assert [cell.strip() for cell in line.split("|")][1:5] == ["B", "inference", "0.800", "0.22"]
    elsewhere = Layout(["B"], published={"B": "PatchCore-10"})
    assert "arXiv" not in runtime.document(table, models, elsewhere)


def test_where_a_second_goes(tmp_path):
    jobs = [job("index"), job("fit", "m", 0), job("score", "B", 0), job("evaluate", "B", 0)]
    # Two side by side, one 4 s later, one the next day.
    leave(tmp_path, jobs[0], 10.0, done=10.0, at="2026-01-01 00:00:10")
    leave(tmp_path, jobs[1], 10.0, done=8.0, loaded=2.0, at="2026-01-01 00:00:12")
    leave(tmp_path, jobs[2], 6.0, done=3.0, at="2026-01-01 00:00:22")
    leave(tmp_path, jobs[3], 6.0, done=6.0, at="2026-01-02 00:00:00")
    text = runtime.document(collect(tmp_path, jobs), {}, Layout([]))
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "%" in line}
    cells = {name: [cell.strip() for cell in row.split("|")[2:-1]] for name, row in rows.items()}
    assert cells["fit"] == ["1", "10.0", "6.0", "2.0", "2.0", "40 %"]
    assert cells["all"] == ["4", "32.0", "25.0", "2.0", "5.0", "22 %"]
    assert "4 jobs took 32.0 s one by one; during 24.0 s at least one ran" in text
    assert "4.0 s passed between jobs" in text
    assert "Made in 2 or more runs" in text
