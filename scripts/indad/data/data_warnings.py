"""Warnings about a category's data, one sentence each: things that make its results mean less.

They come from the manifest, from decoded files, and from the decoded images of a preprocessing.
``indad.data.check`` shows them before a run, the tables after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indad.data.decode import Pixels
from indad.data.folder_layout import Reading

#: 16-bit images whose maximum is below this are nearly black after scaling to 8 bits.
DARK = 1 << 14


class Decoded(NamedTuple):
    """Properties of a decoded image and its mask.

    Attributes:
        mode: file type and PIL mode, such as ``PNG RGB``.
        problem: what is wrong with the file; "" if nothing is.
        kept: share of the mask that is inside the crop; None without a mask.
        covered: share of the image that the mask covers.
        rotated: whether the image has a mask and is rotated by its EXIF orientation.
        peak: largest value of a 16-bit image; 0 for others.
    """

    mode: str = ""
    problem: str = ""
    kept: float | None = None
    covered: float = 0.0
    rotated: bool = False
    peak: int = 0


def of_files(table: pd.DataFrame, decoded: Sequence[Decoded], reading: Reading) -> list[str]:
    """Return the warnings about the files of a category.

    Args:
        table: the manifest.
        decoded: one for each of its rows.
        reading: how the folder is read.
    """
    pairs = list(zip(table.itertuples(), decoded, strict=True))
    return [
        *_lost_to_the_crop(pairs),
        *_suspicious_masks(pairs),
        *_dark_images(decoded),
        *_duplicates(table),
        *_missing_masks(table, reading),
    ]


def _lost_to_the_crop(pairs: Sequence[tuple[Any, Decoded]]) -> list[str]:
    masks = sum(bool(row.mask) for row, _ in pairs)
    lost = [row.mask for row, each in pairs if each.kept == 0]
    partly = sum(each.kept is not None and 0 < each.kept < 0.5 for _, each in pairs)
    warnings = []
    if lost:
        warnings.append(
            f"{len(lost)} of {masks} defects are completely outside the centre crop, so no method "
            f"can find them; set 'crop: null': {_some(lost)}"
        )
    if partly:
        warnings.append(
            f"{partly} of {masks} defects lose more than half of their area to the centre crop; "
            "'crop: null' keeps them complete"
        )
    return warnings


def _suspicious_masks(pairs: Sequence[tuple[Any, Decoded]]) -> list[str]:
    pairs = [(row, each) for row, each in pairs if row.mask]
    lossy = [row.mask for row, _ in pairs if row.mask.lower().endswith((".jpg", ".jpeg"))]
    large = [row.mask for row, each in pairs if each.covered > 0.5]
    rotated = [row.image for row, each in pairs if each.rotated]
    warnings = []
    if lossy:
        warnings.append(
            f"{len(lossy)} masks are JPEG files: their compression blurs the outline, and every "
            f"pixel above 0 counts as defect; save masks as PNG: {_some(lossy)}"
        )
    if large:
        warnings.append(
            f"{len(large)} masks cover more than half of the image; the defect must be white, the "
            f"rest black: {_some(large)}"
        )
    if rotated:
        warnings.append(
            f"{len(rotated)} images with a mask are rotated or mirrored by their EXIF orientation; "
            "their masks must be drawn on the image as it is shown upright: " + _some(rotated)
        )
    return warnings


def _dark_images(decoded: Sequence[Decoded]) -> list[str]:
    peaks = [each.peak for each in decoded if each.peak]
    if not peaks or max(peaks) >= DARK:
        return []
    return [
        f"{len(peaks)} images of 16 bits have values up to {max(peaks)} of 65535, so they are "
        f"almost black for the backbone: a camera of {max(peaks).bit_length()} bits? Stretch them "
        "to 16 bits, or save them with 8 bits"
    ]


def _duplicates(table: pd.DataFrame) -> list[str]:
    """Warn of images that are in both splits, or twice in one."""
    warnings = []
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    names = train.drop_duplicates("sha256").set_index("sha256")["image"]
    shared = test[test["sha256"].isin(names.index)]
    if len(shared):
        pairs = [f"{row.image} = {names[row.sha256]}" for row in shared.itertuples()]
        warnings.append(
            f"{len(shared)} test images are also training images, which makes every method look "
            f"better than it is: {_some(pairs)}"
        )
    for split, rows in (("training", train), ("test", test)):
        twice = rows[rows.duplicated("sha256")]
        if len(twice):
            warnings.append(f"{len(twice)} {split} images appear twice: {_some(twice['image'])}")
    return warnings


def _missing_masks(table: pd.DataFrame, reading: Reading) -> list[str]:
    defective = int(table["label"].sum())
    masks = int((table["mask"] != "").sum())
    if masks >= defective or reading.missing_masks == "allow":  # reported by the survey
        return []
    counted = f"only {masks} masks" if masks else "no masks"
    return [
        f"{counted} for {defective} defective images: pixel-level figures use only images that "
        "have one"
    ]


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def lost_defects(manifest: pd.DataFrame, pixels: Pixels) -> list[str]:
    """Return the names of test images whose mask is empty after resize and crop.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
    """
    test = manifest[manifest["split"] == "test"]
    masked = (test["mask"] != "").to_numpy()
    empty = ~pixels.mask().any(axis=(1, 2)) if len(test) else np.zeros(0, bool)
    return test["image"][masked & empty].tolist()


def of_results(manifest: pd.DataFrame, pixels: Pixels) -> list[str]:
    """Return the warnings that a reader of a category's results needs.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
    """
    test = manifest[manifest["split"] == "test"]
    defective = test[test["label"] == 1]
    masks = int((defective["mask"] != "").sum())
    warnings = []
    if lost := lost_defects(manifest, pixels):
        warnings.append(
            f"{len(lost)} of {masks} defects are completely outside the crop "
            f"({pixels.path.stem}): no method can find them, and their images still count as "
            "defective"
        )
    if 0 < masks < len(defective):
        warnings.append(
            f"{len(defective) - masks} of {len(defective)} defective images have no mask: "
            "pixel-level figures leave them out"
        )
    if len(set(test["label"])) == 1:
        only = "defective" if len(defective) else "good"
        warnings.append(f"all test images are {only}: image-level figures are not defined")
    return warnings
