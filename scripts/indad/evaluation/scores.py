"""Scores on disk: a CSV table with one row per image, and the anomaly maps in HDF5.

The file of maps has a checksum (``indad.core.checksum``), records the settings and inputs of both
files, and holds the hash of the table, so that the two cannot be mixed up with those of other runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from indad.core import atomic, checksum
from indad.core.errors import StoreError
from indad.data.decode import Pixels
from indad.data.ground_truth import GroundTruth
from indad.data.manifest import content_hash
from indad.methods.base import Scores

COLUMNS = ("image", "label", "defect", "score")
#: Layout version of the file of maps. A reader refuses any other.
SCHEMA_VERSION = 2
KIND = "maps"


class Scored(NamedTuple):
    """Scores of one experiment, category and seed.

    Attributes:
        table: columns ``image, label, defect, score``.
        maps: float32 ``(N, H, W)``, in the table's order.
        made_with: settings and inputs that the scores were computed from.
    """

    table: pd.DataFrame
    maps: np.ndarray
    made_with: dict[str, Any]


class ScoreFiles(NamedTuple):
    """Files of the scores of one experiment, category and seed.

    Attributes:
        table: image scores.
        maps: anomaly maps.
        pixels: the decoded images and masks that the scores are of.
    """

    table: Path
    maps: Path
    pixels: Path


def write(
    scores: Scores,
    truth: GroundTruth,
    table: Path,
    maps: Path,
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Write image scores to ``table`` (CSV) and float32 maps ``(N, H, W)`` to ``maps`` (HDF5).

    Raises:
        StoreError: a score is not finite; nothing is written in this case.
    """
    if not (np.isfinite(scores.image).all() and np.isfinite(scores.maps).all()):
        finite = np.isfinite(scores.image) & np.isfinite(scores.maps).all(axis=(1, 2))
        bad = truth.image[~finite]
        raise StoreError(f"the scores of {len(bad)} images are not finite, the first is {bad[0]}")
    values = (truth.image, truth.label, truth.defect, scores.image)
    # Nine digits restore a float32 exactly.
    text = pd.DataFrame(dict(zip(COLUMNS, values, strict=True))).to_csv(
        index=False, float_format="%.9g", lineterminator="\n"
    )
    with checksum.create_hdf5(maps, KIND, SCHEMA_VERSION, room=scores.maps.nbytes) as file:
        file.create_dataset("image", data=list(truth.image), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("map", data=scores.maps, chunks=(1, *scores.maps.shape[1:]))
        file.attrs["table_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        file.attrs["made_with"] = json.dumps(made_with or {}, sort_keys=True)
    atomic.write_text(table, text)


def read(table: Path, maps: Path) -> Scored:
    """Read a table of image scores and the anomaly maps that were written with it.

    Raises:
        StoreError: a file is missing or damaged, or they are from different runs.
    """
    try:
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise StoreError(f"{table}: no readable score table ({error.strerror})") from None
    with checksum.open_hdf5(maps, KIND, SCHEMA_VERSION, "file of anomaly maps") as file:
        if found != file.attrs["table_sha256"]:
            raise StoreError(
                f"{table}: not the scores that were written with {maps} (damaged, edited, or from "
                "another run); delete both and run again"
            )
        return Scored(read_table(table), file["map"][()], json.loads(file.attrs["made_with"]))


def read_with_truth(files: ScoreFiles, manifest: pd.DataFrame) -> tuple[Scored, GroundTruth]:
    """Read scores and the ground truth of the same images.

    Args:
        files: of the scores.
        manifest: of the category.

    Raises:
        StoreError: a file is missing or damaged, or belongs to other images.
    """
    scored = read(files.table, files.maps)
    check_images(scored.made_with, manifest, files.maps)
    with Pixels(files.pixels, manifest) as pixels:
        return scored, pixels.ground_truth(manifest)


def read_table(path: Path) -> pd.DataFrame:
    """Read image scores: columns ``image, label, defect, score``.

    Only `read` checks that they belong to the anomaly maps.

    Raises:
        StoreError: the file is missing or not a table of scores.
    """
    try:
        frame = pd.read_csv(
            path,
            keep_default_na=False,
            dtype={"image": str, "defect": str},
            encoding="utf-8",
            lineterminator="\n",
        )
        frame = frame.astype({"label": int, "score": float})
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise StoreError(f"{path}: not a readable score table ({error}); delete it") from None
    if list(frame) != list(COLUMNS) or not np.isfinite(frame["score"]).all():
        raise StoreError(f"{path}: not a score table, or damaged; delete it and run again")
    return frame


def check_images(made_with: Mapping[str, Any], manifest: pd.DataFrame, path: Path) -> None:
    """Check that scores belong to the images of a manifest.

    Args:
        made_with: settings and inputs of the scores.
        manifest: the images.
        path: file of the scores, for the error message.

    Raises:
        StoreError: they belong to other images.
    """
    if made_with.get("features_made_with", {}).get("manifest_sha256") != content_hash(manifest):
        raise StoreError(
            f"{path}: scores of other images than the manifest's; delete it and run again"
        )
