"""Scores on disk: a CSV row an image and the anomaly maps in HDF5."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from indad import atomic
from indad.errors import StoreError
from indad.methods.base import Scores
from indad.store import GroundTruth

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "label", "defect", "score")


def write(scores: Scores, truth: GroundTruth, table: Path, maps: Path) -> None:
    """Write image scores to ``table`` (CSV) and float32 maps ``(N, H, W)`` to ``maps`` (HDF5).

    Raises:
        StoreError: a score is not finite; nothing is written then.
    """
    if not (np.isfinite(scores.image).all() and np.isfinite(scores.maps).all()):
        finite = np.isfinite(scores.image) & np.isfinite(scores.maps).all(axis=(1, 2))
        bad = truth.image[~finite]
        raise StoreError(f"the scores of {len(bad)} images are not finite, the first is {bad[0]}")
    with atomic.replacing(maps) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("image", data=list(truth.image), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("map", data=scores.maps, chunks=(1, *scores.maps.shape[1:]))
    with (
        atomic.replacing(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        rows = zip(truth.image, truth.label, truth.defect, scores.image, strict=True)
        # Nine digits give a float32 back exactly.
        writer.writerows(
            (name, label, defect, f"{score:.9g}") for name, label, defect, score in rows
        )


def read_table(path: Path) -> pd.DataFrame:
    """Read image scores: columns ``image, label, defect, score``.

    Raises:
        StoreError: the file is missing or damaged.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(
            path, keep_default_na=False, dtype={"image": str, "defect": str}, lineterminator="\n"
        )
        frame = frame.astype({"label": int, "score": float})
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: not a readable score table ({error}); delete it") from None
    if list(frame) != list(COLUMNS) or not np.isfinite(frame["score"]).all():
        raise StoreError(f"{path}: not a score table, or damaged; delete it and run again")
    return frame


def read_maps(path: Path, images: Sequence[str] | None = None) -> np.ndarray:
    """Read anomaly maps ``(N, H, W)``: all of them, or those of some images in their order.

    Raises:
        StoreError: the file is missing, damaged, or lacks an image.
    """
    try:
        with h5py.File(path, "r") as file:
            if images is None:
                return file["map"][()]
            index = {name: i for i, name in enumerate(file["image"].asstr()[()])}
            return np.stack([file["map"][index[name]] for name in images])
    except (OSError, KeyError, RuntimeError) as error:
        raise StoreError(f"{path}: not readable anomaly maps ({error}); delete it") from None
