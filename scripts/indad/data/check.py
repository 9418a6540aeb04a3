"""Check a category folder before anything is computed: what it contains, and what is wrong.

The manifest reads image headers only. Here every image is decoded, and the preprocessing is tried
on the sizes and the masks.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data import data_warnings, manifest
from indad.data.data_warnings import Decoded
from indad.data.decode import common_size
from indad.data.folder_layout import Reading
from indad.data.images import Geometry, decode, is_rotated, mask_pixels, read_mask, to_rgb


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
    table = found.table
    rows = list(table.itertuples())
    decoded: list[Decoded] = []
    with ThreadPoolExecutor(threads) as pool:
        for each in pool.map(lambda row: _examine(folder, row, geometry), rows):
            decoded.append(each)
            progress(len(decoded), len(rows))
    problems = [*found.problems, *(each.problem for each in decoded if each.problem)]
    if rows:
        try:
            common_size(table, geometry)
        except DataError as error:
            problems.append(str(error))
    return Report(
        category=folder.name,
        counts=Counter("train" if r.split == "train" else f"test {r.defect}" for r in rows),
        masks=int((table["mask"] != "").sum()),
        defective=int(table["label"].sum()),
        sizes=Counter(f"{row.width}x{row.height}" for row in rows),
        modes=Counter(each.mode for each in decoded if each.mode),
        problems=problems,
        warnings=[*found.warnings, *data_warnings.of_files(table, decoded, reading)],
    )


def _examine(folder: Path, row: Any, geometry: Geometry) -> Decoded:
    """Decode an image and its mask."""
    path = folder / row.image
    try:
        image = decode(path)
        to_rgb(image)
    except DataError as error:
        return Decoded(problem=str(error))
    except ValueError as error:
        return Decoded(problem=f"{path}: {error}")
    decoded = Decoded(
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
        return decoded._replace(kept=0.0 if drawn.any() else None)
    return decoded._replace(kept=kept / before)
