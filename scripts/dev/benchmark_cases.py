"""The work that `benchmark.py` times: the data of each case, and who does it.

Real features are used where INDAD_TEST_MVTEC (MVTec AD, with bottle) and INDAD_TEST_R18_WEIGHTS (a
ResNet-18 checkpoint) name them, otherwise drawn images and random weights: the time is much the
same, but for the coreset's, whose bounds do better the better the features cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent

#: A contender gets the case's data and returns by how much to multiply its time: 1 when it did the
#: whole work.
Contender = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Case:
    """Something to measure: how to make its data, and who does the work. The first is ours."""

    title: str
    setup: Callable[[bool], dict[str, Any]]
    contenders: dict[str, Contender]
    needs: dict[str, str]
    most_runs: int = 99  # fewer for what takes a quarter of an hour


def clustered(count: int, dimensions: int, seed: int = 0) -> Any:
    """Points as patch features lie: clusters of low intrinsic dimension, float32 tensor."""
    import torch

    rng = np.random.default_rng(seed)
    spread = 1 / np.arange(1, dimensions + 1) ** 0.7
    centres = rng.normal(size=(200, dimensions)) * spread * 2
    points = centres[rng.integers(200, size=count)]
    points += rng.normal(size=(count, dimensions)) * spread
    return torch.from_numpy(points.astype(np.float32))


# -- coreset --------------------------------------------------------------------------------------


def coreset_data(small: bool) -> dict[str, Any]:
    points = clustered(20_000 if small else 163_856, 128)
    return {"points": points, "count": len(points) // 10}


def coreset_ours(data: dict[str, Any]) -> float:
    from indad.methods.coreset import greedy_k_center

    greedy_k_center(data["points"], data["count"], start=0)
    return 1


def coreset_products(data: dict[str, Any]) -> float:
    """The bare matrix products of one distance per point and pick."""
    import torch

    points = data["points"]
    picks = points[: data["count"]].T.contiguous()
    block = torch.empty(1024, data["count"])
    for part in points.split(1024):
        torch.mm(part, picks, out=block[: len(part)])
    return 1


def coreset_loop(data: dict[str, Any], picks: int = 100) -> float:
    """One pass over all points a pick, scaled from 100 picks."""
    import torch

    points = data["points"]
    nearest = torch.full((len(points),), torch.inf)
    pick = 0
    for _ in range(picks):
        nearest = torch.minimum(nearest, (points - points[pick]).square_().sum(dim=1))
        pick = int(nearest.argmax())
    return data["count"] / picks


def coreset_anomalib(data: dict[str, Any], picks: int = 100) -> float:
    """anomalib's KCenterGreedy without its projection, scaled from 100 picks."""
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

    # Points of three axes are not projected again, so that both choose on the same 128 dimensions.
    points = data["points"][:, None]
    KCenterGreedy(points, (picks + 0.5) / len(points)).select_coreset_idxs()
    return data["count"] / picks


# -- nearest neighbours ---------------------------------------------------------------------------


def search_data(dimensions: int, bank: int, queries: int) -> Callable[[bool], dict[str, Any]]:
    def setup(small: bool) -> dict[str, Any]:
        import torch

        size = bank // 8 if small else bank
        points = clustered(size + queries, dimensions)
        # Test patches are not bank patches; shuffled clusters make neighbours of all.
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
        return {"bank": points[order[:size]], "queries": points[order[size:]]}

    return setup


def search_ours(data: dict[str, Any]) -> float:
    from indad.methods.neighbors import nearest

    nearest(data["queries"], data["bank"])
    return 1


