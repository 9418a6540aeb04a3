"""``indad package``: a finished run as a data package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indad.cli.main import main as indad
from indad.core import checksum, provenance
from indad.core.errors import ConfigError, StoreError
from indad.methods import model_file
from indad.pipeline import data_package

MODEL = "models/d/nut/PaDiM/seed0.safetensors"
FILES = {
    "metrics.csv": "category,seed,value\n" + 200 * "nut,0,1\n" + "nut,0,0.5\n",
    "manifests/d/nut.csv": "image,label\na.png,0\n",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    model_file.write(tmp_path / MODEL, {}, {"mean": np.zeros(3)})
    digests = {name: checksum.compute_digest(tmp_path / name) for name in [*FILES, MODEL]}
    digests["features/d/nut/r18.h5"] = "xxh3_128:not listed"
    record = {"version": provenance.VERSION, "data": {"manifests/d/nut.csv": "/data/nut"}}
    checksum.write_json(tmp_path / "provenance.json", record | {"digests": digests})
    return tmp_path


def test_a_package_names_tables_models_and_provenance(results, capsys):
    frictionless = pytest.importorskip("frictionless", reason="frictionless not here: make setup")
    assert indad(["package", str(results)]) == 0
    assert "datapackage.json: 4 files" in capsys.readouterr().out.replace("\n", "")
    package = frictionless.Package(str(results / "datapackage.json"))
    assert package.validate().valid
    assert {each.path for each in package.resources} == {*FILES, MODEL, "provenance.json"}
    # The last of 201 rows decides the type of the column.
    fields = package.get_resource("metrics.csv").schema.fields
    assert [each.type for each in fields] == ["string", "integer", "number"]
    assert json.loads((results / "datapackage.json").read_text())["sources"] == [
        {"title": "manifest of the images", "path": "manifests/d/nut.csv"}
    ]
    for name in (MODEL, "metrics.csv"):
        with (results / name).open("ab") as file:
            file.write(b"x")
    found = frictionless.Package(str(results / "datapackage.json")).validate()
    changed = {task.place for task in found.tasks if "hash-count" in {e.type for e in task.errors}}
    assert changed == {MODEL, "metrics.csv"}


def test_what_cannot_be_packaged(results, monkeypatch):
    pytest.importorskip("frictionless", reason="frictionless not here: make setup")
    (results / "metrics.csv").unlink()
    with pytest.raises(StoreError, match="metrics.csv: is missing; run the workflow again"):
        data_package.write(results)
    (results / "metrics.csv").write_text("category,seed,value\n")
    with pytest.raises(StoreError, match="metrics.csv: is not the file of provenance.json"):
        data_package.write(results)
    assert not (results / "datapackage.json").exists()
    monkeypatch.setattr(data_package, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs frictionless.*'indad\[package\]'"):
        data_package.write(results)
