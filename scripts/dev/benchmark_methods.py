"""Benchmark work on synthetic features: coreset, nearest neighbours, metrics, PaDiM.

A contender takes the data of its case, with the name of the device as ``device``. If it does only a
part of the work, it returns the factor to multiply its time by. Functions named ``*_ours`` run this
project.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from torch.nn.functional import interpolate

from indad.evaluation.metrics import pixel_metrics
from indad.features.source import ArrayFeatures
from indad.methods.coreset import greedy_k_center
from indad.methods.neighbors import CUDA_BLOCK, Bank, Gallery
from indad.methods.padim import PaDiM

Data = dict[str, Any]

#: Picks of a greedy coreset that slow contenders make.
PICKS = 100


def clustered_points(count: int, dimensions: int) -> torch.Tensor:
    """Return points distributed like patch features: clusters of low intrinsic dimension."""
    rng = np.random.default_rng(0)
    spread = 1 / np.arange(1, dimensions + 1) ** 0.7
    centres = rng.normal(size=(200, dimensions)) * spread * 2
    points = centres[rng.integers(200, size=count)]
    points += rng.normal(size=(count, dimensions)) * spread
    return torch.from_numpy(points.astype(np.float32))


# -- coreset --------------------------------------------------------------------------------------


def coreset_data(small: bool) -> Data:
    points = clustered_points(20_000 if small else 163_856, 128)
    return {"points": points, "count": len(points) // 10}


def coreset_ours(data: Data) -> None:
    greedy_k_center(data["points"], data["count"], start=0)


def coreset_products(data: Data) -> None:
    """The matrix products alone: one distance for each point and pick."""
    points = data["points"]
    picks = points[: data["count"]].T.contiguous()
    rows = CUDA_BLOCK[0] if points.is_cuda else 1024
    block = torch.empty(rows, data["count"], device=points.device)
    for part in points.split(rows):
        torch.mm(part, picks, out=block[: len(part)])


def coreset_loop(data: Data) -> float:
    """One pass over all points for each pick."""
    points = data["points"]
    distances = torch.full((len(points),), torch.inf, device=points.device)
    pick = 0
    for _ in range(PICKS):
        distances = torch.minimum(distances, (points - points[pick]).square_().sum(dim=1))
        pick = int(distances.argmax())
    return data["count"] / PICKS


def coreset_anomalib(data: Data) -> float:
    """anomalib's KCenterGreedy without its projection."""
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

    # Points with three axes are not projected, so both choose on the same 128 dimensions.
    points = data["points"][:, None]
    KCenterGreedy(points, (PICKS + 0.5) / len(points)).select_coreset_idxs()
    return data["count"] / PICKS


# -- nearest neighbours ---------------------------------------------------------------------------


def search_data(dimensions: int, bank: int, queries: int, small: bool) -> Data:
    size = bank // 8 if small else bank
    points = clustered_points(size + queries, dimensions)
    # Test patches are not bank patches, but come from the same clusters.
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    return {"bank": points[order[:size]], "queries": points[order[size:]]}


def search_ours(data: Data) -> None:
    Bank(data["bank"]).nearest(data["queries"])


def gallery_ours(data: Data) -> None:
    """SPADE's search: the same bank, split into 50 images that are prepared when read."""
    images = data["bank"].split(len(data["bank"]) // 50)
    gallery = Gallery(lambda i: images[i], keep=False)
    gallery.nearest(data["queries"][None], [range(len(images))])


def search_products(data: Data) -> None:
    """The matrix product alone; on a CPU in blocks that fit the cache."""
    bank = data["bank"].T.contiguous()
    rows = CUDA_BLOCK[0] if bank.is_cuda else 512
    block = torch.empty(rows, bank.shape[1], device=bank.device)
    for part in data["queries"].split(rows):
        torch.mm(part, bank, out=block[: len(part)])


def search_faiss(data: Data) -> None:
    import faiss

    index = faiss.IndexFlatL2(data["bank"].shape[1])
    index.add(data["bank"].numpy())
    index.search(data["queries"].numpy(), 1)


# -- metrics --------------------------------------------------------------------------------------


def metrics_data(small: bool) -> Data:
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


def metrics_ours(data: Data) -> None:
    pixel_metrics(data["maps"], data["masks"])


def metrics_sklearn(data: Data) -> None:
    """scikit-learn's three metrics, and an AUPRO from its ROC curve and a curve per region."""
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


def metrics_adeval(data: Data) -> None:
    """ADEval's pixel AUROC, area under the precision-recall curve, and AUPRO."""
    from adeval import auroc_aupr_aupro

    np.trapz = np.trapezoid  # the old name, which ADEval 1.1 uses and NumPy 2.4 no longer has
    auroc_aupr_aupro(data["maps"], data["masks"].astype(np.uint8))


# -- PaDiM ----------------------------------------------------------------------------------------


def padim_data(train: int, dimensions: int, channels: tuple[int, ...], small: bool) -> Data:
    side = 14 if small else 56
    rng = np.random.default_rng(0)

    def source(images: int) -> ArrayFeatures:
        maps = {
            f"layer{i + 1}": rng.random((images, c, side >> i, side >> i), np.float32)
            for i, c in enumerate(channels)
        }
        return ArrayFeatures(maps, input_size=(4 * side, 4 * side))

    return {"train": source(train), "test": source(16), "dimensions": dimensions}


def padim_ours(data: Data) -> None:
    detector = PaDiM(dimensions=data["dimensions"])
    detector.fit(data["train"], device=data["device"]).score(data["test"])


def padim_anomalib(data: Data, side: int = 56) -> float:
    """anomalib's Gaussian and anomaly map, on the same features embedded its own way.

    ``side`` may be less than the map's 56 positions: every position costs the same.
    """
    from anomalib.models.components.stats import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    def embed(source: ArrayFeatures) -> torch.Tensor:
        maps = [torch.from_numpy(source.maps(each)).to(data["device"]) for each in source.layers]
        size = maps[0].shape[-2:]
        joined = torch.cat([interpolate(m, size=size, mode="nearest") for m in maps], dim=1)
        chosen = torch.randperm(joined.shape[1])[: data["dimensions"]]
        return joined[:, chosen, :side, :side]

    # In several threads MKL can hang on the inversion of a 550 x 550 matrix.
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
    return (56 / side) ** 2
