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
        drawn = labels.astype(np.int32)
        found = _resample(scores["score"].to_numpy(), drawn, labels, IMAGE_METRICS, resamples, seed)
    if _has_masks(truth):
        known = truth.has_mask
        numbered = regions(truth.mask[known])
        found |= _resample(maps[known], numbered, labels[known], PIXEL_METRICS, resamples, seed)
    return found


def _resample(
    scores: np.ndarray,
    numbered: np.ndarray,
    labels: np.ndarray,
    names: Iterable[str],
    resamples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    counts = bootstrap.ImageCounts.from_scores(scores, numbered)
    values = counts.metrics(bootstrap.draws(labels, resamples, seed))
    return dict(zip(names, values, strict=False))  # the fourth, AUPRO, exists for pixels only


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
    found = {}
    for metric, value in values.items():
        if np.isnan(value):
            found[metric] = UNKNOWN
            continue
        if metric == "image_auroc":
            covariance = delong_covariance(*placements(truth.label, scores[None]))
            found[metric] = auroc_interval(
                value,
                float(covariance[0, 0]),
                level=level,
                good=len(truth.label) - defective,
                defective=defective,
            )
            continue
        known = resampled[metric][np.isfinite(resampled[metric])]
        if metric in IMAGE_METRICS:
            images, most = defective, float(defective if metric == "image_ap" else 2 * defective)
        else:
            images, most = int(truth.mask[truth.has_mask].any(axis=(1, 2)).sum()), np.inf
        found[metric] = (
            score_interval(value, float(known.var()), level=level, images=images, most=most)
            if len(known) > 1
            else UNKNOWN
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
