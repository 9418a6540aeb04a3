"""The manifest of a category: a table with one row per image, and the checks before it is written.

By default a category folder has the layout of MVTec AD; ``indad.data.folder_layout`` has options
for others::

    train/good/*.png
    test/good/*.png   test/<defect>/*.png
    ground_truth/<defect>/<image name>_mask.png      (optional; without "_mask" also works)
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core import atomic
from indad.core.checksum import sha256_file
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.categories import missing_folder
from indad.data.find_images import FoundImage, find_images, walk
from indad.data.folder_layout import ELSEWHERE, GOOD, Reading
from indad.data.images import Size, is_rotated, mask_pixels
from indad.data.images import size as image_size
from indad.data.layout_checks import check_layout

logger = logging.getLogger("indad")

#: Increased when the content of manifests changes; then categories are indexed again.
VERSION = 2
#: Column in the file with the hash of the whole table, the same in each row, so that no row can be
#: changed or lost unnoticed.
HASH_COLUMN = "table_sha256"


#: Paths are relative to the category folder, with forward slashes.
COLUMNS = (
    *("image", "split", "label", "defect", "mask", "width", "height", "sha256", "mask_sha256"),
)


@dataclass(frozen=True)
class Survey:
    """The result of examining a category folder.

    Attributes:
        table: the manifest of all images that can be indexed.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
    """

    table: pd.DataFrame
    problems: list[str]
    warnings: list[str]


def build(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> pd.DataFrame:
    """Index a category folder and check everything that needs no decoding of images.

    The label of an image comes from its folder or from the list, never from its mask. Images are
    hashed and their headers are read; ``indad.data.decode`` decodes them, once.

    Returns:
        One row per image, columns as in ``COLUMNS``, training images first, sorted by path.

    Raises:
        DataError: one message with all problems: an image or mask that cannot be read; a mask that
            is missing, empty, of another size or without an image; a name that occurs twice; an
            image where none is read; no training image, or no good or no defective test image.
    """
    found = survey(folder, reading, threads=threads, progress=progress)
    if found.problems:
        counted = "1 problem" if len(found.problems) == 1 else f"{len(found.problems)} problems"
        raise DataError("\n  - ".join([f"{folder}: {counted} found", *found.problems]))
    for warning in found.warnings:
        logger.warning("%s: %s", folder.name, warning)
    return found.table


def survey(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Survey:
    """Index the images that can be indexed, and list all problems; see ``build``.

    Raises:
        DataError: the folder does not exist, or its list cannot be read.
    """
    if not folder.is_dir():
        raise DataError(missing_folder(folder))
    found = find_images(folder, reading or Reading())
    check_layout(found)
    problems = found.problems
    rows = []
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda image: _inspect(folder, image), found.images)
        for done, (row, wrong) in enumerate(results, 1):
            problems += wrong
            if row is not None:
                rows.append(row)
            progress(done, len(found.images))
        good_masks = [folder.joinpath(*parts) for parts in found.good_masks]
        for wrong in pool.map(_inspect_good_mask, good_masks):
            problems += wrong
    return Survey(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        [printable(problem) for problem in problems],
        [printable(warning) for warning in found.warnings],
    )


def _inspect(folder: Path, image: FoundImage) -> tuple[dict[str, Any] | None, list[str]]:
    """Read an image's header and its mask, and return its row and what is wrong with them."""
    path = folder.joinpath(*image.path)
    problems = []
    size, mask_sha256 = None, ""
    try:
        size = image_size(path)
    except DataError as error:
        problems.append(str(error))
    if image.mask is not None:
        mask = folder.joinpath(*image.mask)
        try:
            pixels = mask_pixels(mask)
            mask_sha256 = sha256_file(mask)
        except DataError as error:
            problems.append(str(error))
        else:
            if size is not None and pixels.shape != size:
                problems.append(_wrong_size(mask, pixels.shape, path, size))
            if not pixels.any():
                problems.append(
                    f"{mask}: the mask is empty (no pixel above 0) but the image is in "
                    f"{image.defect!r}; draw the defect or move the image"
                )
    if size is None:
        return None, problems
    row = {
        "image": "/".join(image.path),
        "split": image.split,
        "label": int(image.defect != GOOD),
        "defect": image.defect,
        "mask": "/".join(image.mask or ()),
        "width": size[1],
        "height": size[0],
        "sha256": sha256_file(path),
        "mask_sha256": mask_sha256,
    }
    return row, problems


def _wrong_size(mask: Path, mask_size: tuple[int, ...], image: Path, size: Size) -> str:
    if mask_size == size[::-1] and is_rotated(image):
        advice = (
            "the image is rotated by its EXIF orientation, so draw the mask on the image as it is "
            "shown upright"
        )
    else:
        advice = "export the mask at the image's size"
    return (
        f"{mask}: the mask has {mask_size[1]} x {mask_size[0]} pixels, its image has {size[1]} x "
        f"{size[0]}; {advice}"
    )


def _inspect_good_mask(path: Path) -> list[str]:
    try:
        drawn = mask_pixels(path).any()
    except DataError as error:
        return [str(error)]
    return [f"{path}: marks a defect in a good image; correct one of them"] if drawn else []


def printable(text: str) -> str:
    """Escape characters of file names that a terminal or a UTF-8 file cannot show."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def fingerprint(folder: Path, reading: Reading | None = None) -> str:
    """Hash the names, sizes and times of all files a category is read from; "" without a folder.

    No image is read. The workflow computes it each time it is planned, to notice images that were
    added, removed or edited.
    """
    reading = reading or Reading()
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in walk(folder):
        if reading.list is None and reading.place(file.parts[:-1])[0] == ELSEWHERE:
            continue
        status = file.status
        seen = (status.st_size, status.st_mtime_ns) if status else file.problem
        text = "\0".join([*file.parts, str(seen)])
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0\n")
    listed = reading.list_file(folder)
    if listed is not None and listed.is_file():
        digest.update(listed.read_bytes())
    return digest.hexdigest()[:16]


def write(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest as CSV, atomically."""
    with atomic.replacing(path) as temporary:
        hashed = manifest.assign(**{HASH_COLUMN: content_hash(manifest)})
        hashed.to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """Read a manifest.

    Raises:
        DataError: the file is missing, lacks a column, or was changed since ``write``.
    """
    try:
        # Only "" means missing: "NA" and "null" are possible folder names.
        frame = pd.read_csv(
            path, keep_default_na=False, dtype=str, encoding="utf-8", lineterminator="\n"
        )
        frame = frame.astype({"label": int, "width": int, "height": int})
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); delete it") from None
    missing = [column for column in (*COLUMNS, HASH_COLUMN) if column not in frame]
    if missing:
        raise DataError(f"{path}: manifest lacks the columns {', '.join(missing)}; delete it")
    if set(frame.pop(HASH_COLUMN)) != {content_hash(frame)}:
        raise DataError(
            f"{path}: the manifest was damaged or edited, its content does not match its hash; "
            "delete it and run again"
        )
    return frame


def content_hash(manifest: pd.DataFrame) -> str:
    """Hash a manifest: it identifies the images and masks, by content, that results are made of."""
    return hashlib.sha256(manifest.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
