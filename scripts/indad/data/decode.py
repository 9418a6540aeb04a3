"""Decoded images of a category: one HDF5 file per preprocessing, shared by all backbones.

Groups ``train`` and ``test``, each with ``image`` (names) and ``pixels``, a dataset
``(H, W, 3)`` uint8 for each image; ``test`` also has ``mask``, a dataset ``(H, W)`` for each image.
All extractors and pictures read this file, so that each image
file is decoded once. The file has a checksum (``indad.core.checksum``), so that damage is found
before anything is read. Nothing here needs torch.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from indad.core import checksum
from indad.core.checksum import sha256_file
from indad.core.errors import DataError, StoreError
from indad.core.lazy import LazySequence
from indad.core.progress import Progress, ignore
from indad.data import examine
from indad.data.data_warnings import DataWarning
from indad.data.findings import Findings
from indad.data.folder_layout import Reading
from indad.data.ground_truth import GroundTruth
from indad.data.images import Geometry, Size
from indad.data.manifest import content_hash, mask_files

#: Increased when the same image files would give other pixels.
VERSION = 4
KIND = "pixels"
SPLITS = ("train", "test")
#: Images that are decoded ahead: enough to keep all threads busy.
STEP = 64


def check_sizes(
    manifest: pd.DataFrame, geometry: Geometry, one_size: Sequence[str] = (), patch: int = 0
) -> list[Size]:
    """Return the ``(H, W)`` of each image after the preprocessing.

    Args:
        manifest: the images.
        geometry: resize and crop.
        one_size: experiments that need images of one size.
        patch: number of pixels that divides the sides, for a transformer; 0 for any.

    Raises:
        DataError: an image is smaller than the crop, or cannot be divided into patches; or two
            images differ in size and an experiment needs one size.
    """
    sizes: dict[Size, str] = {}
    every = []
    for row in manifest.itertuples():
        if refusal := geometry.refusal(row.height, row.width):
            raise DataError(f"{row.image}: {refusal}")
        every.append(geometry.output(row.height, row.width))
        sizes.setdefault(every[-1], row.image)
    remedy = examine.whole_images(manifest, geometry, patch)[0] if sizes else ""
    if len(sizes) > 1 and one_size:
        (one, first), (other, second), *_ = sizes.items()
        raise DataError(
            f"images differ in size after the preprocessing: {first} is {one[1]} x {one[0]}, "
            f"{second} is {other[1]} x {other[0]}. {', '.join(one_size)} cannot use them: a model "
            f"of each position needs images of one size. Set {remedy}, or run PatchCore or SPADE"
        )
    if not examine.fits(sizes, patch):
        (height, width), image = next(iter(sizes.items()))
        raise DataError(
            f"{image} is {width} x {height} after the preprocessing, which cannot be divided into "
            f"the backbone's patches of {patch} pixels. Set {remedy}"
        )
    return every


def decode(
    manifest: pd.DataFrame,
    folder: Path,
    output: Path,
    *,
    geometry: Geometry,
    one_size: Sequence[str] = (),
    threads: int = 2,
    progress: Progress = ignore,
) -> list[DataWarning]:
    """Decode, resize and crop all images and masks of a category into ``output``.

    Args:
        manifest: the category's images (see ``indad.data.manifest``).
        folder: the category folder that its paths are relative to.
        output: the HDF5 file; it appears only when it is complete.
        geometry: resize and crop.
        one_size: experiments that need images of one size.
        threads: number of images decoded at once.
        progress: called with the number of images done and in total.

    Returns:
        The warnings about what only the pixels show.

    Raises:
        DataError: as `check_sizes`; or names all images and masks that cannot be decoded or
            have changed since they were indexed.
    """
    sizes = check_sizes(manifest, geometry, one_size)
    room = 3 * sum(map(math.prod, sizes))
    parts = {split: manifest[manifest["split"] == split] for split in SPLITS}
    problems: list[str] = []
    facts: list[examine.Facts] = []
    with checksum.create_hdf5(output, KIND, VERSION, room=room) as file:
        for split, rows in parts.items():
            group = file.create_group(split)
            group.create_dataset("image", data=rows["image"].tolist(), dtype=h5py.string_dtype())
            for name in ("pixels", "mask") if split == "test" else ("pixels",):
                group.create_group(name)
            for number, result in enumerate(read_images(rows, folder, geometry, threads)):
                if isinstance(result, str):
                    problems.append(result)
                    facts.append(examine.Facts())
                else:
                    facts.append(_write(group, str(number), *result))
                progress(len(facts), len(manifest))
        if problems:
            counted = f"{folder}: {len(problems)} files cannot be used"
            raise DataError("\n  - ".join([counted, *problems]))
        file.attrs["manifest_sha256"] = content_hash(manifest)
    table = pd.concat(parts.values(), ignore_index=True).join(pd.DataFrame(facts))
    found = Findings(folder, Reading(), table=table)
    examine.warn_of_pixels(found, geometry)
    return found.warnings


def _write(
    group: h5py.Group, number: str, image: np.ndarray, mask: np.ndarray | None, facts: examine.Facts
) -> examine.Facts:
    """Write an image, and its mask if the split has masks; return what they show."""
    group["pixels"][number] = image
    if "mask" in group:
        mask = np.zeros(image.shape[:2], bool) if mask is None else mask
        group["mask"].create_dataset(number, data=mask, compression="gzip")
    return facts


#: An image, its mask if it has one, and what they show; or what is wrong with them.
_Result = tuple[np.ndarray, np.ndarray | None, examine.Facts] | str


def read_images(
    rows: pd.DataFrame, folder: Path, geometry: Geometry, threads: int
) -> Iterator[_Result]:
    """Read the images of a manifest's rows in parallel, a limited number ahead.

    Yields:
        As `examine.read`, or what is wrong with an image or its masks.
    """
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(rows), STEP):
            step = rows.iloc[start : start + STEP]
            yield from pool.map(lambda row: _read(folder, row, geometry), step.itertuples())


def _read(folder: Path, row: Any, geometry: Geometry) -> _Result:
    try:
        result = examine.read(folder, row, geometry)
        # In formats without a checksum, decoding does not notice damage.
        for name, sha256 in ((row.image, row.sha256), *mask_files(row)):
            require_unchanged(folder / name, sha256)
        return result
    except DataError as error:
        return str(error)


def require_unchanged(path: Path, sha256: str) -> None:
    """Check that a file is the one that was indexed.

    Raises:
        DataError: it has changed, or does not exist.
    """
    try:
        found = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if found != sha256:
        raise DataError(
            f"{path}: has changed since it was indexed (sha256 {found[:12]}..., indexed "
            f"{sha256[:12]}...): restore the file, or delete the manifest to index it again"
        )


class Pixels(contextlib.AbstractContextManager):
    """A finished file of decoded images, open for reading.

    Args:
        path: the HDF5 file.
        manifest: the manifest that it must have been made from; not compared if None.

    Raises:
        StoreError: the file is missing, damaged, of another version, or made from other images.
    """

    def __init__(self, path: Path, manifest: pd.DataFrame | None = None) -> None:
        self.path = path
        self._file = checksum.open_hdf5(path, KIND, VERSION, "file of decoded images")
        recorded = self._file.attrs.get("manifest_sha256")
        if manifest is not None and recorded != content_hash(manifest):
            self.close()
            raise StoreError(f"{path}: decoded from other images; delete it and run again")

    def images(self, split: str) -> list[str]:
        """Return the names of a split's images, in the manifest's order."""
        return list(self._file[split]["image"].asstr()[()])

    def by_size(self, split: str) -> dict[Size, list[int]]:
        """Return ``(H, W)`` of a split's images, and the numbers of the images of that size."""
        found: dict[Size, list[int]] = {}
        pixels = self._file[split]["pixels"]
        for number in range(len(self._file[split]["image"])):
            height, width, _ = pixels[str(number)].shape
            found.setdefault((height, width), []).append(number)
        return found

    def read(self, split: str, images: Iterable[int]) -> np.ndarray:
        """Return images of one size, uint8 ``(n, H, W, 3)``.

        Raises:
            StoreError: the file is damaged.
        """
        return np.stack([self._read(f"{split}/pixels/{number}") for number in images])

    def masks(self) -> Sequence[np.ndarray]:
        """Return the masks of the test images, each read when it is used: bool ``(H, W)``.

        Raises:
            StoreError: when a mask is used: the file is damaged.
        """
        count = len(self._file["test"]["image"])
        return LazySequence(count, lambda image: self._read(f"test/mask/{image}"))

    def ground_truth(self, manifest: pd.DataFrame) -> GroundTruth:
        """Return the manifest's labels and this file's masks of the test images.

        The masks are read when they are used, so that the file has to be open.

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
            mask=self.masks(),
        )

    def _read(self, name: str) -> np.ndarray:
        try:
            return self._file[name][()]
        except OSError as error:
            raise StoreError(f"{self.path}: damaged ({error}); delete it and run again") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
