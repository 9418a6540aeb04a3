"""Check a category folder before anything is computed: what it contains, and what is wrong.

The manifest reads image headers only. Here every image is decoded, and the preprocessing is tried
on the sizes and the masks. Warnings are about things that make the results mean less.
"""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data import manifest
from indad.data.decode import Pixels, common_size
from indad.data.find_images import first_names
from indad.data.folder_layout import Reading
from indad.data.images import Geometry, decode, is_rotated, mask_pixels, read_mask, to_rgb

#: 16-bit images whose maximum is below this are nearly black after scaling to 8 bits.
DARK = 1 << 14


@dataclass(frozen=True)
class Report:
    """The result of checking a category.

    Attributes:
        category: its name.
        counts: number of images by ``train``, ``test good`` and ``test <defect>``.
        masks: number of masks of defective test images.
        defective: number of defective test images.
        sizes: number of images by ``WxH``.
        modes: number of images by file type and PIL mode, such as ``PNG RGB``.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
    """

    category: str
    counts: Counter[str]
    masks: int
    defective: int
    sizes: Counter[str]
    modes: Counter[str]
    problems: list[str]
    warnings: list[str]


class _Decoded(NamedTuple):
    """Properties of a decoded image and its mask."""

    mode: str = ""  # file type and PIL mode, such as "PNG RGB"
    problem: str = ""  # what is wrong with the file
    kept: float = math.nan  # share of the mask that is inside the crop; NaN if it is unknown
    covered: float = 0.0  # share of the image that the mask covers
    rotated: bool = False  # whether it has a mask and is rotated by its EXIF orientation
    peak: int = 0  # largest value of a 16-bit image


