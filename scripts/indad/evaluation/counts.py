"""How many images are behind each value."""

from __future__ import annotations

import pandas as pd

from indad.evaluation.resamples import Resamples

COLUMNS = ("dataset", "category", "n_train", "n_good", "n_defective", "n_masks", "n_regions")


def row(run: Resamples, manifest: pd.DataFrame) -> dict[str, str | int]:
    """Return a row of ``COLUMNS``: the images of a category, as one run saw them.

    ``n_masks`` and ``n_regions`` are those in view: a crop may cut some away.
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
