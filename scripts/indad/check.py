"""What a category folder holds and everything that is wrong with it, before anything is computed.

The index reads headers alone; here every image is decoded, and the preprocessing is tried on the
sizes and the masks.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from indad import manifest
from indad.errors import DataError
from indad.images import Geometry, decode, mask_pixels, read_mask
from indad.pixels import common_size
from indad.progress import Progress, ignore


@dataclass
class Report:
    """What was found in a category.

    Attributes:
        category: its name.
        counts: images by ``train``, ``test good`` and ``test <defect>``.
        masks: masks found, of the defective test images.
        defective: defective test images.
        sizes: images by ``WxH``.
        modes: images by file type and PIL mode, ``PNG RGB``.
        problems: what keeps the category from being used.
        warnings: what can be used, but may not be meant.
    """

    category: str
    counts: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    defective: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(
    folder: Path, geometry: Geometry, *, threads: int = 4, progress: Progress = ignore
) -> Report:
    """Examine a category folder: layout, every image and mask, and what the preprocessing does.

    Args:
        folder: a category folder in MVTec AD layout.
        geometry: the preprocessing that is planned.
        threads: images decoded at once.
        progress: called with images done and in all.
    """
    report = Report(folder.name)
    table, report.problems = manifest.survey(folder, threads=threads)
    rows = list(table.itertuples())
    for row in rows:
        kind = "train" if row.split == "train" else f"test {row.defect}"
        report.counts[kind] += 1
        report.sizes[f"{row.width}x{row.height}"] += 1
    report.defective = int(table["label"].sum())
    report.masks = int((table["mask"] != "").sum())

    def examine(row: object) -> tuple[str, str, float | None]:
        return _examine(folder, row, geometry)

    lost: list[str] = []
    partly = 0
    with ThreadPoolExecutor(threads) as pool:
        for done, (mode, problem, kept) in enumerate(pool.map(examine, rows), 1):
            report.modes[mode] += 1
            if problem:
                report.problems.append(problem)
            if kept == 0:
                lost.append(rows[done - 1].mask)
            elif kept is not None and kept < 0.5:
                partly += 1
            progress(done, len(rows))
    del report.modes[""]
    if len(table):
        try:
            common_size(table, geometry)
        except DataError as error:
            report.problems.append(str(error))
    if lost:
        report.warnings.append(
            f"{len(lost)} of {report.masks} defects lie wholly outside the centre crop, so no "
            f"method can find them; set 'crop: null': {_some(lost)}"
        )
    if partly:
        report.warnings.append(
            f"{partly} of {report.masks} defects lose more than half of their area to the centre "
            "crop; 'crop: null' keeps them whole"
        )
    report.warnings += _duplicates(table)
    if report.defective and report.masks < report.defective:
        without = "no masks" if not report.masks else f"only {report.masks} masks"
        report.warnings.append(
            f"{without} for {report.defective} defective images: pixel-level figures are of those "
            "that have one"
        )
    return report


def _examine(folder: Path, row: object, geometry: Geometry) -> tuple[str, str, float | None]:
    """Decode an image; say its kind, what is wrong, and what share of its mask is kept."""
    path = folder / row.image  # type: ignore[attr-defined]
    try:
        image = decode(path)
    except DataError as error:
        return "", str(error), None
    mode = f"{path.suffix.lstrip('.').upper()} {image.mode}"
    if not row.mask:  # type: ignore[attr-defined]
        return mode, "", None
    whole = Geometry(geometry.resize, None)
    mask = folder / row.mask  # type: ignore[attr-defined]
    try:
        before = np.count_nonzero(read_mask(mask, whole))
        kept = np.count_nonzero(read_mask(mask, geometry))
    except DataError:
        return mode, "", None  # smaller than the crop: said of all images together
    if not before:  # thinner than the resize's pixels
        return mode, "", 0.0 if mask_pixels(mask).any() else None
    return mode, "", kept / before


def _duplicates(table: pd.DataFrame) -> list[str]:
    """Say which test images are training images too, and which appear twice within a split."""
    warnings = []
    train = table[table["split"] == "train"].drop_duplicates("sha256").set_index("sha256")["image"]
    test = table[table["split"] == "test"]
    shared = test[test["sha256"].isin(train.index)]
    if len(shared):
        pairs = [f"{row.image} = {train[row.sha256]}" for row in shared.itertuples()]
        warnings.append(
            f"{len(shared)} test images are training images too, which flatters every method: "
            + _some(pairs)
        )
    for split, rows in (("training", table[table["split"] == "train"]), ("test", test)):
        twice = rows[rows.duplicated("sha256")]
        if len(twice):
            warnings.append(f"{len(twice)} {split} images appear twice: {_some(twice['image'])}")
    return warnings


def _some(names: object, most: int = 5) -> str:
    listed = list(names)  # type: ignore[call-overload]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
