"""Models fitted on drawn photos with tiny random networks, without a workflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from conftest import save_image
from indad import methods
from indad.data.images import Geometry, prepare
from indad.evaluation.calibration import Threshold
from indad.features.extract import open_backbone
from indad.features.settings import made_with
from indad.inference.model import Extractor, Model

RESNET = {
    "backbone": "test_resnet",
    "weights": "random",
    "layers": ["layer1", "layer2", "layer3"],
    "embedding": "layer3",
    "resize": 72,
    "crop": [64, 76],
    "precision": "float32",
    "dtype": "float32",
}
VIT = RESNET | {
    "backbone": "test_vit",
    "layers": ["blocks.1", "norm"],
    "embedding": "cls",
    "crop": 64,
    "dtype": "float16",
}


def photos(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Smooth textures with some noise."""
    rows, columns = (np.arange(side) for side in size)
    wave = 100 + 40 * np.sin(rows[:, None] / 9 + columns / 13)
    noisy = wave[..., None] + rng.normal(0, 12, (count, *size, 3))
    return list(np.clip(noisy, 0, 255).astype(np.uint8))


def make_model(folder: Path, extractor: dict, method: str, **parameters: object) -> Model:
    """Fit a model on drawn photos, without files other than its own."""
    backbone = open_backbone(extractor, "cpu")
    geometry = Geometry.from_config(extractor["resize"], extractor["crop"])
    photo = photos(np.random.default_rng(1), 12, (90, 100))
    pixels = np.stack([prepare(Image.fromarray(each), geometry) for each in photo])
    settings = made_with(extractor, backbone.weights_sha256) | {
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "input_size": list(pixels.shape[1:3]),
        "weights_source": backbone.weights_source,
    }
    extract = Extractor(backbone, settings, "cpu", 8)
    detector = methods.create(method, parameters)
    detector.fit(extract(pixels), made_with=settings)
    path = folder / "model.safetensors"
    detector.save(path, train_sha256=["0" * 64])
    model = Model(path, [(methods.load(path), extract)])
    scores = [result.score for result in model.predict(photo)]
    model.threshold = Threshold(float(np.median(scores)) * 1.001, max(scores), "drawn")
    return model


def save_photos(folder: Path) -> list[Path]:
    """Save two photos of each of three sizes; Pillow resizes the height of the last ones first."""
    rng = np.random.default_rng(0)
    drawn = [each for size in ((90, 100), (64, 131), (301, 80)) for each in photos(rng, 2, size)]
    return [save_image(folder / f"{i}.png", each) for i, each in enumerate(drawn)]
