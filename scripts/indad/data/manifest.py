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

import numpy as np
import pandas as pd

from indad.core import atomic
from indad.core.checksum import sha256_file
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.categories import missing_folder
from indad.data.data_warnings import DataWarning
from indad.data.files import is_text, walk
from indad.data.find_images import Findings, FoundImage, find_images
from indad.data.folder_layout import ELSEWHERE, GOOD, TEST, TRAIN, Reading
from indad.data.images import drawn_pixels, is_lossy, is_rotated, mask_pixels, mask_values
from indad.data.images import size as image_size
from indad.data.layout_checks import check_layout

logger = logging.getLogger("indad")

#: Increased when the content of manifests changes; then categories are indexed again.
VERSION = 3
#: Regions of masks with fewer pixels are specks.
SPECK = 5
#: Share of masks made of specks from which they are reported.
MOST_SPECKS = 0.1
#: Splits with more different sizes than this are not compared: their images are cut to any size.
MOST_SIZES = 2
#: Column in the file with the hash of the whole table, the same in each row, so that no row can be
#: changed or lost unnoticed.
HASH_COLUMN = "table_sha256"


#: Separates the masks of one image in the columns of masks: it is in no path.
SEPARATOR = "//"
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
    warnings: list[DataWarning]


def build(folder: Path, reading: Reading | None = None) -> pd.DataFrame:
    """Return the manifest of a category folder; see `index`."""
    return index(folder, reading).table


