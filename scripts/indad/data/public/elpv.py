"""ELPV: photos of solar cells that are installed as a pip package."""

import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore

PACKAGE = "elpv-dataset"
CATEGORIES = ("mono", "poly")
CREDIT = (
    "ELPV solar cells, Buerhop-Lutz, Deitsch et al., 2018, "
    "https://github.com/zae-bayern/elpv-dataset (CC BY-NC-SA 4.0)"
)


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
    probability are defective test images, in ``defect_<percent>``. There are no masks.

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
    labels = pd.read_csv(root / "labels.csv", sep=r"\s+", names=("path", "probability", "kind"))
    labels = labels[labels["kind"] == category]
    percent = (100 * labels["probability"]).round().astype(int)
    rng = np.random.default_rng(seed)
    shuffled = {
        probability: rng.permutation(sorted(paths)).tolist()
        for probability, paths in labels["path"].groupby(percent)
    }
    cells = shuffled.pop(0)
    if len(cells) <= train:
        raise DataError(
            f"elpv {category}: {len(cells)} good cells, too few for {train} training images and a "
            "test; choose a smaller option 'train'"
        )
    jobs = [(path, "train/good") for path in cells[:train]]
    jobs += [(path, "test/good") for path in cells[train : train + good]]
    for probability, paths in shuffled.items():
        jobs += [(path, f"test/defect_{probability:03d}") for path in paths[:per_defect]]
    for done, (path, place) in enumerate(jobs, 1):
        target = folder / place / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
        progress(done, len(jobs))
