"""The feature store: one HDF5 file per category and extractor.

Groups ``train`` and ``test`` have a group ``0``, ``1``, ... for each size of images, each with one
dataset per layer ``(N, C, h, w)`` chunked by image, ``embedding (N, D)``, ``image`` and ``number``,
the position in the manifest. The group ``truth`` has ``image``, ``label``, ``defect`` and
``has_mask`` of the test images; their masks are with the decoded images. The attributes record the
settings of the features; a reader that expects others gets an error. The file has a checksum
(``indad.core.checksum``), which is compared before it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from indad.core import checksum
from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.data.images import Size
from indad.features.source import FeatureSource, Part

#: Version of the file's layout.
SCHEMA_VERSION = 4
KIND = "features"
SPLITS = ("train", "test")
_TEXT = h5py.string_dtype("utf-8")
#: The attribute with the settings.
_MADE_WITH = "made_with"
#: Bytes after which the writing thread syncs data to the disk, while the backbone computes.
SYNC_BYTES = 64 << 20


class StoreWriter:
    """Writes a feature store; made by `create`."""

    def __init__(self, file: h5py.File, dtype: str, descriptor: int) -> None:
        self._file = file
        self._dtype = np.dtype(dtype)
        self._descriptor = descriptor
        self._unsynced = 0

    def add_part(
        self,
        split: str,
        images: Mapping[int, str],
        shapes: Mapping[str, tuple[int, int, int]],
        embedding: int,
        size: Size,
    ) -> str:
        """Create the datasets of the images of one size in a split.

        Args:
            split: ``train`` or ``test``.
            images: position in the manifest to the name of each image.
            shapes: ``(C, h, w)`` per layer.
            embedding: its dimensions.
            size: ``(H, W)`` of the images.

        Returns:
            The name of the part, for `write`.
        """
        name = f"{split}/{len(self._file.get(split, ()))}"
        group = self._file.create_group(name)
        count = len(images)
        group.attrs["input_size"] = size
        group.create_dataset("image", data=list(images.values()), dtype=_TEXT)
        group.create_dataset("number", data=np.array(list(images), np.int64))
        group.create_dataset("embedding", (count, embedding), np.float32)
        maps = group.create_group("maps")
        for layer, shape in shapes.items():
            maps.create_dataset(layer, (count, *shape), self._dtype, chunks=(1, *shape))
        return name

    def write(
        self, part: str, start: int, maps: Mapping[str, np.ndarray], embedding: np.ndarray
    ) -> None:
        """Write a batch of features from image ``start`` of a part on.

        Raises:
            StoreError: a value is not finite, or too large for float16.
        """
        group = self._file[part]
        stop = start + len(embedding)
        for layer, values in maps.items():
            with np.errstate(over="ignore"):
                stored = values.astype(self._dtype, copy=False)
            if not np.isfinite(stored).all():
                bad = group["image"].asstr()[start:stop][~np.isfinite(stored).all(axis=(1, 2, 3))]
                hint = (
                    "too large for float16: set 'dtype: float32' for the extractor"
                    if np.isfinite(values).all()
                    else "not finite: the weights or the image are damaged"
                )
                raise StoreError(f"features of {layer} are {hint} (first image: {bad[0]})")
            group["maps"][layer][start:stop] = stored
            self._unsynced += stored.nbytes
        group["embedding"][start:stop] = embedding
        if self._unsynced >= SYNC_BYTES:
            os.fsync(self._descriptor)
            self._unsynced = 0

    def add_ground_truth(self, truth: GroundTruth) -> None:
        """Add labels and defects of the test images."""
        group = self._file.create_group("truth")
        group.create_dataset("image", data=list(truth.image), dtype=_TEXT)
        group.create_dataset("label", data=truth.label.astype(np.uint8))
        group.create_dataset("defect", data=list(truth.defect), dtype=_TEXT)
        group.create_dataset("has_mask", data=truth.has_mask)


@contextmanager
def create(
    path: Path, made_with: Mapping[str, Any], dtype: str, numbers: int = 0
) -> Iterator[StoreWriter]:
    """Write a store at ``path``, which appears only when the block ends without an error.

    Args:
        path: the HDF5 file.
        made_with: settings that a reader may compare.
        dtype: number format of the maps.
        numbers: how many the maps have, to check the free space of the disk.

    Raises:
        DiskError: they do not fit on the disk.
    """
    room = numbers * np.dtype(dtype).itemsize
    with checksum.create_hdf5(path, KIND, SCHEMA_VERSION, room=room) as file:
        with Path(file.filename).open("rb") as same:
            yield StoreWriter(file, dtype, same.fileno())
        file.attrs[_MADE_WITH] = json.dumps(made_with, sort_keys=True)


class FeatureStore:
    """A finished feature store, open for reading.

    Args:
        path: the HDF5 file.
        expected: settings the store must have, as ``{name: value}``; a value of None is not
            compared. Features of a CPU match either value of ``tf32``.

    Raises:
        StoreError: the file is missing or damaged, has another schema version, or has other
            settings than ``expected``; the message names each difference.
    """

    def __init__(self, path: str | Path, expected: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._file = checksum.open_hdf5(self.path, KIND, SCHEMA_VERSION, "feature store")
        self.made_with: dict[str, Any] = json.loads(self._file.attrs[_MADE_WITH])
        normal = json.loads(json.dumps(dict(expected or {})))  # tuples become lists, as in the file
        if self.made_with.get("device") == "cpu":
            normal.pop("tf32", None)
        differences = [
            f"  - {name}: the store has {self.made_with.get(name)!r}, expected {value!r}"
            for name, value in normal.items()
            if value is not None and self.made_with.get(name) != value
        ]
        if differences:
            self.close()
            raise StoreError(
                f"{self.path}: its features have other settings than expected; delete it to "
                "extract again, or use another results folder\n" + "\n".join(differences)
            )

    @property
    def identity(self) -> str:
        """A fingerprint of the settings, which include the images and the weights."""
        return hashlib.sha256(json.dumps(self.made_with, sort_keys=True).encode()).hexdigest()[:16]

    def split(self, name: str) -> FeatureSource:
        """Return the ``train`` or ``test`` features."""
        parts = []
        for group in self._groups(name):
            height, width = group.attrs["input_size"].tolist()
            parts.append(Part(group["maps"], group["embedding"], (height, width)))
        layers = self.made_with["layers"]
        return FeatureSource(layers, parts, path=str(self.path), identity=self.identity)

    def numbers(self, split: str) -> np.ndarray:
        """Return the position in the manifest, among those of the split, of each image."""
        return np.concatenate([group["number"][()] for group in self._groups(split)])

    def stored_bytes(self, split: str, layers: Sequence[str]) -> int:
        """Return the bytes on disk of some layers' maps, and of the embeddings."""
        return sum(
            stored.id.get_storage_size()
            for group in self._groups(split)
            for stored in (group["embedding"], *(group["maps"][layer] for layer in layers))
        )

    def _groups(self, split: str) -> list[h5py.Group]:
        """Return the group of each size of images."""
        parts = self._file[split]
        return [parts[str(number)] for number in range(len(parts))]

    def ground_truth(self) -> GroundTruth:
        """Return labels and defects of the test images, without their masks."""
        group = self._file["truth"]
        return GroundTruth(
            image=group["image"].asstr()[()],
            label=group["label"][()].astype(int),
            defect=group["defect"].asstr()[()],
            has_mask=group["has_mask"][()],
            mask=(),
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
