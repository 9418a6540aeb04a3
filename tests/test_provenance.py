"""The provenance of results: files, digests and what no longer matches."""

from __future__ import annotations

import numpy as np
import pytest

from indad.core import checksum, provenance
from indad.core.csv_files import write_csv
from indad.core.errors import StoreError
from indad.evaluation import evaluate
from indad.pipeline.verify import verify

FEATURES = {
    "backbone": "net",
    "weights": "timm",
    "weights_source": "timm's own",
    "weights_sha256": "ab" * 32,
    "manifest_sha256": "cd" * 32,
}


def finish(results, category="c", features=FEATURES, **digests):
    """Write a metrics file and the records of the two jobs it comes from; return the records."""
    run = f"d/{category}/e/seed0"
    metrics = results / f"metrics/{run}.csv"
    keys = {"dataset": "d", "category": category, "experiment": "e", "seed": 0}
    write_csv(evaluate.tidy({"image_auroc": 0.9}, **keys), metrics)
    products = {
        "inputs": {f"features/d/{category}/r.h5": "xxh3_128:1", "models/d/m.safetensors": "xx:2"},
        "outputs": {f"scores/{run}/scores.csv": "sha256:3", f"scores/{run}/maps.h5": "xxh3_128:4"},
    }
    products["inputs"].update(digests)
    made_with = {"features_made_with": features, **provenance.here("cpu")}
    scored, evaluated = (results / f"records/{rule}/{run}.json" for rule in ("score", "evaluate"))
    checksum.write_json(scored, products | {"made_with": made_with})
    evaluation = {
        "wildcards": keys | {"seed": "0"},
        "software": provenance.software(),
        "inputs": {f"manifests/d/{category}.csv": "sha256:5", **products["outputs"]},
        "outputs": {f"metrics/{run}.csv": checksum.recorded_digest(metrics)},
    }
    checksum.write_json(evaluated, evaluation)
    return scored, evaluated


def gather(results, *records):
    return provenance.gather(results, *map(list, zip(*records, strict=True)))


def test_a_result_is_made_of_the_files_of_its_jobs(tmp_path):
    records = finish(tmp_path)
    (run,), digests = gather(tmp_path, records)
    assert run["keys"] == {"dataset": "d", "category": "c", "experiment": "e", "seed": 0}
    assert run["files"] == {
        "features": "features/d/c/r.h5",
        "model": "models/d/m.safetensors",
        "scores": "scores/d/c/e/seed0/scores.csv",
        "maps": "scores/d/c/e/seed0/maps.h5",
        "manifest": "manifests/d/c.csv",
        "metrics": "metrics/d/c/e/seed0.csv",
    }
    assert digests["models/d/m.safetensors"] == "xx:2"
    metrics = tmp_path / "metrics/d/c/e/seed0.csv"
    assert digests["metrics/d/c/e/seed0.csv"] == f"sha256:{checksum.sha256_file(metrics)}"
    metrics.write_text(metrics.read_text().replace("0.9", "0.99"))
    with pytest.raises(StoreError, match=r"seed0\.csv: not the metrics that were computed"):
        gather(tmp_path, records)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"seed": "0"', '"seed": "1"'),
        lambda text: text.replace("\n", "\n\n", 1),  # the same values, but not the same file
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
    ],
)
def test_an_edited_record_is_refused(tmp_path, change):
    records = finish(tmp_path)
    records[1].write_text(change(records[1].read_text()))
    with pytest.raises(StoreError, match=r"seed0\.json: damaged"):
        gather(tmp_path, records)


def test_results_of_two_files_of_one_name_are_not_mixed(tmp_path):
    records = [finish(tmp_path, "a"), finish(tmp_path, "b")]
    assert len(gather(tmp_path, *records)[0]) == 2
    records[1] = finish(tmp_path, "b", **{"models/d/m.safetensors": "xx:9"})
    with pytest.raises(StoreError, match=r"m\.safetensors: was replaced after some results"):
        gather(tmp_path, *records)


def test_the_line_below_the_tables(tmp_path):
    runs, _ = gather(tmp_path, finish(tmp_path, "a"), finish(tmp_path, "b"))
    line = provenance.line(runs)
    assert line == provenance.line(runs[::-1])
    assert line.count("net abababababab") == 1
    assert line.startswith("Provenance: indad ")
    assert "computed on cpu (" in line


def finished(folder, weights="timm", sha256="ab" * 32):
    """Write the record of a run with one feature store; return the problems found in it."""
    store = folder / "features/d/c/r.h5"
    with checksum.create_hdf5(store, "features", 1) as file:
        file.create_dataset("a", data=np.arange(9))
    digest = {"features/d/c/r.h5": checksum.recorded_digest(store)}
    features = FEATURES | {"weights": weights, "weights_sha256": sha256}
    runs, digests = gather(folder, finish(folder, features=features, **digest))
    provenance.write(folder / "provenance.json", runs, digests, {"d": "/no/such"}, [])
    return problems(folder)


def problems(folder):
    return [message for kind, message in verify(folder).problems if kind in ("weights", "features")]


def test_weights_are_compared_where_they_are_a_file(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(b"some weights")
    assert finished(tmp_path / "a", str(file), checksum.sha256_file(file)) == []
    assert "are different now" in finished(tmp_path / "b", str(file))[0]
    assert finished(tmp_path / "c") == []
    assert verify(tmp_path / "c").left_out == ["weights of net: timm's own, no file to compare"]
    file.unlink()
    assert "there is no file" in finished(tmp_path / "d", str(file))[0]


def test_a_product_of_another_run_is_noticed(tmp_path):
    """Intact, but not the file the tables come from."""
    assert finished(tmp_path) == []
    with checksum.create_hdf5(tmp_path / "features/d/c/r.h5", "features", 1) as file:
        file.create_dataset("a", data=np.arange(9) + 1)
    (problem,) = problems(tmp_path)
    assert "r.h5: is not the file the tables come from" in problem


def test_no_record_is_one_clear_error(tmp_path):
    with pytest.raises(StoreError, match=r"provenance\.json: no such record; run again"):
        verify(tmp_path)
    checksum.write_json(tmp_path / "provenance.json", {"version": provenance.VERSION})
    with pytest.raises(StoreError, match=r"provenance\.json: not a record of this library"):
        verify(tmp_path)
    checksum.write_json(tmp_path / "provenance.json", {"version": 1})
    with pytest.raises(StoreError, match=r"provenance\.json: of another version"):
        verify(tmp_path)