def check(
    folder: Path,
    geometry: Geometry,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Report:
    """Check a category folder: its layout, every image and mask, and the preprocessing.

    Args:
        folder: the category folder.
        geometry: the preprocessing that is planned.
        reading: how the folder is read; as in MVTec AD if None.
        threads: number of images decoded at once.
        progress: called with the number of images done and in total.

    Raises:
        DataError: the folder does not exist, or its list cannot be read.
    """
    reading = reading or Reading()
    found = manifest.survey(folder, reading, threads=threads)
    rows = list(found.table.itertuples())
    decoded: list[_Decoded] = []
    with ThreadPoolExecutor(threads) as pool:
        for each in pool.map(lambda row: _examine(folder, row, geometry), rows):
            decoded.append(each)
            progress(len(decoded), len(rows))
    table = found.table.join(pd.DataFrame(decoded, columns=_Decoded._fields))
    problems = [*found.problems, *filter(None, table["problem"])]
    if rows:
        try:
            common_size(table, geometry)
        except DataError as error:
            problems.append(str(error))
    masks, defective = int((table["mask"] != "").sum()), int(table["label"].sum())
    missing = []
    if masks < defective and reading.missing_masks != "allow":  # else reported by the survey
        counted = f"only {masks} masks" if masks else "no masks"
        missing.append(
            f"{counted} for {defective} defective images: pixel-level figures use only images "
            "that have one"
        )
    return Report(
        category=folder.name,
        counts=Counter("train" if r.split == "train" else f"test {r.defect}" for r in rows),
        masks=masks,
        defective=defective,
        sizes=Counter(f"{row.width}x{row.height}" for row in rows),
        modes=Counter(filter(None, table["mode"])),
        problems=problems,
        warnings=[
            *found.warnings,
            *_mask_warnings(table[table["mask"] != ""]),
            *_image_warnings(table),
            *missing,
        ],
    )


def _examine(folder: Path, row: Any, geometry: Geometry) -> _Decoded:
    """Decode an image and its mask."""
    path = folder / row.image
    try:
        image = decode(path)
        to_rgb(image)
    except DataError as error:
        return _Decoded(problem=str(error))
    except ValueError as error:
        return _Decoded(problem=f"{path}: {error}")
    decoded = _Decoded(
        mode=f"{path.suffix.lstrip('.').upper()} {image.mode}",
        peak=int(np.asarray(image).max()) if image.mode.startswith("I") else 0,
    )
    if not row.mask:
        return decoded
    mask = folder / row.mask
    try:
        drawn = mask_pixels(mask)
        decoded = decoded._replace(covered=float(drawn.mean()), rotated=is_rotated(path))
        before = np.count_nonzero(read_mask(mask, Geometry(geometry.resize, None)))
        kept = np.count_nonzero(read_mask(mask, geometry))
    except DataError:  # smaller than the crop: one problem for all images, see `check`
        return decoded
    if not before:  # the mask is thinner than a pixel after the resize
        return decoded._replace(kept=0.0 if drawn.any() else math.nan)
    return decoded._replace(kept=kept / before)


def _mask_warnings(table: pd.DataFrame) -> list[str]:
    """Warn of masks that the crop removes, or that are probably wrong."""
    warnings = []
    lost = table["mask"][table["kept"] == 0]
    partly = ((table["kept"] > 0) & (table["kept"] < 0.5)).sum()
    lossy = table["mask"][table["mask"].str.lower().str.endswith((".jpg", ".jpeg"))]
    large = table["mask"][table["covered"] > 0.5]
    rotated = table["image"][table["rotated"]]
    if len(lost):
        warnings.append(
            f"{len(lost)} of {len(table)} defects are completely outside the centre crop, so no "
            f"method can find them; set 'crop: null': {first_names(lost)}"
        )
    if partly:
        warnings.append(
            f"{partly} of {len(table)} defects lose more than half of their area to the centre "
            "crop; 'crop: null' keeps them complete"
        )
    if len(lossy):
        warnings.append(
            f"{len(lossy)} masks are JPEG files: their compression blurs the outline, and every "
            f"pixel above 0 counts as defect; save masks as PNG: {first_names(lossy)}"
        )
    if len(large):
        warnings.append(
            f"{len(large)} masks cover more than half of the image; the defect must be white, the "
            f"rest black: {first_names(large)}"
        )
    if len(rotated):
        warnings.append(
            f"{len(rotated)} images with a mask are rotated or mirrored by their EXIF orientation; "
            "their masks must be drawn on the image as it is shown upright: "
            f"{first_names(rotated)}"
        )
    return warnings


def _image_warnings(table: pd.DataFrame) -> list[str]:
    """Warn of images that are too dark, in both splits, or twice in one."""
    warnings = []
    deep = table["peak"][table["peak"] > 0]
    if len(deep) and deep.max() < DARK:
        warnings.append(
            f"{len(deep)} images of 16 bits have values up to {deep.max()} of 65535, so they are "
            f"almost black for the backbone: a camera of {int(deep.max()).bit_length()} bits? "
            "Stretch them to 16 bits, or save them with 8 bits"
        )
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    names = train.drop_duplicates("sha256").set_index("sha256")["image"]
    shared = test[test["sha256"].isin(names.index)]
    if len(shared):
        pairs = (f"{row.image} = {names[row.sha256]}" for row in shared.itertuples())
        warnings.append(
            f"{len(shared)} test images are also training images, which makes every method look "
            f"better than it is: {first_names(pairs)}"
        )
    for split, rows in (("training", train), ("test", test)):
        twice = rows["image"][rows.duplicated("sha256")]
        if len(twice):
            warnings.append(f"{len(twice)} {split} images appear twice: {first_names(twice)}")
    return warnings


def result_warnings(manifest: pd.DataFrame, pixels: Pixels) -> list[str]:
    """Return the warnings that a reader of a category's results needs.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
    """
    test = manifest[manifest["split"] == "test"]
    defective = int(test["label"].sum())
    masked = (test["mask"] != "").to_numpy()
    masks = int(masked.sum())
    lost = int((masked & ~pixels.mask().any(axis=(1, 2))).sum())
    warnings = []
    if lost:
        warnings.append(
            f"{lost} of {masks} defects are completely outside the crop ({pixels.path.stem}): no "
            "method can find them, and their images still count as defective"
        )
    if 0 < masks < defective:
        warnings.append(
            f"{defective - masks} of {defective} defective images have no mask: pixel-level "
            "figures leave them out"
        )
    if len(set(test["label"])) == 1:
        only = "defective" if defective else "good"
        warnings.append(f"all test images are {only}: image-level figures are not defined")
    return warnings
