"""Images as a backbone sees them, decoded once: one HDF5 file per category and geometry.

Groups ``train`` and ``test``, each with ``pixels (N, H, W, 3)`` uint8 and ``image``; ``test`` also
with ``mask (N, H, W)``. Every extractor of the geometry and every picture reads this file, so that
an image file is decoded once, however many backbones look at it. Nothing here needs torch.
The file is sealed (``indad.core.checksum``): damage is found before anything is read.
"""

from __future__ import annotations

import hashlib
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd

from indad.core import checksum
from indad.core.errors import DataError, StoreError
from indad.data.images import Geometry, Size, read_image, read_mask
from indad.data.manifest import content_hash
from indad.core.progress import Progress, ignore
from indad.data.ground_truth import GroundTruth

logger = logging.getLogger("indad")

#: Raised when the pixels of the same files would come out differently.
VERSION = 2
KIND = "pixels"
SPLITS = ("train", "test")
#: Images decoded per writing step: enough to keep all threads busy.
STEP = 64


def common_size(manifest: pd.DataFrame, geometry: Geometry) -> Size:
    """Return the ``(H, W)`` that all images have after the preprocessing.

    Raises:
        DataError: they differ, naming two images, or one is smaller than the crop.
    """
    sizes: dict[Size, str] = {}
    for row in manifest.itertuples():
        if refusal := geometry.refusal(row.height, row.width):
            raise DataError(f"{row.image}: {refusal}")
        sizes.setdefault(geometry.output(row.height, row.width), row.image)
    if len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise DataError(
            f"images differ in size after the preprocessing: {first} is {one[1]} x {one[0]}, "
            f"{second} is {other[1]} x {other[0]}. Set 'crop', or 'resize: [height, width]'"
        )
    return next(iter(sizes))


def decode(
    manifest: pd.DataFrame,
    folder: Path,
    output: Path,
    *,
    geometry: Geometry,
    threads: int = 2,
    progress: Progress = ignore,
) -> None:
    """Decode, resize and crop all images and masks of a category into ``output``.

    Args:
        manifest: the category's images (see ``indad.data.manifest``).
        folder: the category folder its paths are relative to.
        output: the HDF5 file; it appears only when it is complete.
        geometry: resize and crop.
        threads: images decoded at once.
        progress: called with images done and in all.

    Raises:
        DataError: images cannot be decoded or are not those that were indexed (all of them are
            named), or differ in size.
    """
    size = common_size(manifest, geometry)
    problems: list[str] = []
    done = 0
    with (
        checksum.create_hdf5(output, KIND, VERSION, room=3 * len(manifest) * math.prod(size)) as file,
        ThreadPoolExecutor(threads) as pool,
    ):
        for split in SPLITS:
            rows = manifest[manifest["split"] == split]
            group = file.create_group(split)
            names = rows["image"].tolist()
            group.create_dataset("image", data=names, dtype=h5py.string_dtype("utf-8"))
            pixels = group.create_dataset("pixels", (len(names), *size, 3), np.uint8)
            masks = group.create_dataset(
                "mask", (len(names), *size), bool, chunks=(1, *size), compression="gzip"
            ) if split == "test" else None  # fmt: skip
            cut: list[str] = []
            for start in range(0, len(names), STEP):
                part = rows.iloc[start : start + STEP]
                jobs = [(folder, row, geometry) for row in part.itertuples()]
                for i, (image, mask, problem) in enumerate(pool.map(_read, jobs), start):
                    if problem:
                        problems.append(problem)
                        continue
                    pixels[i] = image
                    if mask is not None and masks is not None:
                        masks[i] = mask
                        if not mask.any():
                            cut.append(rows["mask"].iloc[i])
                done += len(part)
                progress(done, len(manifest))
            if cut:
                logger.warning(
                    "%d of %d masks are empty after resize and crop, so these defects cannot be "
                    "found: %s",
                    len(cut),
                    sum(map(bool, rows["mask"])),
                    ", ".join(cut),
                )
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            raise DataError(f"{folder}: {len(problems)} files cannot be used\n{listed}")
        file.attrs["manifest_sha256"] = content_hash(manifest)


def _read(job: tuple[Path, Any, Geometry]) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Read the image and the mask of a manifest's row, or say what is wrong with them."""
    folder, row, geometry = job
    try:
        image = read_image(folder / row.image, geometry)
        mask = read_mask(folder / row.mask, geometry) if row.mask else None
        _check_indexed(folder / row.image, row.sha256)
        if row.mask:
            _check_indexed(folder / row.mask, row.mask_sha256)
        return image, mask, ""
    except DataError as error:
        return None, None, str(error)


def _check_indexed(path: Path, sha256: str) -> None:
    """Compare a file with the manifest: formats without checksums decode to whatever is there."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: is not the file that was indexed (sha256 {found[:12]}..., indexed "
            f"{sha256[:12]}...): put that one back, or delete the manifest to index this one"
        )


class Pixels:
    """A finished pixel file, open for reading.

    Args:
        path: the HDF5 file.
        manifest: the manifest it must have been made from; not compared when left out.

    Attributes:
        size: ``(H, W)`` of every image.

    Raises:
        StoreError: the file is missing or damaged, of another version or from other images.
    """

    def __init__(self, path: Path, manifest: pd.DataFrame | None = None) -> None:
        self.path = path
        self._file = checksum.open_hdf5(path, KIND, VERSION, "file of decoded images")
        stated = self._file.attrs.get("manifest_sha256")
        if manifest is not None and stated != content_hash(manifest):
            self.close()
            raise StoreError(f"{path}: decoded from other images; delete it and run again")
        height, width = self._file["train"]["pixels"].shape[1:3]
        self.size: Size = (height, width)

    def images(self, split: str) -> list[str]:
        """Return the names of a split's images, in the manifest's order."""
        return list(self._file[split]["image"].asstr()[()])

    def read(self, split: str, images: slice | int) -> np.ndarray:
        """Return uint8 ``(n, H, W, 3)``, or ``(H, W, 3)`` of one image.

        Raises:
            StoreError: the file is damaged.
        """
        return self._read(self._file[split]["pixels"], images)

    def mask(self, images: slice | int = slice(None)) -> np.ndarray:
        """Return the ground truth of test images, bool ``(n, H, W)``, or ``(H, W)`` of one.

        Raises:
            StoreError: the file is damaged.
        """
        return self._read(self._file["test"]["mask"], images)

    def ground_truth(self, manifest: pd.DataFrame) -> GroundTruth:
        """Return what is known of the test images: labels of the manifest, masks of this file.

        Args:
            manifest: the one the file was opened with.

        Raises:
            StoreError: the file is damaged.
        """
        rows = manifest[manifest["split"] == "test"]
        label, mask = rows["label"].to_numpy(int), rows["mask"].to_numpy(str)
        return GroundTruth(
            image=rows["image"].to_numpy(object),
            label=label,
            defect=rows["defect"].to_numpy(object),
            has_mask=(mask != "") | (label == 0),
            mask=self.mask(),
        )

    def _read(self, dataset: h5py.Dataset, index: slice | int) -> np.ndarray:
        try:
            return dataset[index]
        except OSError as error:
            raise StoreError(f"{self.path}: damaged ({error}); delete it and run again") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Pixels:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
