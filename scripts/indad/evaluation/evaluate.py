"""From scores and ground truth to the tidy table of metrics, one value per row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad.core.csv_files import read_csv
from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.evaluation import bootstrap
from indad.evaluation.intervals import (
    UNKNOWN,
    Interval,
    auroc_interval,
    delong_covariance,
    placements,
    score_interval,
)
from indad.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    image_metrics,
    pixel_metrics,
    regions,
)

#: Columns of every metrics file and their types. The bounds of the confidence interval are empty
#: where they cannot be estimated.
COLUMNS = {
    "dataset": "str", "category": "str", "experiment": "str", "seed": "int", "metric": "str",
    "value": "float", "ci_low": "float", "ci_high": "float",
}  # fmt: skip


def evaluate(scores: pd.DataFrame, maps: np.ndarray, truth: GroundTruth) -> dict[str, float]:
    """Compute all metrics that the ground truth allows.

    Image metrics are NaN if all images are good or all are defective. Pixel metrics are left out
    if no test image has a mask. They ignore defective images without a mask and include good
    images, whose mask is empty.

    Args:
        scores: as ``scores.read_table``.
        maps: anomaly maps ``(N, H, W)``.
        truth: ground truth of the same images, in the same order.

    Raises:
        StoreError: scores and ground truth belong to different images.
    """
    if list(scores["image"]) != list(truth.image) or len(maps) != len(truth.image):
        raise StoreError("the scores belong to other images; delete them and run again")
    values = dict.fromkeys(IMAGE_METRICS, np.nan)
    if _both_kinds(truth):
        values = image_metrics(truth.label, scores["score"].to_numpy())
    if _has_masks(truth):
        known = truth.has_mask
        values |= pixel_metrics(maps[known], truth.mask[known])
    return values


def _both_kinds(truth: GroundTruth) -> bool:
    return len(set(truth.label)) > 1


def _has_masks(truth: GroundTruth) -> bool:
    """Return whether there are both defective and normal pixels."""
    return bool(truth.mask.any() and not truth.mask[truth.has_mask].all())


def resample(
    scores: pd.DataFrame, maps: np.ndarray, truth: GroundTruth, *, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Compute all metrics that the ground truth allows on resamples of the images.

    Good and defective images are drawn separately. Pixel metrics use the same images as in
    ``evaluate``. The draws depend only on the labels and the seed, so two experiments on the same
    images get the same draws.

    Args:
        scores, maps, truth: as for ``evaluate``, which checks them.
        resamples: number B of resamples.
        seed: seed of the draws.

    Returns:
        Per metric ``(B,)``. NaN for a resample without a defective pixel, which is possible only
        if the crop empties the masks of some defective images.
    """
    labels = truth.label
    found = {}
    if _both_kinds(truth):
        counts = bootstrap.ImageCounts.from_scores(
            scores["score"].to_numpy(), labels.astype(np.int32)
        )
        values = counts.metrics(bootstrap.draws(labels, resamples, seed))
        found = dict(zip(IMAGE_METRICS, values[:3], strict=True))  # AUPRO exists for pixels only
    if _has_masks(truth):
        known = truth.has_mask
        counts = bootstrap.ImageCounts.from_scores(maps[known], regions(truth.mask[known]))
        values = counts.metrics(bootstrap.draws(labels[known], resamples, seed))
        found |= dict(zip(PIXEL_METRICS, values, strict=True))
    return found


def intervals(
    values: Mapping[str, float],
    resampled: Mapping[str, np.ndarray],
    scores: np.ndarray,
    truth: GroundTruth,
    *,
    level: float,
) -> dict[str, Interval]:
    """Compute the confidence interval of every metric.

    Image AUROC: ``auroc_interval``. All others: ``score_interval`` with the variance over the
    resamples. With m defective images, an average precision counts as at most m observations and
    an F1 as at most 2 m (its denominator counts each defective image twice).

    Args:
        values: metrics from ``evaluate``.
        resampled: metrics from ``resample``.
        scores: image scores ``(N,)``.
        truth: ground truth of the same images.
        level: confidence level.
    """
    defective = int(truth.label.sum())
    masks = int(truth.mask[truth.has_mask].any(axis=(1, 2)).sum())
    most = {"image_ap": defective, "image_f1max": 2 * defective}
    found = dict.fromkeys(values, UNKNOWN)
    for metric, value in values.items():
        if np.isnan(value):
            continue
        if metric == "image_auroc":
            variance = float(delong_covariance(*placements(truth.label, scores[None]))[0, 0])
            good = len(truth.label) - defective
            found[metric] = auroc_interval(
                value, variance, level=level, good=good, defective=defective
            )
            continue
        known = resampled[metric][np.isfinite(resampled[metric])]
        if len(known) > 1:
            found[metric] = score_interval(
                value,
                float(known.var()),
                level=level,
                images=defective if metric in IMAGE_METRICS else masks,
                most=most.get(metric, np.inf),
            )
    return found


def tidy(
    values: Mapping[str, float], bounds: Mapping[str, Interval] | None = None, **keys: Any
) -> pd.DataFrame:
    """Return metrics as rows of ``COLUMNS``; ``keys`` holds dataset, category and so on."""
    rows = []
    for metric, value in values.items():
        low, high = (bounds or {}).get(metric, UNKNOWN)
        rows.append({**keys, "metric": metric, "value": value, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """Read and concatenate metrics tables, in the order given.

    Raises:
        StoreError: a file is missing, damaged or lacks a column.
    """
    return pd.concat(
        [read_csv(path, COLUMNS, "metrics table") for path in paths], ignore_index=True
    )
