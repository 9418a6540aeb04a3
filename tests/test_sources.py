"""Data sets that are made here: complete or absent, and the same for the same seed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from indad.core import checksum
from indad.core.errors import DataError, StoreError
from indad.data import manifest
from indad.data.public import sources


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def make(folder, source, category, **options):
    settings = sources.check_options(source, options, "options")
    receipt = folder.with_suffix(".json")
    sources.fetch(folder, receipt, source=source, category=category, options=settings)
    return json.loads(receipt.read_text())


def test_elpv_is_a_seeded_good_only_split(tmp_path):
    asked = {"train": 12, "good": 5, "per_defect": 3}
    receipt = make(tmp_path / "a", "elpv", "mono", **asked)
    make(tmp_path / "b", "elpv", "mono", **asked)
    make(tmp_path / "c", "elpv", "mono", **asked, seed=1)
    make(tmp_path / "d", "elpv", "poly", **asked)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a")) != set(files(tmp_path / "c"))
    photos = [{Path(name).name for name in files(tmp_path / kind)} for kind in "ad"]
    assert not photos[0] & photos[1]
    table = manifest.build(tmp_path / "a")
    assert table.groupby(["split", "defect"]).size().to_dict() == {
        ("test", "defect_033"): 3,
        ("test", "defect_067"): 3,
        ("test", "defect_100"): 3,
        ("test", "good"): 5,
        ("train", "good"): 12,
    }
    assert set(table["mask"]) == {""}
    assert table["sha256"].is_unique
    assert receipt["files"] == 26
    assert "CC BY-NC-SA" in receipt["credit"]


def test_elpv_with_too_few_good_cells(tmp_path):
    with pytest.raises(DataError, match="elpv mono: 588 good cells, too few for 588"):
        make(tmp_path / "a", "elpv", "mono", train=588)
    assert list(tmp_path.iterdir()) == []


def test_elpv_without_its_package(tmp_path, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(DataError, match="pip install elpv-dataset"):
        make(tmp_path / "a", "elpv", "mono")


def test_drawn_categories_are_valid_data_sets(tmp_path):
    receipt = make(tmp_path / "a", "drawn", "wood", train=3, good=2, per_defect=2, size=64)
    table = manifest.build(tmp_path / "a")
    test = table[table["split"] == "test"]
    assert (test["mask"] != "").tolist() == (test["label"] == 1).tolist()
    assert receipt["options"]["size"] == 64


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"from": 1}', "[" * 100_000, '{"source": "x"}', "\udcff"]
)
def test_damaged_records_are_refused(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(StoreError, match=r"r\.json: damaged"):
        checksum.read_json(path)
