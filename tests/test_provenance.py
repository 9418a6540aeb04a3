"""Records say what a figure comes from, and notice when it is another."""

from __future__ import annotations

import json

import numpy as np
import pytest

from indad.core import checksum, provenance
from indad.core.csv_files import write_csv
from indad.core.errors import StoreError
from indad.evaluation import evaluate
from indad.pipeline.verify import verify

KEYS = {"dataset": "d", "category": "c", "experiment": "e", "seed": 0}
FEATURES = {
    "backbone": "net",
    "weights": "timm",
    "weights_source": "timm's own",
    "weights_sha256": "ab" * 32,
    "manifest_sha256": "cd" * 32,
}


def record(folder, **changes):
    """Write a metrics file and its record; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics, path = folder / "m.csv", folder / "m.json"
    keys = KEYS | {key: changes.pop(key) for key in list(changes) if key in KEYS}
    write_csv(evaluate.tidy({"image_auroc": 0.9}, **keys), metrics)
    made_with = dict.fromkeys(("model", "features", "calibration"), f"xxh3_128:{0:032x}")
    made_with |= {"features_made_with": FEATURES}
    made_with |= provenance.here("cpu") | changes
    provenance.write_record(path, keys, made_with, {"metrics": metrics})
    return path, metrics


def test_a_record_is_of_its_metrics(tmp_path):
    path, metrics = record(tmp_path)
    found = provenance.read_record(path, metrics)
    assert found["keys"] == KEYS
    assert found["digests"]["model"] == f"xxh3_128:{0:032x}"
    assert found["digests"]["metrics"] == f"sha256:{checksum.sha256_file(metrics)}"
    metrics.write_text(metrics.read_text().replace("0.9", "0.99"))
    with pytest.raises(StoreError, match=r"m\.csv: not the metrics that were computed"):
        provenance.read_record(path, metrics)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace("\n", "\n\n", 1),  # the same values, but not the same file
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
    ],
)
def test_an_edited_record_is_refused(tmp_path, change):
    path, metrics = record(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=r"m\.json: damaged"):
        provenance.read_record(path, metrics)


def test_results_of_two_files_of_one_name_are_not_mixed(tmp_path):
    records, runs = [], []
    for name, model in (("a", "sha256:0"), ("b", "sha256:2")):
        path, metrics = record(tmp_path / name, experiment=name, model=model)
        records.append(provenance.read_record(path, metrics))
        runs.append({"folder": "/d", "manifest": "x.csv", "model": "model.safetensors"})
        records[-1]["digests"]["manifest"] = "sha256:" + "3" * 64
    provenance.write(tmp_path / "one.json", records[:1], runs[:1], [])
    assert provenance.read(tmp_path / "one.json")["digests"]["x.csv"] == "sha256:" + "3" * 64
    with pytest.raises(StoreError, match=r"model\.safetensors: was replaced after some results"):
        provenance.write(tmp_path / "two.json", records, runs, [])
    assert not (tmp_path / "two.json").exists()


def test_the_line_below_the_tables(tmp_path):
    paths = [record(tmp_path / name, category=name) for name in ("a", "b")]
    records = [provenance.read_record(*each) for each in paths]
    line = provenance.line(records)
    assert line == provenance.line(records[::-1])
    assert line.count("net abababababab") == 1
    assert line.startswith("Provenance: indad ")
    assert "computed on cpu (" in line


def finished(folder, weights="timm", sha256="ab" * 32):
    """Write a run whose products are one file each."""
    features = FEATURES | {"weights": weights, "weights_sha256": sha256}
    path, metrics = record(folder / "metrics", features_made_with=features)
    found = provenance.read_record(path, metrics)
    with checksum.create_hdf5(folder / "f.h5", "features", 1) as file:
        file.create_dataset("a", data=np.arange(9))
    found["digests"]["features"] = checksum.recorded_digest(folder / "f.h5")
    kinds = ("manifest", "scores", "maps", "metrics")
    found["digests"] |= dict.fromkeys(kinds, "sha256:" + "3" * 64)
    runs = [{kind: kind for kind in kinds} | {"folder": "/no/such", "features": "f.h5"}]
    provenance.write(folder / "provenance.json", [found], runs, [])
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
    with checksum.create_hdf5(tmp_path / "f.h5", "features", 1) as file:
        file.create_dataset("a", data=np.arange(9) + 1)
    problems = [message for kind, message in verify(tmp_path).problems if kind == "features"]
    assert len(problems) == 1
    assert "f.h5: is not the file the tables come from" in problems[0]


def test_no_record_is_one_clear_error(tmp_path):
    with pytest.raises(StoreError, match=r"provenance\.json: no such record; run again"):
        verify(tmp_path)
    path, _ = record(tmp_path)
    (tmp_path / "provenance.json").write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"provenance\.json: not a record of this library"):
        verify(tmp_path)
    assert json.loads(path.read_text())["version"] == provenance.VERSION
