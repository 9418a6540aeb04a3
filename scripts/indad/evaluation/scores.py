"""Scores on disk: a CSV table with one row per image, and the anomaly maps in HDF5.

The file of maps has a checksum (``indad.core.checksum``), records the settings and inputs of both
files, and holds the hash of the table, so that the two cannot be mixed up with those of other runs.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
import pandas as pd

from indad.core import atomic, checksum
from indad.core.csv_files import read_csv
from indad.core.errors import StoreError
from indad.core.lazy import LazySequence
from indad.data.decode import Pixels, require_unchanged
from indad.data.ground_truth import GroundTruth
from indad.data.images import Geometry, mask_pixels
from indad.data.manifest import content_hash, mask_files, photo_of
from indad.evaluation.sorted_scores import median
from indad.methods.base import Scores

#: Columns of the table and their types.
COLUMNS = {"image": "str", "label": "int", "defect": "str", "score": "float"}
#: Layout version of the file of maps. A reader refuses any other.
SCHEMA_VERSION = 3
KIND = "maps"
#: Value outside the crop of a map at the image's own size: below every score, so that a defect
#: there counts as missed.
UNSEEN = float(np.finfo(np.float32).min)


class Scored(NamedTuple):
    """Scores of one experiment, category and seed.

    Attributes:
        table: columns ``image, label, defect, score``.
        maps: anomaly maps, in the table's order.
        made_with: settings and inputs that the scores were computed from.
        peaks: the highest value of each map, ``(N,)``.
        normal: median of the map values of all good images; None without good images.
    """

    table: pd.DataFrame
    maps: Sequence[np.ndarray]
    made_with: dict[str, Any]
    peaks: np.ndarray
    normal: float | None


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


class Writer:
    """Writes the scores of test images batch by batch; made by `create`.

    Attributes:
        truth: of the images.
        scores: image scores, ``(N,)``.
        peaks: the highest value of each map, ``(N,)``.
    """

    def __init__(self, file: h5py.File, truth: GroundTruth) -> None:
        self._file, self.truth = file, truth
        self.scores = np.full(len(truth.image), np.nan, np.float32)
        self.peaks = self.scores.copy()
        file.create_dataset("image", data=list(truth.image), dtype=h5py.string_dtype("utf-8"))
        file.create_group("map")

    def write(self, images: Sequence[int], scores: Scores) -> None:
        """Write the scores of some images.

        Raises:
            StoreError: a score is not finite.
        """
        for image, score, values in zip(images, scores.image, scores.maps, strict=True):
            if not (np.isfinite(score) and np.isfinite(values).all()):
                raise StoreError(f"the scores of {self.truth.image[image]} are not finite")
            self.scores[image], self.peaks[image] = score, values.max(initial=-np.inf)
            self._file["map"][str(image)] = values

    def normal(self, folder: Path) -> float | None:
        """Return the median of the map values of all good images; None without good images.

        Args:
            folder: where a temporary file may be created.
        """
        maps, good = _maps(self._file), np.flatnonzero(self.truth.label == 0)
        return median((maps[i] for i in good), folder) if len(good) else None

    def table(self) -> str:
        """Return the table of image scores as CSV."""
        values = (self.truth.image, self.truth.label, self.truth.defect, self.scores)
        # Nine digits restore a float32 exactly.
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True))).to_csv(
            index=False, float_format="%.9g", lineterminator="\n"
        )

    def finish(self, normal: float | None, made_with: Mapping[str, Any] | None = None) -> None:
        """Write what describes the maps: settings and inputs, peaks and ``normal``."""
        self._file["peak"] = self.peaks
        self._file.attrs["table_sha256"] = hashlib.sha256(self.table().encode()).hexdigest()
        described = {"made_with": dict(made_with or {}), "normal": normal}
        self._file.attrs["description"] = json.dumps(described, sort_keys=True)


@contextmanager
def create(truth: GroundTruth, table: Path, maps: Path, room: int = 0) -> Iterator[Writer]:
    """Write image scores to ``table`` (CSV) and anomaly maps to ``maps`` (HDF5).

    Both appear when the block ends without an error; `Writer.finish` has to be called in it.

    Args:
        truth: of the images.
        table: the CSV file.
        maps: the HDF5 file.
        room: bytes of the maps, to check the free space of the disk.
    """
    with checksum.create_hdf5(maps, KIND, SCHEMA_VERSION, room=room) as file:
        writer = Writer(file, truth)
        yield writer
    atomic.write_text(table, writer.table())


def read(table: Path, maps: Path) -> Scored:
    """Read a table of image scores and open the anomaly maps that were written with it.

    Raises:
        StoreError: a file is missing or damaged, or they are from different runs.
    """
    try:
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise StoreError(f"{table}: no readable score table ({error.strerror})") from None
    file = checksum.open_hdf5(maps, KIND, SCHEMA_VERSION, "file of anomaly maps")
    if found != file.attrs["table_sha256"]:
        file.close()
        raise StoreError(
            f"{table}: not the scores that were written with {maps} (damaged, edited, or from "
            "another run); delete both and run again"
        )
    described = json.loads(file.attrs["description"])
    return Scored(read_table(table), _maps(file), peaks=file["peak"][()], **described)


def _maps(file: h5py.File) -> Sequence[np.ndarray]:
    return LazySequence(len(file["image"]), lambda image: file["map"][str(image)][()])


class FullSize(NamedTuple):
    """What is needed to evaluate at the images' own size.

    Attributes:
        folder: the category folder, with the masks.
        geometry: resize and crop that the scores were computed with.
    """

    folder: Path
    geometry: Geometry

    @classmethod
    def from_settings(cls, folder: str, settings: Mapping[str, Any]) -> Self | None:
        """Return it if ``evaluate_at`` of the settings is ``original``, else None."""
        if settings["evaluate_at"] == "input":
            return None
        return cls(Path(folder), Geometry.from_config(settings["resize"], settings["crop"]))

    def map(self, values: np.ndarray, row: Any) -> np.ndarray:
        """Return an anomaly map at the size of the image; ``UNSEEN`` outside the crop."""
        # Imported here: SciPy's filters are not needed to plan a workflow.
        from indad.methods.anomaly_map import on_image

        return on_image(values, self.geometry, row.height, row.width, UNSEEN)

    def mask(self, row: Any) -> np.ndarray:
        """Read the mask of an image from its files.

        Raises:
            DataError: a file has changed, or cannot be read.
        """
        if not (files := mask_files(row)):
            return np.zeros((row.height, row.width), bool)
        for name, sha256 in files:
            require_unchanged(self.folder / name, sha256)
        paths = [self.folder / name for name, _ in files]
        return mask_pixels(*paths, photo=photo_of(self.folder, row))


def read_with_truth(
    files: ScoreFiles, manifest: pd.DataFrame, full: FullSize | None = None
) -> tuple[Scored, GroundTruth]:
    """Read scores and the ground truth of the same images; maps and masks when they are used.

    Args:
        files: of the scores.
        manifest: of the category.
        full: for maps and masks at the images' own size instead of that of the input.

    Raises:
        StoreError: a file is missing or damaged, or belongs to other images.
    """
    scored = read(files.table, files.maps)
    check_images(scored.made_with, manifest, files.maps)
    truth = Pixels(files.pixels, manifest).ground_truth(manifest)
    if full is None:
        return scored, truth
    rows = list(manifest[manifest["split"] == "test"].itertuples())
    maps = LazySequence(len(rows), lambda image: full.map(scored.maps[image], rows[image]))
    masks = LazySequence(len(rows), lambda image: full.mask(rows[image]))
    return scored._replace(maps=maps), replace(truth, mask=masks)


def read_table(path: Path) -> pd.DataFrame:
    """Read image scores: columns ``image, label, defect, score``.

    Only `read` checks that they belong to the anomaly maps.

    Raises:
        StoreError: the file is missing or not a table of scores.
    """
    frame = read_csv(path, COLUMNS, "score table")
    if not np.isfinite(frame["score"]).all():
        raise StoreError(f"{path}: has a score that is not finite; delete it and run again")
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