def gallery_ours(data: dict[str, Any]) -> float:
    """SPADE's search: the same bank as 50 images, each prepared when it is read."""
    from indad.methods.neighbors import Gallery

    images = data["bank"].split(len(data["bank"]) // 50)
    gallery = Gallery(lambda i: images[i], keep=False)
    gallery.nearest(data["queries"][None], [range(len(images))])
    return 1


def search_products(data: dict[str, Any]) -> float:
    """The bare matrix product, in blocks that fit the cache."""
    import torch

    bank = data["bank"].T.contiguous()
    block = torch.empty(512, bank.shape[1])
    for part in data["queries"].split(512):
        torch.mm(part, bank, out=block[: len(part)])
    return 1


def search_faiss(data: dict[str, Any]) -> float:
    import faiss

    index = faiss.IndexFlatL2(data["bank"].shape[1])
    index.add(data["bank"].numpy())
    index.search(data["queries"].numpy(), 1)
    return 1


# -- metrics --------------------------------------------------------------------------------------


def metrics_data(small: bool) -> dict[str, Any]:
    from scipy.ndimage import gaussian_filter

    count = 20 if small else 115
    rng = np.random.default_rng(0)
    maps = np.stack([gaussian_filter(rng.random((224, 224), np.float32), 4) for _ in range(count)])
    masks = np.zeros(maps.shape, bool)
    for mask in masks[count // 4 :]:
        for _ in range(rng.integers(1, 4)):
            row, column = rng.integers(0, 180, 2)
            mask[row : row + rng.integers(8, 44), column : column + rng.integers(8, 44)] = True
    maps[masks] += 0.02
    return {"maps": maps, "masks": masks}


def metrics_ours(data: dict[str, Any]) -> float:
    from indad.evaluation.metrics import pixel_metrics

    pixel_metrics(data["maps"], data["masks"])
    return 1


def metrics_sklearn(data: dict[str, Any]) -> float:
    """scikit-learn's three, and an AUPRO from a ROC curve and one curve per region."""
    from scipy.ndimage import label
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )

    maps, masks = data["maps"], data["masks"]
    truth, scores = masks.reshape(-1), maps.reshape(-1)
    roc_auc_score(truth, scores)
    average_precision_score(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    np.nanmax(2 * precision * recall / (precision + recall + 1e-12))
    rate, _, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    overlap, regions = np.zeros(len(rate)), 0
    for image, mask in zip(maps, masks, strict=True):
        numbered, count = label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = np.sort(image[numbered == region])
            overlap += 1 - np.searchsorted(inside, thresholds) / len(inside)
            regions += 1
    below = rate <= 0.3
    np.trapezoid((overlap / regions)[below], rate[below])
    return 1


# -- PaDiM ----------------------------------------------------------------------------------------


def padim_data(count: int, dimensions: int, channels: tuple[int, ...]) -> Any:
    def setup(small: bool) -> dict[str, Any]:
        from indad.features.source import ArrayFeatures

        side = 14 if small else 56
        rng = np.random.default_rng(0)

        def source(images: int) -> ArrayFeatures:
            return ArrayFeatures(
                {
                    f"layer{i + 1}": rng.random((images, c, side >> i, side >> i), np.float32)
                    for i, c in enumerate(channels)
                },
                input_size=(4 * side, 4 * side),
            )

        return {"train": source(count), "test": source(16), "dimensions": dimensions}

    return setup


def padim_ours(data: dict[str, Any]) -> float:
    from indad.methods.padim import PaDiM

    PaDiM(dimensions=data["dimensions"]).fit(data["train"]).score(data["test"])
    return 1


def padim_anomalib_quarter(data: dict[str, Any]) -> float:
    """The same on a quarter of the positions; each costs the same, or more when there are more."""
    return 4 * padim_anomalib(data, side=28)


def padim_anomalib(data: dict[str, Any], side: int | None = None) -> float:
    """anomalib's Gaussian and anomaly map on the same features, embedded as it does."""
    import torch
    from anomalib.models.components.stats import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
    from torch.nn.functional import interpolate

    def embed(source: Any) -> torch.Tensor:
        maps = [torch.from_numpy(source.maps(layer)) for layer in source.layers]
        size = maps[0].shape[-2:]
        joined = torch.cat([interpolate(m, size=size, mode="nearest") for m in maps], dim=1)
        chosen = torch.randperm(joined.shape[1])[: data["dimensions"]]
        return joined[:, chosen, :side, :side]

    # With several threads MKL's inversion of a 550 x 550 matrix can hang: no fault of anomalib's.
    threads, invert = torch.get_num_threads(), torch.linalg.inv

    def in_one_thread(matrices: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(1)
        inverses = invert(matrices)
        torch.set_num_threads(threads)
        return inverses

    torch.linalg.inv = in_one_thread
    gaussian = MultiVariateGaussian()
    with torch.no_grad():
        gaussian.fit(embed(data["train"]))
        AnomalyMapGenerator()(
            embedding=embed(data["test"]),
            mean=gaussian.mean,
            inv_covariance=gaussian.inv_covariance,
            image_size=data["test"].input_size,
        )
    return 1


# -- from image files -----------------------------------------------------------------------------


def category_folder(small: bool) -> Path:
    """A category folder: bottle where it is, else one drawn to its size."""
    if "INDAD_TEST_MVTEC" in os.environ and not small:
        return Path(os.environ["INDAD_TEST_MVTEC"]) / "bottle"
    from indad.data.synthetic import draw_category

    folder = Path(tempfile.mkdtemp()) / "wood"
    train, test = (24, 4) if small else (209, 16)
    draw_category(folder, "wood", train=train, good=test, per_defect=test)
    return folder


def resnet18_weights(folder: Path) -> str:
    """A ResNet-18 checkpoint: the real one where it is, else a random one."""
    if "INDAD_TEST_R18_WEIGHTS" in os.environ:
        return os.environ["INDAD_TEST_R18_WEIGHTS"]
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18").state_dict(), folder / "resnet18.pth")
    return str(folder / "resnet18.pth")


def extract_data(backbone: str, most: int) -> Callable[[bool], dict[str, Any]]:
    def setup(small: bool) -> dict[str, Any]:
        from indad.data import manifest

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

    return setup


def extract_ours(data: dict[str, Any]) -> float:
    """Decoding, the network, the checks and the file, beginning with the images' files."""
    import torch

    from indad.data import decode
    from indad.data.images import Geometry
    from indad.features.extract import extract

    scratch = data["scratch"]
    geometry, threads = Geometry.from_config(256, 224), torch.get_num_threads()
    decode.decode(
        data["images"], data["folder"], scratch / "p.h5", geometry=geometry, threads=threads
    )
    extract(data["images"], scratch / "p.h5", scratch / "f.h5", extractor=data["extractor"])
    shutil.rmtree(scratch)
    return 1


def extract_in(precision: str) -> Callable[[dict[str, Any]], float]:
    """The same with the backbone in another number format."""

    def run(data: dict[str, Any]) -> float:
        return extract_ours(data | {"extractor": data["extractor"] | {"precision": precision}})

    return run


def extract_bare(data: dict[str, Any]) -> float:
    """timm's network as it comes, made and run up to the deepest tap, on a batch in memory."""
    import timm
    import torch

    name, batch, count = data["extractor"]["backbone"], 8, len(data["images"])
    model = timm.create_model(name, features_only=True, out_indices=(1, 2, 3)).eval()
    model = model.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for start in range(0, count, batch):
            model(images[: count - start])
    return 1


def end_to_end_data(small: bool) -> dict[str, Any]:
    scratch = Path(tempfile.mkdtemp())
    folder = category_folder(small)
    return {"folder": folder, "scratch": scratch, "weights": resnet18_weights(scratch)}


def end_to_end_ours(data: dict[str, Any]) -> float:
    """The whole workflow, cold: five experiments, from image files to tables and pictures."""
    import torch
    import yaml

    folder, scratch, threads = data["folder"], data["scratch"], torch.get_num_threads()
    places = {
        "results": str(scratch / "results"),
        "device": "cpu",
        "datasets": {"mvtec": {"path": str(folder.parent), "categories": [folder.name]}},
        "extractors": {"r18-trunk": {"weights": data["weights"]}},
    }
    (scratch / "places.yaml").write_text(yaml.safe_dump(places))
    command = ["--configfile", str(ROOT / "config/bottle_r18.yaml"), str(scratch / "places.yaml")]
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", str(threads), *command),
            *("--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", str(scratch)),
        ],
        check=True,
        capture_output=True,
    )
    assert (scratch / "results/tables/results.md").exists()
    shutil.rmtree(scratch)
    return 1


def end_to_end_anomalib(data: dict[str, Any], picks: int = 100) -> float:
    """anomalib's PatchCore-10 alone: fit and test, with the coreset scaled from 100 picks."""
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from anomalib.models.components.sampling import k_center_greedy

    started = time.perf_counter()
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
    spent = [0.0]
    greedy = k_center_greedy.KCenterGreedy
    whole = greedy.select_coreset_idxs

    def scaled(self: Any) -> list[int]:
        wanted, self.coreset_size = self.coreset_size, min(picks, self.coreset_size)
        before = time.perf_counter()
        whole(self)
        spent[0] = (time.perf_counter() - before) * (wanted / self.coreset_size - 1)
        return torch.randperm(len(self.embedding))[:wanted].tolist()

    if picks:
        greedy.select_coreset_idxs = scaled
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=data["scratch"], logger=False)
    engine.fit(model, datamodule=module)
    engine.test(model, datamodule=module)
    data["seconds"] = time.perf_counter() - started + spent[0]
    return 1


