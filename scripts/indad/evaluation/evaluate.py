"""From scores and ground truth to the tidy table of metrics, one value a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad.core import atomic
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

#: Columns of every metrics file. The bounds of the confidence interval are empty where the test
#: images do not tell them.
COLUMNS = (
    "dataset", "category", "experiment", "seed", "metric", "value", "ci_low", "ci_high",
)  # fmt: skip


def evaluate(scores: pd.DataFrame, maps: np.ndarray, truth: GroundTruth) -> dict[str, float]:
    """Compute all metrics that the ground truth allows.

    Image metrics are not a number where all images are good, or all defective. Pixel metrics are
    left out when no test image has a mask. Defective images without one say nothing about pixels
    and are left out of them; good images count, with an empty mask.

    Args:
        scores: as ``scores.read_table``.
        maps: anomaly maps ``(N, H, W)``.
        truth: of the same images, in the same order.

    Raises:
        StoreError: scores and ground truth are not of the same images.
    """
    if list(scores["image"]) != list(truth.image) or len(maps) != len(truth.image):
        raise StoreError("the scores are not of the store's test images; delete them, run again")
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
    """Tell whether there are defective pixels, and others."""
    return bool(truth.mask.any() and not truth.mask[truth.has_mask].all())


def resample(
    scores: pd.DataFrame, maps: np.ndarray, truth: GroundTruth, *, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Compute all metrics that the ground truth allows on resamples of the images.

    Good and defective images are drawn apart, for pixel metrics among those that ``evaluate`` takes
    for them. The draws depend on the labels and the seed only, so that those of two experiments on
    the same images are the same.

    Args:
        scores, maps, truth: as ``evaluate``, which checks them.
        resamples: number B of resamples.
        seed: of the draws.

    Returns:
        Per metric ``(B,)``. NaN where a resample has no defective pixel, which happens only if the
        masks of defective images are empty in view.
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
    return dict(zip(names, values, strict=False))  # the fourth, AUPRO, is of pixels alone


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
    resamples. An average precision of m defective images never counts for more than m
    observations, an F1 for more than 2 m (its denominator counts each of them twice).

    Args:
        values: of ``evaluate``.
        resampled: of ``resample``.
        scores: image scores ``(N,)``.
        truth: of the same images.
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
    """Arrange metrics as rows of ``COLUMNS``; ``keys`` gives dataset, category and so on."""
    rows = []
    for metric, value in values.items():
        low, high = (bounds or {}).get(metric, UNKNOWN)
        rows.append({**keys, "metric": metric, "value": value, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a metrics table as CSV, atomically."""
    with atomic.replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """Read and concatenate metrics tables, in the order given.

    Raises:
        StoreError: a file is missing, damaged, or has other columns.
    """
    frames = []
    for path in paths:
        try:
            frame = pd.read_csv(
                path,
                keep_default_na=False,
                na_values={"value": [""], "ci_low": [""], "ci_high": [""]},
                dtype={"dataset": str, "category": str, "experiment": str, "metric": str},
            )
            if list(frame) != list(COLUMNS):
                raise StoreError(f"{path}: not a metrics table; delete it and run again")
            numbers = {"seed": int, "value": float, "ci_low": float, "ci_high": float}
            frames.append(frame.astype(numbers))
        except (OSError, ValueError, OverflowError) as error:
            raise StoreError(f"{path}: not a readable metrics table ({error}); delete it") from None
    return pd.concat(frames, ignore_index=True)
