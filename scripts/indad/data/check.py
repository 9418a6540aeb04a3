"""Check a category folder before anything is computed: what it contains, and what is wrong.

The manifest reads image headers only. Here every image is decoded, and the preprocessing is tried
on the sizes and the masks. The warnings are those that a run shows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data import examine, manifest
from indad.data.data_warnings import DataWarning
from indad.data.decode import check_sizes
from indad.data.folder_layout import Reading
from indad.data.images import Geometry, Size


@dataclass(frozen=True)
class Report:
    """The result of checking a category.

    Attributes:
        category: its name.
        counts: number of images by ``train``, ``test good`` and ``test <defect>``.
        masks: number of masks of defective test images.
        defective: number of defective test images.
        sizes: number of images by ``(height, width)``.
        modes: number of images by file type and PIL mode, such as ``PNG RGB``.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
    """

    category: str
    counts: Counter[str]
    masks: int
    defective: int
    sizes: Counter[Size]
    modes: Counter[str]
    problems: list[str]
    warnings: list[DataWarning]


def check(
    folder: Path,
    geometries: Sequence[Geometry],
    reading: Reading | None = None,
    *,
    one_size: Mapping[Geometry, Sequence[str]] | None = None,
    patches: Mapping[Geometry, int] | None = None,
    threads: int = 4,
    progress: Progress = ignore,
) -> Report:
    """Check a category folder: its layout, every image and mask, and the preprocessing.

    Args:
        folder: the category folder.
        geometries: the preprocessings that are planned.
        reading: how the folder is read; as in MVTec AD if None.
        one_size: experiments that need images of one size, by preprocessing.
        patches: pixels that the sides must be multiples of, by preprocessing.
        threads: number of images decoded at once.
        progress: called with the number of images done and in total.

    Raises:
        DataError: the folder does not exist, or its list cannot be read.
    """
    reading = reading or Reading()
    found = manifest.survey(folder, reading, threads=threads)
    rows = list(found.table.itertuples())
    problems, warnings = [*found.problems], [*found.warnings]
    done = 0
    for geometry in geometries:
        usable, patch = geometry, (patches or {}).get(geometry, 0)
        if rows:
            try:
                one = (one_size or {}).get(geometry, ())
                check_sizes(found.table, geometry, one, patch)
            except DataError as error:  # one problem, not one for each image
                problems.append(f"with preprocessing {geometry.name}: {error}")
                usable = Geometry((32, 32), None)
        facts = []
        with ThreadPoolExecutor(threads) as pool:
            for each in pool.map(lambda row, usable=usable: _examine(folder, row, usable), rows):
                problems += [each] if isinstance(each, str) else []
                facts.append(examine.Facts() if isinstance(each, str) else each)
                done += 1
                progress(done, len(rows) * len(geometries))
        table = found.table.join(pd.DataFrame(facts, columns=examine.Facts._fields))
        warnings += examine.pixel_warnings(table, folder.name, geometry, patch)
    return Report(
        category=folder.name,
        counts=Counter("train" if r.split == "train" else f"test {r.defect}" for r in rows),
        masks=int((table["mask"] != "").sum()),
        defective=int(table["label"].sum()),
        sizes=Counter((row.height, row.width) for row in rows),
        modes=Counter(filter(None, table["mode"])),
        problems=list(dict.fromkeys(problems)),
        warnings=list(dict.fromkeys(warnings)),
    )


def _examine(folder: Path, row: Any, geometry: Geometry) -> examine.Facts | str:
    """Return what an image and its mask show, or what is wrong with them."""
    try:
        return examine.read(folder, row, geometry)[2]
    except DataError as error:
        return str(error)