def index(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Survey:
    """Index a category folder and check everything that needs no decoding of images.

    The label of an image comes from its folder or from the list, never from its mask. Images are
    hashed and their headers are read; ``indad.data.decode`` decodes them, once.

    Returns:
        A survey without problems. Its table has one row per image, columns as in ``COLUMNS``,
        training images first, sorted by path.

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
        logger.log(
            logging.INFO if warning.note else logging.WARNING, "%s: %s", folder.name, warning
        )
    return found


def survey(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Survey:
    """Index the images that can be indexed, and list all problems; see ``index``.

    Raises:
        DataError: the folder does not exist, or its list cannot be read.
    """
    if not folder.is_dir():
        raise DataError(missing_folder(folder))
    found = find_images(folder, reading or Reading())
    check_layout(found)
    problems, rows = found.problems, []
    with ThreadPoolExecutor(threads) as pool:
        inspected = pool.map(lambda image: _inspect(folder, image), found.images)
        for done, (row, wrong) in enumerate(inspected, 1):
            rows += [row] if row else []
            problems += wrong
            progress(done, len(found.images))
        good_masks = [folder.joinpath(*parts) for parts in found.good_masks]
        for wrong in pool.map(_inspect_good_mask, good_masks):
            problems += wrong
    table = pd.DataFrame(rows, columns=[*COLUMNS, *_FACTS])
    _warn_of_masks(found, table)
    _warn_of_images(found, table)
    return Survey(
        table[list(COLUMNS)],
        [printable(problem) for problem in problems],
        [
            each._replace(text=printable(each.text), files=tuple(map(printable, each.files)))
            for each in found.warnings
        ],
    )


def mask_files(row: Any) -> list[tuple[str, str]]:
    """Return path and SHA-256 of each mask of a manifest's row."""
    if not row.mask:
        return []
    paths, hashes = row.mask.split(SEPARATOR), row.mask_sha256.split(SEPARATOR)
    return list(zip(paths, hashes, strict=True))


#: What the masks of an image show: the share of the image that they cover, whether most of their
#: regions are specks, which of them have compression losses, and whether the image is rotated.
_FACTS = {"covered": 0.0, "specks": False, "lossy": (), "rotated": False}


def _inspect(folder: Path, image: FoundImage) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the row of an image with the facts about its masks, and what is wrong with them."""
    path = folder.joinpath(*image.path)
    masks = [folder.joinpath(*parts) for parts in image.masks]
    names = ["/".join(parts) for parts in image.masks]
    size, problems, values, hashes, facts = None, [], [], [], _FACTS
    try:
        size = image_size(path)
    except DataError as error:
        problems.append(str(error))
    try:
        values = [mask_values(mask) for mask in masks]
        hashes = [sha256_file(mask) for mask in masks]
    except DataError as error:
        problems.append(str(error))
        values = []
    if size is not None:
        problems += [
            _wrong_size(mask, each.shape, path, size)
            for mask, each in zip(masks, values, strict=False)
            if each.shape != size
        ]
    if values and not problems:
        drawn = np.logical_or.reduce([drawn_pixels(each) for each in values])
        facts = {
            "covered": float(drawn.mean()),
            "specks": _has_specks(drawn),
            "lossy": [name for name, each in zip(names, values, strict=True) if is_lossy(each)],
            "rotated": is_rotated(path),
        }
        if not drawn.any():
            problems.append(
                f"{masks[0]}: the mask is empty (no pixel above 0) but the image is in "
                f"{image.defect!r}; draw the defect or move the image"
            )
    if size is None:
        return None, problems
    row = {
        "image": "/".join(image.path),
        "split": image.split,
        "label": int(image.defect != GOOD),
        "defect": image.defect,
        "mask": SEPARATOR.join(names),
        "width": size[1],
        "height": size[0],
        "sha256": sha256_file(path),
        "mask_sha256": SEPARATOR.join(hashes),
    }
    return row | facts, problems


def _has_specks(drawn: np.ndarray) -> bool:
    """Tell whether most regions of a mask have fewer than ``SPECK`` pixels."""
    from scipy import ndimage  # planning a workflow imports this module

    labels, count = ndimage.label(drawn, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    return bool(count >= 4 and 2 * np.count_nonzero(areas < SPECK) > count)


def _wrong_size(mask: Path, mask_size: tuple[int, ...], image: Path, size: tuple[int, ...]) -> str:
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


def _warn_of_masks(found: Findings, table: pd.DataFrame) -> None:
    """Warn of masks that are missing, or probably wrong."""
    defective = table[table["label"] == 1]
    missing = list(defective["image"][defective["mask"] == ""])
    masked = list(defective[defective["mask"] != ""].itertuples())
    if missing:
        counted = "" if masked else "no masks: "
        found.warn(
            "masks-missing",
            f"{counted}{len(missing)} of {len(defective)} defective images have no mask, so "
            "pixel-level figures leave them out",
            missing if masked else (),
            note=not masked,
        )
    several = [row.image for row in masked if SEPARATOR in row.mask]
    if several:
        text = f"{len(several)} images have several masks, which are joined"
        found.warn("masks-joined", text, several, note=True)
    specks = [_first_mask(row) for row in masked if row.specks]
    if len(specks) <= MOST_SPECKS * len(masked):  # a few are usual, also in public data sets
        specks = []
    for code, names, text, remedy in (
        (
            "mask-lossy",
            [name for row in masked for name in row.lossy],
            "masks have values between black and white, as a compression with losses (JPEG) leaves "
            "them: pixels of at least 128 count as defect",
            "save masks as PNG in black and white",
        ),
        (
            "mask-large",
            [_first_mask(row) for row in masked if row.covered > 0.5],
            "masks cover more than half of the image",
            "the defect must be white, the rest black",
        ),
        (
            "mask-specks",
            specks,
            f"masks consist mostly of regions of fewer than {SPECK} pixels, each of which counts "
            "as a defect in AUPRO",
            "remove them if they are no defects",
        ),
        (
            "mask-rotated",
            [row.image for row in masked if row.rotated],
            "images with a mask are rotated or mirrored by their EXIF orientation",
            "their masks must be drawn on the image as it is shown upright",
        ),
    ):
        if names:
            found.warn(code, f"{len(names)} {text}", names, remedy)


def _first_mask(row: Any) -> str:
    return row.mask.split(SEPARATOR)[0]


def _warn_of_images(found: Findings, table: pd.DataFrame) -> None:
    """Warn of images that are in both splits or twice in one, and of splits of other sizes."""
    train, test = table[table["split"] == TRAIN], table[table["split"] == TEST]
    names = train.drop_duplicates("sha256").set_index("sha256")["image"]
    shared = test[test["sha256"].isin(names.index)]
    if len(shared):
        found.warn(
            "train-in-test",
            f"{len(shared)} test images are also training images, which makes every method look "
            "better than it is",
            [f"{row.image} = {names[row.sha256]}" for row in shared.itertuples()],
        )
    for split, rows in (("training", train), ("test", test)):
        twice = rows["image"][rows.duplicated("sha256")]
        if len(twice):
            found.warn("twice", f"{len(twice)} {split} images appear twice", twice)
    sizes = [set(zip(rows["width"], rows["height"], strict=True)) for rows in (train, test)]
    if all(0 < len(each) <= MOST_SIZES for each in sizes) and not sizes[0] & sizes[1]:
        shown = [", ".join(f"{width} x {height}" for width, height in each) for each in sizes]
        found.warn(
            "sizes-differ",
            f"training images have {shown[0]} pixels, test images {shown[1]}",
            remedy="the methods compare details, so both should have the same resolution",
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
        if is_text(file.parts[-1]):
            continue
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
