"""Numbers of images: of each kind in a manifest, and of those that metrics are computed from."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from indad.data.folder_layout import GOOD
from indad.evaluation.resamples import Resamples

#: Columns of the table of images that metrics are computed from, and their types.
COLUMNS = {
    "dataset": "str", "category": "str", "n_train": "int", "n_good": "int", "n_defective": "int",
    "n_masks": "int", "n_regions": "int",
}  # fmt: skip
#: Columns of the table of images of each kind, and their types.
IMAGE_COLUMNS = {
    "dataset": "str", "category": "str", "split": "str", "defect": "str", "images": "int",
    "masks": "int",
}  # fmt: skip


def row(run: Resamples, manifest: pd.DataFrame) -> dict[str, str | int]:
    """Return a row of ``COLUMNS`` for the category of a run.

    ``n_masks`` and ``n_regions`` count what is inside the crop.
    """
    return {
        "dataset": run.dataset,
        "category": run.category,
        "n_train": int((manifest["split"] == "train").sum()),
        "n_good": int((run.label == 0).sum()),
        "n_defective": int(run.label.sum()),
        "n_masks": run.n_masks,
        "n_regions": run.n_regions,
    }


def images(manifests: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Return the numbers of images and masks, rows of ``IMAGE_COLUMNS``.

    Args:
        manifests: manifest of each data set and category, as ``manifest.read``.
    """
    counted = [
        (dataset, category, *kind, len(part), int((part["mask"] != "").sum()))
        for (dataset, category), manifest in manifests.items()
        for kind, part in manifest.groupby(["split", "defect"], sort=False)
    ]
    return pd.DataFrame(counted, columns=list(IMAGE_COLUMNS))


def by_category(images: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Sum up the images of each category of a data set.

    Args:
        images: rows of one data set, as ``images``.

    Returns:
        ``category``; numbers of images ``train``, ``good`` and ``defective`` (of the test images),
        and ``masks``; ``kinds``, kind of defect to its number of test images.
    """
    for category, rows in images.groupby("category", sort=False):
        test = rows[rows["split"] == "test"]
        defects = test[test["defect"] != GOOD]
        yield {
            "category": str(category),
            "train": int(rows.loc[rows["split"] == "train", "images"].sum()),
            "good": int(test.loc[test["defect"] == GOOD, "images"].sum()),
            "defective": int(defects["images"].sum()),
            "masks": int(defects["masks"].sum()),
            "kinds": dict(zip(defects["defect"], defects["images"], strict=True)),
        }
