"""Benchmark work of prediction: one image in a loaded model, and from the start to the first score.

The model is a PatchCore of 10 %, on the images of the cases of extraction.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import timm
import torch
from benchmark_images import extract_data
from benchmark_methods import Data
from measure import ROOT
from PIL import Image

from indad import load_model, methods
from indad.data import decode
from indad.data.images import Geometry
from indad.features.extract import extract
from indad.features.store import FeatureStore

#: Predictions of one image, one after the other.
PREDICTIONS = 50
NETWORK = "timm.create_model('resnet18', features_only=True, out_indices=(2, 3)).eval()"


def model_data(small: bool) -> Data:
    """Fit a PatchCore to a category."""
    data = extract_data("resnet18", 209, small)
    images, scratch = data["images"], data["scratch"]
    extractor = data["extractor"] | {"layers": ["layer2", "layer3"]}
    pixels, features = scratch / "pixels.h5", scratch / "features.h5"
    decode.decode(images, data["folder"], pixels, geometry=Geometry.from_config(256, 224))
    extract(images, pixels, features, extractor=extractor)
    with FeatureStore(features) as store:
        detector = methods.create("patchcore", {"embedding": "concat", "coreset_ratio": 0.1})
        detector.fit(store.split("train"), made_with=store.made_with)
    detector.save(scratch / "model.safetensors")
    name = images.loc[images["split"] == "test", "image"].iloc[0]
    return {"model": scratch / "model.safetensors", "image": data["folder"] / name}


def loaded_data(small: bool) -> Data:
    data = model_data(small)
    pixels = np.asarray(Image.open(data["image"]).convert("RGB"))
    return data | {"pixels": pixels}


def _repeat(data: Data, predict: Callable[[], object], started: float) -> None:
    """Predict many times; what was prepared since ``started`` does not count."""
    predict()
    data["extra_seconds"] = started - time.perf_counter()
    for _ in range(PREDICTIONS):
        predict()
        if data["device"] == "cuda":
            torch.cuda.synchronize()


def loaded_ours(data: Data) -> None:
    """Resize and crop, run the backbone, search, and make the map."""
    started = time.perf_counter()
    model = load_model(data["model"], device=data["device"])
    _repeat(data, partial(model.predict, data["pixels"]), started)


def loaded_bare(data: Data) -> None:
    """timm's unchanged network on an image in memory, to layer3."""
    started = time.perf_counter()
    model = timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).eval()
    model = model.to(data["device"], memory_format=torch.channels_last)
    with torch.inference_mode():
        _repeat(data, partial(model, torch.rand(1, 3, 224, 224, device=data["device"])), started)


class _Anomalib(torch.nn.Module):
    """anomalib's PatchCore with the memory bank of ours; its outputs as a tuple for OpenVINO."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        self.model = PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False).eval()
        self.model.memory_bank = load_model(data["model"], device="cpu").detector.bank_.clone()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model(image)
        return found.pred_score, found.anomaly_map


def loaded_anomalib(data: Data) -> None:
    """anomalib's PatchCore on an image in memory."""
    started, device = time.perf_counter(), data["device"]
    model = _Anomalib(data).eval().to(device)
    with torch.inference_mode():
        _repeat(data, partial(model, torch.rand(1, 3, 224, 224, device=device)), started)


def loaded_openvino(data: Data) -> None:
    """The same, compiled by OpenVINO."""
    import openvino

    started, image = time.perf_counter(), torch.rand(1, 3, 224, 224)
    converted = openvino.convert_model(_Anomalib(data).eval(), example_input=image)
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(converted, "CPU", threads)
    _repeat(data, partial(compiled, image.numpy()), started)


def start_ours(data: Data) -> None:
    """Score one image file with the command line."""
    command = ["predict", str(data["model"]), str(data["image"]), "--threshold", "none"]
    command += ["--device", data["device"]]
    _run([str(ROOT / "scripts/run.py"), *command])


def start_bare(data: Data) -> None:
    """Import torch and timm, and run the network once."""
    device = data["device"]
    image = f"torch.rand(1, 3, 224, 224, device={device!r})"
    _run(["-c", f"import torch, timm; {NETWORK}.to({device!r})({image})"])


def _run(command: list[str]) -> None:
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
