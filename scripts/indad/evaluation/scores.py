"""Scores on disk: a CSV row an image and the anomaly maps in HDF5.

The maps' file is sealed (``indad.core.checksum``), says what both were made with, and holds the
hash of the table, so that neither is ever taken for another's.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from indad.core import atomic, checksum
from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.data.manifest import content_hash
from indad.methods.base import Scores

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "label", "defect", "score")
#: The layout of the maps' file. A reader refuses any other.
SCHEMA_VERSION = 2
KIND = "maps"


class Scored(NamedTuple):
    """What `write` wrote.

    Attributes:
        table: columns ``image, label, defect, score``.
        maps: float32 ``(N, H, W)``, in the table's order.
        made_with: what the scores were made with.
    """

    table: pd.DataFrame
    maps: np.ndarray
    made_with: dict[str, Any]


def write(
    scores: Scores,
    truth: GroundTruth,
    table: Path,
    maps: Path,
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Write image scores to ``table`` (CSV) and float32 maps ``(N, H, W)`` to ``maps`` (HDF5).

    Raises:
        StoreError: a score is not finite; nothing is written then.
    """
    if not (np.isfinite(scores.image).all() and np.isfinite(scores.maps).all()):
        finite = np.isfinite(scores.image) & np.isfinite(scores.maps).all(axis=(1, 2))
        bad = truth.image[~finite]
        raise StoreError(f"the scores of {len(bad)} images are not finite, the first is {bad[0]}")
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = zip(truth.image, truth.label, truth.defect, scores.image, strict=True)
    # Nine digits give a float32 back exactly.
    writer.writerows((name, label, defect, f"{score:.9g}") for name, label, defect, score in rows)
    text = lines.getvalue()
    with checksum.create_hdf5(maps, KIND, SCHEMA_VERSION, room=scores.maps.nbytes) as file:
        file.create_dataset("image", data=list(truth.image), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("map", data=scores.maps, chunks=(1, *scores.maps.shape[1:]))
        file.attrs["table_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        file.attrs["made_with"] = json.dumps(made_with or {}, sort_keys=True)
    atomic.write_text(table, text)


def read(table: Path, maps: Path) -> Scored:
    """Read a table of image scores and the anomaly maps that were written with it.

    Raises:
        StoreError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise StoreError(f"{table}: no readable score table ({error.strerror})") from None
    with _opened(maps) as file:
        if found != file.attrs["table_sha256"]:
            raise StoreError(
                f"{table}: not the scores that were written with {maps}: damaged, edited or of "
                "another run; delete both and run again"
            )
        return Scored(read_table(table), file["map"][()], json.loads(file.attrs["made_with"]))


def read_table(path: Path) -> pd.DataFrame:
    """Read image scores: columns ``image, label, defect, score``.

    Whether they are the ones that were computed only `read` can tell.

    Raises:
        StoreError: the file is missing or no table of scores.
    """
    import pandas as pd

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


def read_maps(path: Path, images: Sequence[str] | None = None) -> np.ndarray:
    """Read anomaly maps ``(N, H, W)``: all of them, or those of some images in their order.

    Raises:
        StoreError: the file is missing, damaged, or lacks an image.
    """
    with _opened(path) as file:
        if images is None:
            return file["map"][()]
        index = {name: i for i, name in enumerate(file["image"].asstr()[()])}
        missing = [name for name in images if name not in index]
        if missing:
            raise StoreError(f"{path}: has no map of {missing[0]}; delete it and run again")
        return np.stack([file["map"][index[name]] for name in images])


def _opened(path: Path) -> h5py.File:
    return checksum.open_hdf5(path, KIND, SCHEMA_VERSION, "file of anomaly maps")


def check_images(made_with: Mapping[str, Any], manifest: pd.DataFrame, path: Path) -> None:
    """Refuse scores of other images than a manifest's.

    Args:
        made_with: of the scores.
        manifest: the images.
        path: the scores' file, for the message.

    Raises:
        StoreError: they are of other images.
    """
    if made_with.get("features_made_with", {}).get("manifest_sha256") != content_hash(manifest):
        raise StoreError(f"{path}: scores of other images than the manifest's; delete it")
