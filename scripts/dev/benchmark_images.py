"""Benchmark work that begins with image files: feature extraction, and a whole run.

INDAD_TEST_MVTEC (MVTec AD with its category bottle) and INDAD_TEST_R18_WEIGHTS (a ResNet-18
checkpoint) name real data. Without them the images are drawn and the weights random, which takes
about the same time, except for the coreset: its bounds skip more distances if features cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from benchmark_methods import PICKS, Data
from measure import ROOT

from indad.data import decode, manifest
from indad.data.images import Geometry
from indad.data.synthetic import draw_category
from indad.features.extract import extract
from indad.features.settings import AUTO_BATCH


def category_folder(small: bool) -> Path:
    """Return a category folder: bottle if it is available, else a drawn one of its size."""
    if "INDAD_TEST_MVTEC" in os.environ and not small:
        return Path(os.environ["INDAD_TEST_MVTEC"]) / "bottle"
    folder = Path(tempfile.mkdtemp()) / "wood"
    train, test = (24, 4) if small else (209, 16)
    draw_category(folder, "wood", train=train, good=test, per_defect=test)
    return folder


def resnet18_weights(folder: Path) -> str:
    """Return a ResNet-18 checkpoint: the real one if it is available, else a random one."""
    if "INDAD_TEST_R18_WEIGHTS" in os.environ:
        return os.environ["INDAD_TEST_R18_WEIGHTS"]
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18").state_dict(), folder / "resnet18.pth")
    return str(folder / "resnet18.pth")


def extract_data(backbone: str, most: int, small: bool) -> Data:
    folder = category_folder(small)
    images = manifest.build(folder)
    images = images.groupby("split").head(most).reset_index(drop=True)
    scratch = Path(tempfile.mkdtemp())
    extractor = {
        "backbone": backbone,
        "weights": "random" if "wide" in backbone else resnet18_weights(scratch),
        "layers": ["layer1", "layer2", "layer3"],
        "embedding": "layer3",
        "resize": 256,
        "crop": 224,
        "precision": "float32",
        "dtype": "float32",
    }
    return {"images": images, "folder": folder, "scratch": scratch, "extractor": extractor}


def extract_ours(data: Data, precision: str = "float32") -> None:
    """Decode the images, run the backbone and its checks, and write the feature file."""
    images, scratch = data["images"], data["scratch"]
    extractor = data["extractor"] | {"precision": precision}
    geometry, threads = Geometry.from_config(256, 224), torch.get_num_threads()
    pixels, features = scratch / "pixels.h5", scratch / "features.h5"
    decode.decode(images, data["folder"], pixels, geometry=geometry, threads=threads)
    extract(images, pixels, features, extractor=extractor, device=data["device"])
    pixels.unlink()
    features.unlink()


def extract_bare(data: Data) -> None:
    """timm's unchanged network, created and run to the deepest layer on images in memory."""
    name, count, device = data["extractor"]["backbone"], len(data["images"]), data["device"]
    batch = AUTO_BATCH[device]
    model = timm.create_model(name, features_only=True, out_indices=(1, 2, 3)).eval()
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 224, 224, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for start in range(0, count, batch):
            model(images[: count - start])


def end_to_end_data(small: bool) -> Data:
    scratch = Path(tempfile.mkdtemp())
    folder = category_folder(small)
    return {"folder": folder, "scratch": scratch, "weights": resnet18_weights(scratch)}


def end_to_end_ours(data: Data) -> None:
    """Run the whole workflow from nothing: five experiments, image files to tables."""
    folder, scratch, threads = data["folder"], data["scratch"], torch.get_num_threads()
    places = {
        "results": str(scratch / "results"),
        "device": data["device"],
        "datasets": {"mvtec": {"path": str(folder.parent), "categories": [folder.name]}},
        "extractors": {"r18-trunk": {"weights": data["weights"]}},
        "experiments": {"SPADE-R18": {"k_pixel": 50}, "PaDiM-R18-100": {"seeds": [0]}},
        "run": {
            "experiments": [
                *("SPADE-R18", "PaDiM-R18-100"),
                *("PatchCore-R18-25", "PatchCore-R18-10", "PatchCore-R18-1"),
            ]
        },
    }
    (scratch / "places.yaml").write_text(yaml.safe_dump(places))
    command = [
        *(sys.executable, "-m", "snakemake", "--cores", str(threads), "--resources", "gpu=1"),
        *("--configfile", str(ROOT / "config/evidence.yaml"), str(scratch / "places.yaml")),
        *("--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", str(scratch)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert (scratch / "results/tables/results.md").exists()
    shutil.rmtree(scratch)


def end_to_end_anomalib(data: Data) -> None:
    """Fit and test anomalib's PatchCore-10; ``extra_seconds``: the rest of the coreset's picks."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from anomalib.models.components.sampling import k_center_greedy

    folder = data["folder"]
    defects = sorted(each.name for each in (folder / "test").iterdir() if each.name != "good")
    module = Folder(
        name="category",
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{each}" for each in defects],
        mask_dir=[f"ground_truth/{each}" for each in defects],
        num_workers=torch.get_num_threads(),
        val_split_mode="same_as_test",
    )
    model = Patchcore(
        backbone="resnet18",
        pre_trained=False,
        layers=["layer2", "layer3"],
        coreset_sampling_ratio=0.1,
        pre_processor=Patchcore.configure_pre_processor((256, 256), (224, 224)),
        visualizer=False,
    )
    weights = torch.load(data["weights"], weights_only=True)
    missing = model.model.feature_extractor.feature_extractor.load_state_dict(weights, strict=False)
    assert not missing.missing_keys, missing.missing_keys
    greedy = k_center_greedy.KCenterGreedy
    select = greedy.select_coreset_idxs

    def select_part(self: Any) -> list[int]:
        count, self.coreset_size = self.coreset_size, min(PICKS, self.coreset_size)
        started = time.perf_counter()
        select(self)
        seconds = time.perf_counter() - started
        data["extra_seconds"] = seconds * (count / self.coreset_size - 1)
        return torch.randperm(len(self.embedding))[:count].tolist()

    greedy.select_coreset_idxs = select_part
    accelerator = "gpu" if data["device"] == "cuda" else "cpu"
    engine = Engine(
        accelerator=accelerator, devices=1, default_root_dir=data["scratch"], logger=False
    )
    engine.fit(model, datamodule=module)
    engine.test(model, datamodule=module)
