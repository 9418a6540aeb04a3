"""A GPU gives the results of the CPU, also with too little memory. Needs a CUDA device."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import timm
import torch

from indad import methods
from indad.core.device import use_device
from indad.data import decode, manifest
from indad.data.images import Geometry
from indad.data.synthetic import draw_category
from indad.features.extract import extract
from indad.features.source import ArrayFeatures
from indad.features.store import FeatureStore
from indad.inference.loading import load_model
from indad.methods.padim import PaDiM
from indad.methods.patchcore import PatchCore
from indad.methods.spade import SPADE
from test_extract import EXTRACTOR

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device here; the CPU's results are tested"
)

LAYERS = ["layer1", "layer2", "layer3"]
RESNET18 = EXTRACTOR | {"backbone": "resnet18", "layers": LAYERS, "resize": 256, "crop": 224}
DETECTORS = [
    SPADE(k_image=3, k_pixel=10),
    PaDiM(dimensions=30),
    PatchCore(embedding="concat", coreset_ratio=0.1),
    PatchCore(embedding="official", coreset_ratio=0.1, neighbours=3),
]


@pytest.fixture(autouse=True)
def float32():
    yield use_device({"device": "cuda", "tf32": False}, threads=4)
    torch.cuda.set_per_process_memory_fraction(1.0)
    use_device({"device": "cuda", "tf32": False}, threads=4)


def limit_memory(mib: int) -> None:
    """Let torch allocate at most this much on the GPU beside what earlier tests still hold."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = torch.cuda.memory_reserved() + (mib << 20)
    torch.cuda.set_per_process_memory_fraction(limit / total)


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    """Return the files of a drawn category, decoded."""
    folder = tmp_path_factory.mktemp("gpu")
    draw_category(folder / "wood", "wood", train=40, good=6, per_defect=4)
    images = manifest.build(folder / "wood")
    decode.decode(images, folder / "wood", folder / "p.h5", geometry=Geometry.from_config(256, 224))
    torch.manual_seed(0)
    weights = timm.create_model("resnet18").state_dict()
    torch.save(weights, folder / "resnet18.pth")
    return folder, images, RESNET18 | {"weights": str(folder / "resnet18.pth")}


def features(category, name: str, **options) -> FeatureStore:
    folder, images, extractor = category
    extract(images, folder / "p.h5", folder / name, extractor=extractor, **options)
    return FeatureStore(folder / name)


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def difference(store: FeatureStore, reference: FeatureStore) -> float:
    splits = [(store.split(each), reference.split(each)) for each in ("train", "test")]
    return max(
        largest_difference(ours.maps(layer), theirs.maps(layer))
        for ours, theirs in splits
        for layer in ours.layers
    )


def test_features_are_those_of_the_cpu(category):
    reference = features(category, "cpu.h5", device="cpu")
    assert difference(features(category, "gpu.h5", device="cuda"), reference) < 1e-5
    use_device({"device": "cuda", "tf32": True}, threads=4)
    rounded = features(category, "tf32.h5", device="cuda")
    assert 1e-5 < difference(rounded, reference) < 1e-2
    assert rounded.made_with["tf32"] is True


def test_a_batch_too_large_for_the_gpu_is_halved(category, caplog):
    reference = features(category, "all.h5", device="cuda", batch_size=40)
    limit_memory(200)
    with caplog.at_level(logging.WARNING):
        halved = features(category, "halved.h5", device="cuda", batch_size=40)
    assert "the GPU's memory does not hold a batch of 40 images; trying 20" in caplog.text
    assert difference(halved, reference) < 1e-5


@pytest.fixture(scope="module")
def sources():
    """Return smooth random features of training and test images."""
    rng = np.random.default_rng(0)

    def make(count: int) -> ArrayFeatures:
        maps = {
            name: rng.normal(size=(count, channels, side, side)).astype(np.float32)
            for name, channels, side in (("layer1", 24, 56), ("layer2", 48, 28))
        }
        return ArrayFeatures(maps, input_size=(224, 224))

    return make(40), make(6)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda each: each.method)
def test_methods_score_as_on_the_cpu(detector, sources, tmp_path):
    train, test = sources
    expected = detector.fit(train).score(test)
    detector.fit(train, device="cuda").save(tmp_path / "model.safetensors")
    loaded = methods.load(tmp_path / "model.safetensors", gallery=train, device="cuda")
    for scores in (detector.score(test), loaded.score(test)):
        np.testing.assert_allclose(scores.image, expected.image, rtol=1e-4)
        assert largest_difference(scores.maps, expected.maps) < 1e-4

    limit_memory(1000)
    scores = detector.fit(train, device="cuda").score(test)
    np.testing.assert_allclose(scores.image, expected.image, rtol=1e-4)
    assert largest_difference(scores.maps, expected.maps) < 1e-4


def test_a_search_too_large_for_the_gpu_gets_smaller_blocks(sources, caplog):
    train, test = sources
    detector = PatchCore(embedding="concat", coreset_ratio=0.5)
    expected = detector.fit(train, device="cuda").score(test)
    limit_memory(400)
    with caplog.at_level(logging.WARNING):
        scores = detector.fit(train, device="cuda", memory=4 << 30).score(test)
    assert "does not hold a fit within" in caplog.text
    np.testing.assert_allclose(scores.image, expected.image, rtol=1e-4)


def test_predictions_are_those_of_the_cpu(category):
    folder, images, _ = category
    with features(category, "predict.h5", device="cuda") as store:
        detector = PatchCore(embedding="concat", coreset_ratio=0.1)
        detector.fit(store.split("train"), device="cuda", made_with=store.made_with)
    detector.save(folder / "model.safetensors")
    files = [folder / "wood" / name for name in images.loc[images["split"] == "test", "image"]]
    on = {
        device: list(load_model(folder / "model.safetensors", device=device).predict(files))
        for device in ("cpu", "cuda")
    }
    for ours, theirs in zip(on["cuda"], on["cpu"], strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-4)
        assert largest_difference(ours.map, theirs.map) < 1e-4
