"""What a category folder holds and everything that is wrong with it, before anything is computed.

The index reads headers alone; here every image is decoded, and the preprocessing is tried on the
sizes and the masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indad.data import manifest
from indad.core.errors import DataError
from indad.data.images import Geometry, decode, is_turned, mask_pixels, read_mask, to_rgb
from indad.data.decode import common_size
from indad.core.progress import Progress, ignore
from indad.data.folder_layout import Reading


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
    folder: Path,
    geometry: Geometry,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Report:
    """Examine a category folder: layout, every image and mask, and what the preprocessing does.

    Args:
        folder: a category folder.
        geometry: the preprocessing that is planned.
        reading: how the folder is read; in MVTec AD layout when left out.
        threads: images decoded at once.
        progress: called with images done and in all.

    Raises:
        DataError: there is no such folder, or its list cannot be read.
    """
    reading = reading or Reading()
    report = Report(folder.name)
    found = manifest.survey(folder, reading, threads=threads)
    table, report.problems = found.table, found.problems
    rows = list(table.itertuples())
    for row in rows:
        kind = "train" if row.split == "train" else f"test {row.defect}"
        report.counts[kind] += 1
        report.sizes[f"{row.width}x{row.height}"] += 1
    report.defective = int(table["label"].sum())
    report.masks = int((table["mask"] != "").sum())

    def examine(row: object) -> _Seen:
        return _examine(folder, row, geometry)

    seen: list[_Seen] = []
    with ThreadPoolExecutor(threads) as pool:
        for each in pool.map(examine, rows):
            seen.append(each)
            progress(len(seen), len(rows))
    report.modes.update(each.mode for each in seen if each.mode)
    report.problems += [each.problem for each in seen if each.problem]
    if len(table):
        try:
            common_size(table, geometry)
        except DataError as error:
            report.problems.append(str(error))
    report.warnings += found.notes
    report.warnings += _crop_warnings(rows, seen)
    report.warnings += _mask_warnings(rows, seen)
    deep = [each.peak for each in seen if each.peak]
    if deep and max(deep) < 1 << 14:
        report.warnings.append(
            f"{len(deep)} images of 16 bits reach {max(deep)} of 65535, so they are seen almost "
            f"black: a camera of {max(deep).bit_length()} bits? Stretch them to 16 bits, or save "
            "them with 8"
        )
    report.warnings += _duplicates(table)
    if report.defective and report.masks < report.defective and reading.missing_masks == "error":
        without = "no masks" if not report.masks else f"only {report.masks} masks"
        report.warnings.append(
            f"{without} for {report.defective} defective images: pixel-level figures are of those "
            "that have one"
        )
    return report


class _Seen(NamedTuple):
    """What decoding an image and its mask shows.

    Attributes:
        mode: file type and PIL mode, ``PNG RGB``.
        problem: what is wrong with it.
        kept: share of its mask that the crop keeps, or None.
        covered: share of the image that its mask covers.
        turned: it is turned by EXIF, and has a mask.
        peak: the largest value, of 16 bits; else 0.
    """

    mode: str = ""
    problem: str = ""
    kept: float | None = None
    covered: float = 0.0
    turned: bool = False
    peak: int = 0


def _examine(folder: Path, row: object, geometry: Geometry) -> _Seen:
    path = folder / row.image  # type: ignore[attr-defined]
    try:
        image = decode(path)
        to_rgb(image)
    except DataError as error:
        return _Seen(problem=str(error))
    except ValueError as error:
        return _Seen(problem=f"{path}: {error}")
    seen = _Seen(
        mode=f"{path.suffix.lstrip('.').upper()} {image.mode}",
        peak=int(np.asarray(image).max()) if image.mode.startswith("I") else 0,
    )
    if not row.mask:  # type: ignore[attr-defined]
        return seen
    whole = Geometry(geometry.resize, None)
    mask = folder / row.mask  # type: ignore[attr-defined]
    try:
        drawn = mask_pixels(mask)
        seen = seen._replace(covered=float(drawn.mean()), turned=is_turned(path))
        before = np.count_nonzero(read_mask(mask, whole))
        kept = np.count_nonzero(read_mask(mask, geometry))
    except DataError:
        return seen  # smaller than the crop: said of all images together
    if not before:  # thinner than the resize's pixels
        return seen._replace(kept=0.0 if drawn.any() else None)
    return seen._replace(kept=kept / before)


def _crop_warnings(rows: Sequence[Any], seen: Sequence[_Seen]) -> list[str]:
    """Say which defects the crop takes away."""
    masks = sum(bool(row.mask) for row in rows)
    lost = [row.mask for row, each in zip(rows, seen, strict=True) if each.kept == 0]
    partly = sum(each.kept is not None and 0 < each.kept < 0.5 for each in seen)
    warnings = []
    if lost:
        warnings.append(
            f"{len(lost)} of {masks} defects lie wholly outside the centre crop, so no method can "
            f"find them; set 'crop: null': {_some(lost)}"
        )
    if partly:
        warnings.append(
            f"{partly} of {masks} defects lose more than half of their area to the centre crop; "
            "'crop: null' keeps them whole"
        )
    return warnings


def _mask_warnings(rows: Sequence[Any], seen: Sequence[_Seen]) -> list[str]:
    """Say what makes masks suspicious."""
    warnings = []
    pairs = [(row, each) for row, each in zip(rows, seen, strict=True) if row.mask]
    lossy = [row.mask for row, _ in pairs if row.mask.lower().endswith((".jpg", ".jpeg"))]
    if lossy:
        warnings.append(
            f"{len(lossy)} masks are JPEG files, whose blur around the defect counts as defect "
            f"(every pixel above 0); save masks as PNG: {_some(lossy)}"
        )
    large = [row.mask for row, each in pairs if each.covered > 0.5]
    if large:
        warnings.append(
            f"{len(large)} masks cover more than half of the image; the defect must be white, the "
            f"rest black: {_some(large)}"
        )
    turned = [row.image for row, each in pairs if each.turned]
    if turned:
        warnings.append(
            f"{len(turned)} images with a mask are turned or mirrored by their EXIF orientation; "
            f"their masks must be drawn on the image as it is shown upright: {_some(turned)}"
        )
    return warnings


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
