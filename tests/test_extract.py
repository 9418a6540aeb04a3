"""From files to features: every image is decoded once, and every way gives the same numbers."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import extract as stage_script
from conftest import make_job, read_image, read_mask, save_image
from indad.core import device
from indad.core.errors import DataError, DeviceError, StoreError
from indad.data import decode, manifest
from indad.data.decode import Pixels
from indad.data.images import Geometry
from indad.features.extract import Network, ReadAhead, extract
from indad.features.store import FeatureStore

GEOMETRY = Geometry.from_config(40, 32)
SMALL = "test_resnet"
EXTRACTOR = {
    "backbone": SMALL,
    "layers": ["layer1", "layer2"],
    "embedding": "layer3",
    "resize": 40,
    "crop": 32,
    "precision": "float32",
    "dtype": "float32",
}


@pytest.fixture
def table(category):
    return manifest.build(category)


@pytest.fixture
def decoded(category, table, tmp_path):
    decode.decode(table, category, tmp_path / "p.h5", geometry=GEOMETRY, threads=2)
    return tmp_path / "p.h5"


@pytest.fixture
def extractor(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(SMALL)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.1, 0.5)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return EXTRACTOR | {"weights": str(tmp_path / "weights.pth")}


def test_decoded_images_are_those_of_the_files(category, table, decoded):
    with Pixels(decoded, table) as opened:
        for split in ("train", "test"):
            rows = table[table["split"] == split]
            assert opened.images(split) == rows["image"].tolist()
            for i, name in enumerate(rows["image"]):
                expected = read_image(category / name, GEOMETRY)
                np.testing.assert_array_equal(opened.read(split, [i])[0], expected)
        for i, name in enumerate(rows["mask"]):
            expected = read_mask(category / name, GEOMETRY) if name else np.zeros((32, 32), bool)
            np.testing.assert_array_equal(opened.masks()[i], expected)


def test_all_undecodable_files_are_named_and_nothing_is_left(category, table, tmp_path):
    bad = [table["image"].iloc[0], table["image"].iloc[-1]]
    for name in bad:
        (category / name).write_bytes((category / name).read_bytes()[:60])
    with pytest.raises(DataError, match="2 files cannot be used") as error:
        decode.decode(table, category, tmp_path / "p.h5", geometry=GEOMETRY)
    assert all(name in str(error.value) for name in bad)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize("name", ["train/good/000.png", "ground_truth/cut/000_mask.png"])
def test_a_file_changed_since_it_was_indexed_is_refused(category, table, tmp_path, name):
    save_image(category / name, np.asarray(Image.open(category / name)) ^ 1)
    with pytest.raises(DataError, match=f"{name}: has changed since it was indexed"):
        decode.decode(table, category, tmp_path / "p.h5", geometry=GEOMETRY)


def test_ground_truth_of_the_store_is_that_of_the_decoded_images(
    table, decoded, extractor, tmp_path
):
    extract(table, decoded, tmp_path / "f.h5", extractor=extractor)
    with FeatureStore(tmp_path / "f.h5") as store, Pixels(decoded, table) as opened:
        expected, found = store.ground_truth(), opened.ground_truth(table)
    for name in ("image", "label", "defect", "has_mask"):
        parts = (np.array(list(getattr(each, name))) for each in (found, expected))
        np.testing.assert_array_equal(*parts)
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def test_pixels_of_other_images_are_refused(table, decoded):
    with pytest.raises(StoreError, match="other images"):
        Pixels(decoded, table.iloc[:-1])
    with pytest.raises(StoreError, match="no such file"):
        Pixels(decoded.with_name("none.h5"))
    with decoded.open("rb+") as file:
        file.truncate(3000)
    with pytest.raises(StoreError, match="delete it"):
        Pixels(decoded)


def features(path, decoded, table, extractor, **options):
    extract(table, decoded, path, extractor=extractor, **options)
    with FeatureStore(path) as opened:
        return {
            f"{split} {layer}": value
            for split in ("train", "test")
            for layer, value in [
                *((name, opened.split(split).maps(name)) for name in extractor["layers"]),
                ("z", opened.split(split).embedding()),
            ]
        }


def test_features_are_those_of_the_plain_network(category, table, decoded, extractor, tmp_path):
    """One image at a time through timm's own model, nothing folded, no batch, no stop."""
    found = features(tmp_path / "f.h5", decoded, table, extractor)
    model = timm.create_model(SMALL).eval()
    model.load_state_dict(torch.load(extractor["weights"], weights_only=True))
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    outputs = {}
    for name in ("layer1", "layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.update({name: output.clone()})
        )
    for split in ("train", "test"):
        for i, name in enumerate(table[table["split"] == split]["image"]):
            image = read_image(category / name, GEOMETRY) / 255.0
            image = torch.from_numpy((image - mean) / std).float().permute(2, 0, 1)[None]
            with torch.inference_mode():
                model(image)
            for layer in ("layer1", "layer2"):
                expected = outputs[layer][0].numpy()
                np.testing.assert_allclose(found[f"{split} {layer}"][i], expected, atol=2e-5)
            expected = outputs["layer3"][0].mean(dim=(1, 2)).numpy()
            np.testing.assert_allclose(found[f"{split} z"][i], expected, atol=2e-5)


