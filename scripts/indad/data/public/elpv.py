"""ELPV: photos of solar cells that are installed as a pip package."""

from __future__ import annotations

import csv
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore

PACKAGE = "elpv-dataset"
CATEGORIES = ("mono", "poly")
CREDIT = (
    "ELPV solar cells, Buerhop-Lutz, Deitsch et al., 2018, "
    "https://github.com/zae-bayern/elpv-dataset (CC BY-NC-SA 4.0)"
)
#: Names of defects: the defect probability that experts assigned to a cell, in percent.
DEFECTS = ("defect_033", "defect_067", "defect_100")


def make_elpv(
    folder: Path,
    category: str,
    *,
    train: int = 400,
    good: int = 200,
    per_defect: int = 400,
    seed: int = 0,
    progress: Progress = ignore,
) -> None:
    """Copy the ELPV solar cells of one type (mono or poly) into MVTec AD layout.

    Cells with defect probability 0 are good: ``train`` of them, drawn with ``seed``, are for
    training, up to ``good`` others for testing. Up to ``per_defect`` cells of each other
    probability are defective test images. There are no masks.

    Raises:
        DataError: the package is not installed, or has too few good cells.
    """
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise DataError(
            f"the pip package {PACKAGE} with the photos of solar cells is not installed: "
            f"pip install {PACKAGE}"
        ) from None
    root = Path(str(package.locate_file("elpv_dataset/data")))
    rng = np.random.default_rng(seed)
    shuffled = {
        kind: rng.permutation(sorted(paths)).tolist()
        for kind, paths in _cells(root / "labels.csv", category).items()
    }
    cells = shuffled.pop("good")
    if len(cells) <= train:
        raise DataError(
            f"elpv {category}: {len(cells)} good cells, too few for {train} training images and a "
            "test; choose a smaller option 'train'"
        )
    jobs = [(path, "train/good") for path in cells[:train]]
    jobs += [(path, "test/good") for path in cells[train : train + good]]
    for defect, paths in shuffled.items():
        jobs += [(path, f"test/{defect}") for path in paths[:per_defect]]
    for done, (path, place) in enumerate(jobs, 1):
        target = folder / place / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
        progress(done, len(jobs))


def _cells(labels: Path, category: str) -> dict[str, list[str]]:
    """Read the image paths of all cells of a type, good ones first, then by defect."""
    cells: dict[str, list[str]] = {kind: [] for kind in ("good", *DEFECTS)}
    with labels.open(newline="") as file:
        lines = (" ".join(line.split()) for line in file)
        for path, probability, kind in csv.reader(lines, delimiter=" "):
            if kind == category:
                percent = round(100 * float(probability))
                cells[f"defect_{percent:03d}" if percent else "good"].append(path)
    return cells
