"""A feature store is complete or absent, and is read only with the expected settings."""

from __future__ import annotations

from contextlib import nullcontext

import h5py
import numpy as np
import pytest

from indad.core import checksum
from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.evaluation import scores
from indad.features import store
from indad.features.store import FeatureStore
from indad.methods.base import Scores

MADE_WITH = {"backbone": "net", "weights_sha256": "ab", "layers": ["a"], "input_size": [8, 8]}


def write(path, rng, dtype="float32", **made_with):
    maps = rng.random((3, 2, 4, 4)).astype(np.float32)
    z = rng.random((3, 5)).astype(np.float32)
    with store.create(path, MADE_WITH | made_with, dtype=dtype) as writer:
        for split in store.SPLITS:
            names = dict(enumerate(["x", "y", "ü z"]))
            part = writer.add_part(split, names, {"a": (2, 4, 4)}, 5, (8, 8))
            writer.write(part, 0, {"a": maps[:2]}, z[:2])
            writer.write(part, 2, {"a": maps[2:]}, z[2:])
        defect = np.array(["good", "cut", "cut"], object)
        truth = GroundTruth(defect, np.array([0, 1, 1]), defect, np.array([True, True, False]), [])
        writer.add_ground_truth(truth)
    return maps, z


def test_round_trip(tmp_path, rng):
    maps, z = write(tmp_path / "s.h5", rng)
    with FeatureStore(tmp_path / "s.h5", MADE_WITH) as opened:
        train, truth = opened.split("train"), opened.ground_truth()
        np.testing.assert_array_equal(train.maps("a"), maps)
        np.testing.assert_array_equal(train.maps("a", slice(1, 3), slice(0, 2)), maps[1:3, :, :2])
        np.testing.assert_array_equal(train.embedding(slice(1, 2)), z[1:2])
        assert opened.numbers("train").tolist() == [0, 1, 2]
        assert (len(train), train.shape("a"), train.input_size) == (3, (2, 4, 4), (8, 8))
    assert truth.label.tolist() == [0, 1, 1]
    assert truth.has_mask.tolist() == [True, True, False]


def test_float16_is_read_as_float32(tmp_path, rng):
    maps, _ = write(tmp_path / "s.h5", rng, dtype="float16")
    with FeatureStore(tmp_path / "s.h5") as opened:
        read = opened.split("test").maps("a")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, maps.astype(np.float16).astype(np.float32))


def test_other_settings_are_refused_by_name(tmp_path, rng):
    write(tmp_path / "s.h5", rng)
    with pytest.raises(StoreError) as error:
        FeatureStore(
            tmp_path / "s.h5", {"backbone": "other", "weights_sha256": "cd", "layers": None}
        )
    assert "backbone: the store has 'net', expected 'other'" in str(error.value)
    assert "weights_sha256: the store has 'ab', expected 'cd'" in str(error.value)
    assert "layers" not in str(error.value)


@pytest.mark.parametrize(
    ("device", "made", "configured", "same"),
    [
        ("cuda", False, False, True),
        ("cuda", True, True, True),
        ("cuda", True, False, False),
        ("cuda", False, True, False),
        ("cpu", False, True, True),  # a CPU has no TF32
    ],
)
def test_tf32_must_be_as_configured_on_a_gpu(tmp_path, rng, device, made, configured, same):
    write(tmp_path / "s.h5", rng, device=device, tf32=made)
    expectation = nullcontext() if same else pytest.raises(StoreError, match="tf32: the store has")
    with expectation, FeatureStore(tmp_path / "s.h5", {"tf32": configured}):
        pass


def test_a_failed_write_leaves_the_old_store(tmp_path, rng):
    maps, _ = write(tmp_path / "s.h5", rng)
    with pytest.raises(RuntimeError), store.create(tmp_path / "s.h5", MADE_WITH, dtype="float32"):
        raise RuntimeError
    with FeatureStore(tmp_path / "s.h5") as opened:
        np.testing.assert_array_equal(opened.split("train").maps("a"), maps)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (np.nan, "float32", "not finite: the weights or the image are damaged.*first image: y"),
        (1e6, "float16", "too large for float16: set 'dtype: float32'.*first image: y"),
    ],
)
def test_bad_values_are_refused(tmp_path, values, dtype, message):
    maps = np.zeros((2, 1, 2, 2), np.float32)
    maps[1, 0, 0, 0] = values
    with (
        pytest.raises(StoreError, match=message),
        store.create(tmp_path / "s.h5", MADE_WITH, dtype=dtype) as writer,
    ):
        part = writer.add_part("train", {0: "x", 1: "y"}, {"a": (1, 2, 2)}, 1, (2, 2))
        writer.write(part, 0, {"a": maps}, np.zeros((2, 1)))


def test_damaged_stores_are_refused(tmp_path, rng):
    path = tmp_path / "s.h5"
    with pytest.raises(StoreError, match="no such feature store"):
        FeatureStore(path)
    path.write_bytes(b"junk")
    with pytest.raises(StoreError, match="not a feature store with a checksum of this project"):
        FeatureStore(path)
    write(path, rng)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"s\.h5: damaged: it has \d+ bytes instead of"):
        FeatureStore(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(StoreError, match="not a feature store with a checksum of this project"):
        FeatureStore(path)
    with checksum.create_hdf5(path, "features", 99):
        pass
    with pytest.raises(StoreError, match="schema version 99; this library reads features, vers"):
        FeatureStore(path)


def test_scores_are_written_batch_by_batch_and_are_finite(tmp_path, rng):
    names = np.array(["a.png", "b.png", "c.png"], object)
    truth = GroundTruth(names, np.array([0, 0, 1]), names, np.ones(3, bool), [])
    table, maps = tmp_path / "scores.csv", tmp_path / "maps.h5"
    values = [rng.random(size, np.float32) for size in ((4, 5), (4, 5), (2, 9))]
    with scores.create(truth, table, maps) as writer:
        for number, each in enumerate(values):
            writer.write([number], Scores(np.float32([number]), each[None]))
        writer.finish(writer.normal(tmp_path), {"k": 1})
    found = scores.read(table, maps)
    assert [*found.table["score"]] == [0, 1, 2]
    assert found.normal == np.median(values[:2])
    assert found.peaks.tolist() == [each.max() for each in values]
    assert all((one == other).all() for one, other in zip(found.maps, values, strict=True))
    with (
        pytest.raises(StoreError, match=r"the scores of c\.png are not finite"),
        scores.create(truth, tmp_path / "x.csv", tmp_path / "x.h5") as writer,
    ):
        writer.write([2], Scores(np.float32([np.nan]), np.zeros((1, 2, 2), np.float32)))
    assert not list(tmp_path.glob("x.*"))