def end_to_end_anomalib_whole(data: dict[str, Any]) -> float:
    """The same with nothing scaled."""
    return end_to_end_anomalib(data, picks=0)


WRN50, RESNET18 = (256, 512, 1024), (64, 128, 256)
SEARCH = {"indad": search_ours, "faiss flat L2": search_faiss, "matrix product": search_products}
PADIM = {"indad": padim_ours, "anomalib": padim_anomalib}
_ANOMALIB_MODULES = (
    "anomalib.models.components.sampling.k_center_greedy",
    "anomalib.models.components.stats",
    "anomalib.models.image.padim.anomaly_map",
)
#: What a contender imports, before its time begins.
WARM = {
    "indad": (
        "indad.methods.coreset", "indad.methods.neighbors", "indad.evaluation.metrics",
        "indad.methods.padim", "indad.methods.anomaly_map", "indad.features.extract",
        "indad.data.decode",
    ),
    "anomalib": _ANOMALIB_MODULES,
    "anomalib (scaled)": _ANOMALIB_MODULES,
    "anomalib (scaled from a quarter)": _ANOMALIB_MODULES,
    "bare network": ("timm",),
    "faiss flat L2": ("faiss",),
    "scikit-learn + plain AUPRO": ("sklearn.metrics", "scipy.ndimage"),
}  # fmt: skip
ANOMALIB = {"anomalib": "anomalib"}
FAISS = {"faiss flat L2": "faiss"}
CASES = {
    "end-to-end": Case(
        "Image files to tables, cold: five experiments; anomalib: PatchCore-10 alone",
        end_to_end_data,
        {"indad": end_to_end_ours, "anomalib (scaled)": end_to_end_anomalib},
        {"anomalib (scaled)": "anomalib"},
        most_runs=1,
    ),
    "extract-r18": Case(
        "Image files to features, 292 images, ResNet-18; bare: the network alone",
        extract_data("resnet18", 209),
        {"indad": extract_ours, "bare network": extract_bare},
        {},
    ),
    "extract-wrn50": Case(
        "Image files to features, 183 images, Wide ResNet-50; bare: the network alone",
        extract_data("wide_resnet50_2", 100),
        {"indad": extract_ours, "bare network": extract_bare},
        {},
        most_runs=2,
    ),
    "extract-precision": Case(
        "Image files to features, 64 images, ResNet-18, by number format",
        extract_data("resnet18", 32),
        {
            "indad": extract_ours,
            "indad, bfloat16": extract_in("bfloat16"),
            "indad, float16": extract_in("float16"),
        },
        {},
        most_runs=1,
    ),
    "coreset": Case(
        "Greedy k-centre, 163,856 x 128, 10 %",
        coreset_data,
        {
            "indad": coreset_ours,
            "matrix products": coreset_products,
            "plain loop (scaled)": coreset_loop,
            "anomalib (scaled)": coreset_anomalib,
        },
        {"anomalib (scaled)": "anomalib"},
    ),
    "patchcore": Case(
        "PatchCore search, 16 images, bank 16,385 x 384",
        search_data(384, 16_385, 16 * 784),
        SEARCH,
        FAISS,
    ),
    "patchcore-official": Case(
        "PatchCore search, 16 images, bank 16,385 x 1024",
        search_data(1024, 16_385, 16 * 784),
        SEARCH,
        FAISS,
    ),
    "spade-layer1": Case(
        "SPADE gallery, 1 image, layer 1 of 50 images (256)",
        search_data(256, 156_800, 3136),
        SEARCH | {"indad": gallery_ours},
        FAISS,
    ),
    "spade-r18": Case(
        "SPADE gallery, 1 image, layer 1 of 50 images (64)",
        search_data(64, 156_800, 3136),
        SEARCH | {"indad": gallery_ours},
        FAISS,
    ),
    "metrics": Case(
        "Pixel metrics of 5.8 million pixels",
        metrics_data,
        {"indad": metrics_ours, "scikit-learn + plain AUPRO": metrics_sklearn},
        {},
    ),
    "padim-r18": Case(
        "PaDiM fit + 16 images, 209 training images, 100 of 448",
        padim_data(209, 100, RESNET18),
        PADIM,
        ANOMALIB,
    ),
    "padim-wrn50-60": Case(
        "PaDiM fit + 16 images, 60 training images, 550 of 1792",
        padim_data(60, 550, WRN50),
        PADIM,
        ANOMALIB,
        most_runs=1,
    ),
} | {
    f"padim-wrn50-{count}": Case(
        f"PaDiM fit + 16 images, {count} training images, 550 of 1792",
        padim_data(count, 550, WRN50),
        {"indad": padim_ours, "anomalib (scaled from a quarter)": padim_anomalib_quarter},
        {"anomalib (scaled from a quarter)": "anomalib"},
        most_runs=1,
    )
    for count in (209, 400)
}
