"""The manifest of a category: a table with one row per image, and the checks before it is written.

By default a category folder has the layout of MVTec AD; ``indad.data.folder_layout`` has options
for others::

    train/good/*.png
    test/good/*.png   test/<defect>/*.png
    ground_truth/<defect>/<image name>_mask.png      (optional; without "_mask" also works)
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core.csv_files import read_csv, write_csv
from indad.core.errors import DataError, StoreError
from indad.core.names import printable
from indad.core.progress import Progress, ignore
from indad.data.annotations import Photo
from indad.data.categories import missing_folder
from indad.data.data_warnings import counted
from indad.data.files import is_text, walk
from indad.data.find_images import find_images
from indad.data.findings import Findings
from indad.data.folder_layout import ELSEWHERE, TEST, TRAIN, Reading
from indad.data.inspection import FACTS, SEPARATOR, SPECK, inspect, inspect_good_mask
from indad.data.layout_checks import check_layout

logger = logging.getLogger("indad")

#: Increased when the content of manifests changes; then categories are indexed again.
VERSION = 4
#: Share of masks made of specks from which they are reported.
MOST_SPECKS = 0.1
#: Splits with more different sizes than this are not compared: their images are cut to any size.
MOST_SIZES = 2
#: Column in the file with the hash of the whole table, the same in each row, so that no row can be
#: changed or lost unnoticed.
HASH_COLUMN = "table_sha256"


#: Columns and their types. Paths are relative to the category folder, with forward slashes;
#: ``mask_labels`` has the labels that count in annotation files, as JSON, "" for all.
COLUMNS = {
    "image": "str", "split": "str", "label": "int", "defect": "str", "mask": "str", "width": "int",
    "height": "int", "sha256": "str", "mask_sha256": "str", "mask_labels": "str",
}  # fmt: skip


def build(folder: Path, reading: Reading | None = None) -> pd.DataFrame:
    """Return the manifest of a category folder; see `index`."""
    return index(folder, reading).table


def index(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Findings:
    """Index a category folder and check everything that needs no decoding of images.

    The label of an image comes from its folder or from the list, never from its mask. Images are
    hashed and their headers are read; ``indad.data.decode`` decodes them, once.

    Returns:
        Findings without problems. Their table has one row per image, columns as in ``COLUMNS``,
        training images first, sorted by path.

    Raises:
        DataError: one message with all problems: an image or mask that cannot be read; a mask that
            is missing, empty, of another size or without an image; a name that occurs twice; an
            image where none is read; no training image, or no good or no defective test image.
    """
    found = survey(folder, reading, threads=threads, progress=progress)
    if found.problems:
        number = counted(len(found.problems), "problem")
        raise DataError("\n  - ".join([f"{folder}: {number} found", *found.problems]))
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
) -> Findings:
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
        labels = found.reading.mask_labels
        inspected = pool.map(lambda image: inspect(folder, image, labels), found.images)
        for done, (row, wrong) in enumerate(inspected, 1):
            rows += [row] if row else []
            problems += wrong
            progress(done, len(found.images))
        for wrong in pool.map(
            lambda pair: inspect_good_mask(folder, *pair, labels), found.good_masks
        ):
            problems += wrong
    table = pd.DataFrame(rows, columns=[*COLUMNS, *FACTS])
    _warn_of_masks(found, table)
    _warn_of_images(found, table)
    found.problems = [printable(each, keep="\n") for each in problems]
    found.table = table[list(COLUMNS)]
    return found


def mask_files(row: Any) -> list[tuple[str, str]]:
    """Return path and SHA-256 of each mask of a manifest's row."""
    if not row.mask:
        return []
    paths, hashes = row.mask.split(SEPARATOR), row.mask_sha256.split(SEPARATOR)
    return list(zip(paths, hashes, strict=True))


def photo_of(folder: Path, row: Any) -> Photo:
    """Return what annotation files have to know of the photo of a manifest's row."""
    labels = json.loads(row.mask_labels) if row.mask_labels else ()
    return Photo(f"{folder.name}/{row.image}", (row.height, row.width), tuple(labels))


def _warn_of_masks(found: Findings, table: pd.DataFrame) -> None:
    """Warn of masks that are missing, or probably wrong."""
    defective = table[table["label"] == 1]
    missing = list(defective["image"][defective["mask"] == ""])
    masked = list(defective[defective["mask"] != ""].itertuples())
    _warn_of_shapes(found, masked)
    unread = any(each.code == "annotations-unread" for each in found.warnings)
    if missing and (masked or not unread):
        prefix = "" if masked else "no masks: "
        found.warn(
            "masks-missing",
            f"{prefix}{len(missing)} of {len(defective)} defective images have no mask, so "
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


def _warn_of_shapes(found: Findings, masked: Sequence[Any]) -> None:
    """Name the labels of the annotation files, and unusual shapes."""
    drawn = [(row, shapes) for row in masked for shapes in row.shapes]
    if not drawn:
        return
    used, unused = Counter[str](), Counter[str]()
    for _, shapes in drawn:
        used += shapes.used
        unused += shapes.unused
    listed = ", ".join(f"{label!r} ({count} shapes)" for label, count in sorted(used.items()))
    how = "" if found.reading.mask_labels else "'mask_labels' can list those that should"
    found.warn("labels", f"labels that count as defect: {listed}", (), how, note=True)
    if unused:
        listed = ", ".join(f"{name!r} ({count} shapes)" for name, count in sorted(unused.items()))
        names = [row.image for row, shapes in drawn if shapes.unused]
        text = f"labels that 'mask_labels' does not list: {listed}"
        found.warn("labels-unlisted", text, names, note=True)
    remarks = [f"{_first_mask(row)}: {text}" for row, shapes in drawn for text in shapes.remarks]
    if remarks:
        found.warn("shapes", f"{len(remarks)} shapes are unusual", remarks, "look at them")


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
        elsewhere = reading.list is None and reading.place(file.parts[:-1])[0] == ELSEWHERE
        if elsewhere and file.parts != reading.masks_file:
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
    write_csv(manifest.assign(**{HASH_COLUMN: content_hash(manifest)}), path)


def read(path: Path) -> pd.DataFrame:
    """Read a manifest.

    Raises:
        StoreError: the file is missing, lacks a column, or was changed since ``write``.
    """
    frame = read_csv(path, COLUMNS | {HASH_COLUMN: "str"}, "manifest")
    if set(frame.pop(HASH_COLUMN)) != {content_hash(frame)}:
        raise StoreError(
            f"{path}: the manifest was damaged or edited, its content does not match its hash; "
            "delete it and run again"
        )
    return frame


def content_hash(manifest: pd.DataFrame) -> str:
    """Hash a manifest: it identifies the images and masks, by content, that results are made of."""
    return hashlib.sha256(manifest.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
