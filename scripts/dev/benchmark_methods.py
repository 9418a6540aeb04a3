"""Benchmark work on synthetic features: coreset, nearest neighbours, metrics, PaDiM.

A contender takes the data of its case and returns the factor to multiply its time by: 1 if it did
all of the work. Functions named ``*_ours`` run this project.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def clustered_points(count: int, dimensions: int, seed: int = 0) -> Any:
    """Return points distributed like patch features: clusters of low intrinsic dimension."""
    import torch

    rng = np.random.default_rng(seed)
    spread = 1 / np.arange(1, dimensions + 1) ** 0.7
    centres = rng.normal(size=(200, dimensions)) * spread * 2
    points = centres[rng.integers(200, size=count)]
    points += rng.normal(size=(count, dimensions)) * spread
    return torch.from_numpy(points.astype(np.float32))


# -- coreset --------------------------------------------------------------------------------------


def coreset_data(small: bool) -> dict[str, Any]:
    points = clustered_points(20_000 if small else 163_856, 128)
    return {"points": points, "count": len(points) // 10}


def coreset_ours(data: dict[str, Any]) -> float:
    from indad.methods.coreset import greedy_k_center

    greedy_k_center(data["points"], data["count"], start=0)
    return 1


def coreset_products(data: dict[str, Any]) -> float:
    """The matrix products alone: one distance for each point and pick."""
    import torch

    points = data["points"]
    picks = points[: data["count"]].T.contiguous()
    block = torch.empty(1024, data["count"])
    for part in points.split(1024):
        torch.mm(part, picks, out=block[: len(part)])
    return 1


def coreset_loop(data: dict[str, Any], picks: int = 100) -> float:
    """One pass over all points for each pick, scaled from 100 picks."""
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

    # Points with three axes are not projected, so both choose on the same 128 dimensions.
    points = data["points"][:, None]
    KCenterGreedy(points, (picks + 0.5) / len(points)).select_coreset_idxs()
    return data["count"] / picks


# -- nearest neighbours ---------------------------------------------------------------------------


def search_data(dimensions: int, bank: int, queries: int, small: bool) -> dict[str, Any]:
    import torch

    size = bank // 8 if small else bank
    points = clustered_points(size + queries, dimensions)
    # Test patches are not bank patches, but come from the same clusters.
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    return {"bank": points[order[:size]], "queries": points[order[size:]]}


def search_ours(data: dict[str, Any]) -> float:
    from indad.methods.neighbors import Bank

    Bank(data["bank"]).nearest(data["queries"])
    return 1


def gallery_ours(data: dict[str, Any]) -> float:
    """SPADE's search: the same bank, split into 50 images that are prepared when read."""
    from indad.methods.neighbors import Gallery

    images = data["bank"].split(len(data["bank"]) // 50)
    gallery = Gallery(lambda i: images[i], keep=False)
    gallery.nearest(data["queries"][None], [range(len(images))])
    return 1


def search_products(data: dict[str, Any]) -> float:
    """The matrix product alone, in blocks that fit the cache."""
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
    """scikit-learn's three metrics, and an AUPRO from its ROC curve and a curve per region."""
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


def padim_data(
    train: int, dimensions: int, channels: tuple[int, ...], small: bool
) -> dict[str, Any]:
    from indad.features.source import ArrayFeatures

    side = 14 if small else 56
    rng = np.random.default_rng(0)

    def source(images: int) -> ArrayFeatures:
        maps = {
            f"layer{i + 1}": rng.random((images, c, side >> i, side >> i), np.float32)
            for i, c in enumerate(channels)
        }
        return ArrayFeatures(maps, input_size=(4 * side, 4 * side))

    return {"train": source(train), "test": source(16), "dimensions": dimensions}


def padim_ours(data: dict[str, Any]) -> float:
    from indad.methods.padim import PaDiM

    PaDiM(dimensions=data["dimensions"]).fit(data["train"]).score(data["test"])
    return 1


def padim_anomalib_quarter(data: dict[str, Any]) -> float:
    """anomalib on a quarter of the positions, scaled: every position costs the same."""
    return 4 * padim_anomalib(data, side=28)


def padim_anomalib(data: dict[str, Any], side: int | None = None) -> float:
    """anomalib's Gaussian and anomaly map, on the same features embedded its own way."""
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
    return 1
