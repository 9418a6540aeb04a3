"""From scores and ground truth to the tidy table of metrics, one value a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad import atomic
from indad.errors import StoreError
from indad.metrics import image_metrics, pixel_metrics
from indad.store import GroundTruth

#: Columns of every metrics file. The bounds of the confidence interval are empty so far.
COLUMNS = (
    "dataset", "category", "experiment", "seed", "metric", "value", "ci_low", "ci_high",
)  # fmt: skip


def evaluate(scores: pd.DataFrame, maps: np.ndarray, truth: GroundTruth) -> dict[str, float]:
    """Compute all metrics that the ground truth allows.

    Pixel metrics are left out when no test image has a mask. Defective images without one say
    nothing about pixels and are left out of them; good images count, with an empty mask.

    Args:
        scores: as ``scores.read_table``.
        maps: anomaly maps ``(N, H, W)``.
        truth: of the same images, in the same order.

    Raises:
        StoreError: scores and ground truth are not of the same images.
    """
    if list(scores["image"]) != list(truth.image) or len(maps) != len(truth.image):
        raise StoreError("the scores are not of the store's test images; delete them, run again")
    values = image_metrics(truth.label, scores["score"].to_numpy())
    if truth.mask.any():
        known = truth.has_mask
        values |= pixel_metrics(maps[known], truth.mask[known])
    return values


def tidy(values: Mapping[str, float], **keys: Any) -> pd.DataFrame:
    """Arrange metrics as rows of ``COLUMNS``; ``keys`` gives dataset, category and so on."""
    rows = [{**keys, "metric": metric, "value": value} for metric, value in values.items()]
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
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: not a readable metrics table ({error}); delete it") from None
        if list(frame) != list(COLUMNS):
            raise StoreError(f"{path}: not a metrics table; delete it and run again")
        frames.append(frame.astype({"value": float, "ci_low": float, "ci_high": float}))
    return pd.concat(frames, ignore_index=True)
