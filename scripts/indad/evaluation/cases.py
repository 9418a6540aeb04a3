"""Choice of test images to show: typical ones, the clearest, the hardest, and the errors.

Images are classified at the threshold that ``predict`` uses by default: it is derived from the
scores of the good test images, see ``indad.evaluation.calibration``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from indad.core.errors import StoreError
from indad.data.folder_layout import GOOD
from indad.evaluation import calibration
from indad.evaluation.metrics import ScoreCurve

#: Increased when the same scores give other verdicts, or are drawn in another way.
VERSION = 2
MISSED, FALSE_ALARM = "missed", "false alarm"
#: Columns of the table of kinds of defects, and their types.
DEFECT_COLUMNS = {
    "experiment": "str", "defect": "str", "images": "int", "image_auroc": "float",
    "missed": "float",
}  # fmt: skip


class Case(NamedTuple):
    """A test image to show, its kind of defect or good, and the reason, such as ``missed``."""

    image: str
    defect: str
    why: str = ""


def image_curve(table: pd.DataFrame) -> ScoreCurve | None:
    """Return the curve of image scores; None if all images are good or all are defective."""
    labels = table["label"].to_numpy().astype(np.uint32)
    if len(set(labels)) < 2:
        return None
    return ScoreCurve.from_scores(table["score"].to_numpy(), labels)


def threshold(table: pd.DataFrame) -> float:
    """Return the default threshold of ``predict``; images with a higher score are flagged.

    NaN without good images: then no image is classified.
    """
    good = table.loc[table["label"] == 0, "score"].tolist()
    if not good:
        return float("nan")
    return calibration.conformal_quantile(good, calibration.default_rate(len(good)))


def verdicts(table: pd.DataFrame, at: float) -> np.ndarray:
    """Return ``missed``, ``false alarm`` or an empty string for each image, ``(N,)``."""
    if np.isnan(at):
        return np.full(len(table), "")
    flagged = table["score"].to_numpy() > at
    label = table["label"].to_numpy()
    return np.select(
        [(label == 1) & ~flagged, (label == 0) & flagged], [MISSED, FALSE_ALARM], default=""
    )


def by_defect(experiment: str, table: pd.DataFrame) -> pd.DataFrame:
    """Measure each kind of defect against all good images.

    Returns:
        Rows of ``DEFECT_COLUMNS``, sorted by defect; ``missed`` is counted at the experiment's
        threshold over all kinds. The last two are NaN without good images.
    """
    missed = verdicts(table, threshold(table)) == MISSED
    good = table["label"] == 0
    rows = []
    for defect in defects(table):
        chosen = (table["defect"] == defect) & ~good
        curve = image_curve(table[chosen | good])
        auroc, count = (curve.auroc(), missed[chosen].sum()) if curve else (np.nan, np.nan)
        rows.append((experiment, defect, chosen.sum(), auroc, count))
    return pd.DataFrame(rows, columns=list(DEFECT_COLUMNS))


def defects(table: pd.DataFrame) -> list[str]:
    """Return the kinds of defects of a score table, sorted."""
    return sorted(set(table.loc[table["label"] == 1, "defect"]))


def consensus(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Classify and rank images by all experiments together.

    Args:
        tables: score tables of the same images in the same order.

    Returns:
        Columns ``image, label, defect``, ``rank`` (rank of the score among all images, in (0, 1],
        averaged over experiments, because their scores have different scales), ``missed`` and
        ``false_alarms`` (numbers of experiments). Sorted by rank, then name.

    Raises:
        StoreError: the tables contain different images.
    """
    first = tables[0]
    if any(list(table["image"]) != list(first["image"]) for table in tables):
        raise StoreError(
            "the experiments scored different images; delete their scores and run again"
        )
    classified = np.stack([verdicts(table, threshold(table)) for table in tables])
    ranks = [table["score"].rank(pct=True) for table in tables]
    return (
        first[["image", "label", "defect"]]
        .assign(
            rank=np.mean(ranks, axis=0),
            missed=(classified == MISSED).sum(axis=0),
            false_alarms=(classified == FALSE_ALARM).sum(axis=0),
        )
        .sort_values(["rank", "image"], ignore_index=True)
    )


def median(ranked: pd.DataFrame, why: str = "") -> Case:
    """Choose the middle one of some rows of ``consensus``."""
    return _case(ranked.iloc[len(ranked) // 2], why)


def _case(row: pd.Series, why: str) -> Case:
    return Case(str(row["image"]), GOOD if row["label"] == 0 else str(row["defect"]), why)


def typical(classified: pd.DataFrame, most: int) -> list[Case]:
    """Choose the median good image and the median image of each kind of defect, ``most`` in all.

    The median is neither the best nor the worst case. If there are too many kinds, those with the
    most images are kept.
    """
    counts = classified[classified["label"] == 1].groupby("defect").size()
    kept = counts.sort_values(ascending=False, kind="stable").index[: most - 1]
    defective = classified["label"] == 1
    groups = [classified[~defective]]
    groups += [classified[(classified["defect"] == kind) & defective] for kind in sorted(kept)]
    return [median(group) for group in groups if len(group)]


def notable(classified: pd.DataFrame, most: int) -> list[Case]:
    """Choose the clearest, the median and the hardest defect, and ``most`` errors of each kind.

    Errors of the most experiments come first; among them, those with the most extreme rank.
    """
    defective = classified[classified["label"] == 1]
    cases = []
    if len(defective):
        hardest = _case(defective.iloc[0], "hardest defect")
        middle = median(defective, "median defect")
        clearest = _case(defective.iloc[-1], "clearest defect")
        # Of few defects one image may be several of these.
        by_image = {case.image: case for case in (hardest, middle, clearest)}
        cases = [*by_image.values()][::-1]
    shown = {case.image for case in cases}
    for column, why, worst_first in (
        ("missed", MISSED, True),
        ("false_alarms", FALSE_ALARM, False),
    ):
        wrong = classified[(classified[column] > 0) & ~classified["image"].isin(shown)]
        wrong = wrong.sort_values([column, "rank", "image"], ascending=[False, worst_first, True])
        cases += [_case(row, why) for _, row in wrong.head(most).iterrows()]
    good = classified[classified["label"] == 0]
    if len(good) and not (classified["false_alarms"] > 0).any():
        cases.append(_case(good.iloc[-1], "top-scoring good"))
    return cases
