"""The cache gives the same features, never others, and never a damaged file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import extract as stage_script
from conftest import make_job, save_image
from indad.core.errors import StoreError
from indad.data import decode, manifest
from indad.data.images import Geometry
from indad.features import settings
from indad.features.cache import FeatureCache
from indad.features.store import FeatureStore

EXTRACTOR = {
    "backbone": "test_resnet",
    "weights": "random",
    "layers": ["layer1", "layer2"],
    "embedding": "layer3",
    "resize": 40,
    "crop": 32,
    "precision": "float32",
    "dtype": "float32",
}


@pytest.fixture
def indexed(category, tmp_path):
    table = manifest.build(category)
    manifest.write(table, tmp_path / "m.csv")
    geometry = Geometry.from_config(40, 32)
    decode.decode(table, category, tmp_path / "p.h5", geometry=geometry)
    return table


def run(tmp_path: Path, output: str, **config) -> Path:
    """Run the stage as the workflow does."""
    features = tmp_path / output
    job = make_job(
        input={"manifest": str(tmp_path / "m.csv"), "pixels": str(tmp_path / "p.h5")},
        output={"features": str(features)},
        settings={"extractor": EXTRACTOR},
        wildcards={"category": "widget", "extractor": "r"},
        config={"cache": str(tmp_path / "kept")} | config,
        threads=2,
    )
    facts = stage_script.main(job)
    assert facts["images"] == len(manifest.read(tmp_path / "m.csv"))
    return features


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


def forbidden(*_, **__):
    pytest.fail("the backbone was run")


@pytest.mark.usefixtures("indexed")
def test_another_folder_takes_them_without_a_backbone(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first = run(tmp_path, "one/f.h5")
    (file,) = kept(tmp_path)
    os.utime(file, (1, 1))
    monkeypatch.setattr("indad.features.extract.extract", forbidden)
    second = run(tmp_path, "two/f.h5")
    assert second.read_bytes() == first.read_bytes() == file.read_bytes()
    assert second.stat().st_ino != file.stat().st_ino
    assert f"cache: features copied from {file}" in caplog.text
    assert file.stat().st_mtime > 1, "nobody could tell that it was used"


@pytest.mark.usefixtures("indexed")
def test_none_is_kept_unless_asked_for(tmp_path):
    run(tmp_path, "f.h5", cache=None)
    assert not kept(tmp_path)


def address(table, downloaded=None, device="cpu", tf32=False, **changes) -> str:
    settings = EXTRACTOR | changes
    return FeatureCache(Path("c"), table, settings, downloaded, device=device, tf32=tf32).path.name


def test_the_address_is_of_all_that_features_depend_on(category, indexed, tmp_path, monkeypatch):
    file, other = tmp_path / "a.pth", tmp_path / "b.pth"
    file.write_bytes(b"weights")
    other.write_bytes(b"weightz")
    found = [
        address(indexed),
        address(indexed, layers=["layer2", "layer1"]),
        address(indexed, embedding="layer4"),
        address(indexed, crop=None),
        address(indexed, precision="bfloat16"),
        address(indexed, dtype="float16"),
        address(indexed, mean=[0, 0, 0]),
        address(indexed, device="cuda"),
        address(indexed, device="cuda", tf32=True),
        address(indexed.iloc[1:]),
    ]
    # Weights by their bytes: of a file of the user's, and of timm's that were downloaded.
    found += [address(indexed, path, weights=None) for path in (file, other)]
    found.append(address(indexed, weights=str(file)))
    file.write_bytes(b"retrained")
    found.append(address(indexed, weights=str(file)))
    image = category / indexed["image"].iloc[0]
    save_image(image, np.asarray(Image.open(image)) ^ 1)
    found.append(address(manifest.build(category)))
    monkeypatch.setattr(settings, "version", lambda name: f"another {name}")
    found.append(address(indexed))
    assert len(set(found)) == len(found)


def test_the_address_is_of_nothing_else(indexed):
    assert address(indexed) == address(indexed.copy())
    # A CPU has no TF32, and weights of its own need none that were downloaded.
    assert address(indexed) == address(indexed, tf32=True) == address(indexed, Path("timm's"))


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("kind", ["bit flipped", "truncated"])
def test_damaged_ones_are_removed_and_made_anew(tmp_path, caplog, kind):
    first = run(tmp_path, "one/f.h5").read_bytes()
    (file,) = kept(tmp_path)
    content = bytearray(first)
    content[len(content) // 2] ^= 1
    file.write_bytes(content if kind == "bit flipped" else first[:-9])
    second = run(tmp_path, "two/f.h5")
    assert second.read_bytes() == first
    assert f"cache: {file} is not used and was removed" in caplog.text
    assert [path.read_bytes() for path in kept(tmp_path)] == [first]
    assert not list(tmp_path.rglob("*.tmp*"))


def test_others_under_its_name_are_refused(indexed, tmp_path, caplog):
    run(tmp_path, "one/f.h5")
    (file,) = kept(tmp_path)
    manifest.write(indexed.iloc[1:], tmp_path / "m.csv")
    fewer = FeatureCache(tmp_path / "kept", indexed.iloc[1:], EXTRACTOR, device="cpu")
    fewer.path.parent.mkdir(exist_ok=True)
    file.rename(fewer.path)
    assert not fewer.take(tmp_path / "two/f.h5")
    assert "manifest_sha256" in caplog.text
    assert not (tmp_path / "two/f.h5").exists()
    with pytest.raises(StoreError):
        FeatureStore(fewer.path)


@pytest.mark.usefixtures("indexed")
def test_a_cache_that_cannot_be_written_to_stops_nothing(tmp_path, caplog):
    (tmp_path / "kept").write_text("a file where the folder should be")
    features = run(tmp_path, "f.h5")
    with FeatureStore(features) as store:
        assert len(store.split("train")) == 3
    assert "could not be stored" in caplog.text
