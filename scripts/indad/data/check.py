"""Check a category folder before anything is computed: what it contains, and what is wrong.

The manifest reads image headers only. Here every image is decoded, and the preprocessing is tried
on the sizes and the masks. The warnings are those that a run shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data import examine, manifest
from indad.data.decode import check_sizes, read_images
from indad.data.findings import Findings
from indad.data.folder_layout import Reading
from indad.data.images import Geometry


def check(
    folder: Path,
    geometries: Sequence[Geometry],
    reading: Reading | None = None,
    *,
    one_size: Mapping[Geometry, Sequence[str]] | None = None,
    patches: Mapping[Geometry, int] | None = None,
    threads: int = 4,
    progress: Progress = ignore,
) -> Findings:
    """Check a category folder: its layout, every image and mask, and the preprocessing.

    Args:
        folder: the category folder.
        geometries: the preprocessings that are planned.
        reading: how the folder is read; as in MVTec AD if None.
        one_size: experiments that need images of one size, by preprocessing.
        patches: pixels that the sides must be multiples of, by preprocessing.
        threads: number of images decoded at once.
        progress: called with the number of images done and in total.

    Returns:
        The findings; their table has the columns of the manifest and of `examine.Facts`.

    Raises:
        DataError: the folder does not exist, or its list cannot be read.
    """
    found = manifest.survey(folder, reading, threads=threads)
    rows, done = found.table, 0
    for geometry in geometries:
        usable, patch = geometry, (patches or {}).get(geometry, 0)
        if len(rows):
            try:
                check_sizes(rows, geometry, (one_size or {}).get(geometry, ()), patch)
            except DataError as error:  # one problem, not one for each image
                found.problems.append(f"with preprocessing {geometry.name}: {error}")
                usable = Geometry((32, 32), None)
        facts = []
        for result in read_images(rows, folder, usable, threads):
            if isinstance(result, str):
                found.problems.append(result)
                facts.append(examine.Facts())
            else:
                facts.append(result[2])
            done += 1
            progress(done, len(rows) * len(geometries))
        found.table = rows.join(pd.DataFrame(facts, columns=examine.Facts._fields))
        examine.warn_of_pixels(found, geometry, patch)
    found.problems = list(dict.fromkeys(found.problems))
    found.warnings = list(dict.fromkeys(found.warnings))
    return found