def test_batches_and_threads_change_features_only_by_rounding(decoded, table, extractor, tmp_path):
    reference = features(tmp_path / "f.h5", decoded, table, extractor)
    threads = torch.get_num_threads()
    try:
        for batch_size, count in ((1, 1), (3, 2)):
            torch.set_num_threads(count)
            other = features(tmp_path / "g.h5", decoded, table, extractor, batch_size=batch_size)
            for name, value in reference.items():
                np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near_and_recorded(precision, decoded, table, extractor, tmp_path):
    reference = features(tmp_path / "f.h5", decoded, table, extractor)
    lower = extractor | {"precision": precision}
    other = features(tmp_path / "g.h5", decoded, table, lower)
    for name, value in reference.items():
        error = np.abs(other[name] - value).max() / np.abs(value).max()
        assert 0 < error < 0.05, name
    with pytest.raises(StoreError, match="precision"):
        FeatureStore(tmp_path / "g.h5", {"precision": "float32"})


def test_the_next_batch_is_read_ahead_and_once():
    calls = []

    def read(batch):
        calls.append((batch.start, batch.stop, threading.current_thread()))
        return np.arange(batch.start, batch.stop)

    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(read, 10, pool)
        for batch in (slice(0, 4), slice(4, 8), slice(8, 10)):
            assert list(ahead(batch)) == list(range(batch.start, batch.stop))
        assert [call[:2] for call in calls] == [(0, 4), (4, 8), (8, 10)]
        first, *rest = (call[2] for call in calls)
        assert first is threading.main_thread()
        assert first not in rest
        # A batch that was halved is read again.
        again = ReadAhead(read, 10, pool)
        again(slice(0, 8))
        assert list(again(slice(0, 4))) == [0, 1, 2, 3]
        assert list(again(slice(4, 8))) == [4, 5, 6, 7]


def test_an_error_of_the_reading_thread_is_raised_and_nothing_is_left(
    decoded, table, extractor, tmp_path, monkeypatch
):
    def read(self, split, numbers):
        if 2 in numbers:
            raise StoreError("damaged")
        return whole(self, split, numbers)

    whole = Pixels.read
    monkeypatch.setattr(Pixels, "read", read)
    with pytest.raises(StoreError, match="damaged"):
        extract(table, decoded, tmp_path / "f.h5", extractor=extractor, batch_size=2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".f", "f.h5"))]


def test_an_error_of_the_writing_thread_is_raised_and_nothing_is_left(
    decoded, table, extractor, tmp_path
):
    """The check of the values runs in the writing thread."""
    extractor |= {"mean": [0, 0, 0], "std": [1e-7, 1e-7, 1e-7], "dtype": "float16"}
    with pytest.raises(StoreError, match="too large for float16"):
        extract(table, decoded, tmp_path / "f.h5", extractor=extractor, batch_size=2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".f", "f.h5"))]


def test_a_batch_too_large_for_the_gpu_is_halved(
    decoded, table, extractor, tmp_path, monkeypatch, caplog
):
    reference = features(tmp_path / "f.h5", decoded, table, extractor)
    whole, most = Network.__call__, 2

    def limited(network, images):
        if len(images) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return whole(network, images)

    monkeypatch.setattr(Network, "__call__", limited)
    with caplog.at_level(logging.WARNING):
        other = features(tmp_path / "g.h5", decoded, table, extractor, batch_size=8)
    assert "does not hold a batch of 8 images; trying 4" in caplog.text
    assert "does not hold a batch of 4 images; trying 2" in caplog.text
    for name, value in reference.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)

    most = 0
    with pytest.raises(DeviceError, match="does not hold a batch of 1 images"):
        features(tmp_path / "h.h5", decoded, table, extractor)
    assert not (tmp_path / "h.h5").exists()


def test_imports_leave_garbage_collection_as_it_was(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "large_module.py").write_text("import gc\ncollecting = gc.isenabled()")
    (tmp_path / "broken_module.py").write_text("raise ImportError('broken')")
    (tmp_path / "other_module.py").touch()
    device.import_large("large_module")
    assert not sys.modules["large_module"].collecting
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.freeze()  # as a program that forks does
    frozen = gc.get_freeze_count()
    try:
        device.import_large("other_module")
        assert gc.get_freeze_count() > 0.9 * frozen  # not 0: a few are freed meanwhile
    finally:
        gc.unfreeze()
    with pytest.raises(ImportError, match="broken"):
        device.import_large("broken_module")
    assert gc.isenabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, so it is used")
def test_a_demanded_gpu_is_not_replaced():
    with pytest.raises(DeviceError, match="has 'device: cuda', but torch finds no usable CUDA"):
        stage_script.main(make_job(config={"device": "cuda"}))
