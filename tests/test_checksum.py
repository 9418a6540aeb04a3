"""A change of any byte of a file with a checksum is noticed before the file is read."""

from __future__ import annotations

import stat

import numpy as np
import pytest
from safetensors import safe_open

from conftest import make_features
from indad.core import checksum
from indad.core.errors import StoreError
from indad.methods.padim import PaDiM


@pytest.fixture
def product(tmp_path, rng):
    path = tmp_path / "x.h5"
    with checksum.create_hdf5(path, "features", 3) as file:
        file.create_dataset("a", data=rng.random((4, 3)))
        file.attrs["note"] = "ü"
    return path


@pytest.fixture
def model(tmp_path, rng):
    path = tmp_path / "m.safetensors"
    PaDiM(dimensions=2).fit(make_features(rng, 3)).save(path)
    return path


def test_round_trip(product):
    with checksum.open_hdf5(product, "features", 3, "store") as file:
        assert file["a"].shape == (4, 3)
        assert file.attrs["note"] == "ü"
    line = product.read_bytes().partition(b"\n")[0].decode().split()
    assert line[:4] == ["indad-sealed", "features", "3", str(product.stat().st_size)]
    assert checksum.recorded_digest(product) == checksum.compute_digest(product)
    assert checksum.compute_digest(product) == f"xxh3_128:{line[4]}"


@pytest.mark.parametrize("name", ["product", "model"])
def test_every_byte_counts(name, request, monkeypatch):
    """Of the header each byte, of the rest some, unused ones and padding included."""
    path = request.getfixturevalue(name)
    sound = path.read_bytes()
    monkeypatch.setattr(checksum, "PIECE", 1 << 16)
    for at in (*range(100), *range(100, len(sound), 7)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(StoreError, match="delete it and run again"):
            checksum.check(path)


@pytest.mark.parametrize("name", ["product", "model"])
def test_a_file_that_is_shorter_or_longer_is_refused(name, request):
    path = request.getfixturevalue(name)
    sound = path.read_bytes()
    for length in range(0, len(sound), 61):
        path.write_bytes(sound[:length])
        with pytest.raises(StoreError, match="damaged"):
            checksum.check(path)
    path.write_bytes(sound + b"\0")
    with pytest.raises(StoreError, match="damaged"):
        checksum.check(path)


def test_another_kind_or_version_is_refused(product, model):
    for kind, version in (("maps", 3), ("features", 4)):
        with pytest.raises(StoreError, match="contains features, schema version 3; this library"):
            checksum.open_hdf5(product, kind, version, "store")
    with pytest.raises(StoreError, match="contains a model"):
        checksum.open_hdf5(model, "features", 3, "store")


def test_a_damaged_file_never_reaches_the_hdf5_library(product, monkeypatch):
    product.write_bytes(product.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(checksum.h5py, "File", lambda *_: pytest.fail("opened"))
    with pytest.raises(StoreError, match=r"x\.h5: damaged: its content does not match"):
        checksum.open_hdf5(product, "features", 3, "store")


def test_models_are_the_same_bytes_each_time_and_readable_by_all(tmp_path, rng, model):
    detector = PaDiM(dimensions=2).fit(make_features(np.random.default_rng(0), 3))
    for name in ("a", "b"):
        detector.save(tmp_path / f"{name}.safetensors")
    one, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert one == other
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(model.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    with safe_open(str(model), framework="numpy") as file:  # any safetensors reader's file
        assert set(file.keys()) >= {"mean", "factor"}
