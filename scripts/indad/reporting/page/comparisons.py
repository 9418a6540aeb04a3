"""The comparisons of experiments on the report page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indad.evaluation.comparison import OVER_CATEGORIES
from indad.reporting import tables


@dataclass(frozen=True)
class Pair:
    """Experiment A minus experiment B in percentage points.

    Attributes:
        difference: A minus B.
        low, high: its interval; NaN if unknown.
        p: after Holm's correction; NaN if unknown.
        significant: whether p is below the level.
        method: of the test.
    """

    difference: float
    low: float
    high: float
    p: float
    significant: bool
    method: str


class Pairs:
    """All pairs of experiments by one metric, in both orders.

    Args:
        compared: rows of one data set and metric.
        level: confidence level.

    Attributes:
        level: confidence level.
        over: whether there are tests over categories.
        within: the categories with tests.
    """

    def __init__(self, compared: pd.DataFrame, level: float) -> None:
        self.level = level
        self._pairs: dict[tuple[str, str, str], Pair] = {}
        for row in compared.dropna(subset="difference").itertuples():
            a, b, category = row.experiment_a, row.experiment_b, row.category
            difference, low, high = (100 * x for x in (row.difference, row.ci_low, row.ci_high))
            test = (row.p_holm, row.p_holm < 1 - level, row.method)
            self._pairs[a, b, category] = Pair(difference, low, high, *test)
            self._pairs[b, a, category] = Pair(-difference, -high, -low, *test)
        categories = {category for _, _, category in self._pairs}
        self.over = OVER_CATEGORIES in categories
        self.within = categories - {OVER_CATEGORIES}

    def get(self, a: str, b: str, category: str) -> Pair | None:
        """Return a pair, or None if it was not compared."""
        return self._pairs.get((a, b, category))

    def sign(self, a: str, b: str, category: str) -> int:
        """Return 1 if A is significantly better, -1 if it is significantly worse, else 0."""
        pair = self.get(a, b, category)
        if pair is None or not pair.significant:
            return 0
        return 1 if pair.difference > 0 else -1

    def methods(self) -> list[str]:
        """Return the names of the tests."""
        return sorted({pair.method for pair in self._pairs.values()})


def matrices(
    compared: pd.DataFrame,
    experiments: Sequence[str],
    level: float,
    category: str | None = None,
) -> list[dict[str, Any]]:
    """Return a matrix of pairs for each main metric, rows minus columns.

    Args:
        compared: rows of one data set.
        experiments: rows and columns.
        level: confidence level.
        category: the category to show. None shows the test over all categories, and in how many of
            them the row is better or worse than the column.
    """
    result = []
    for metric in tables.SUMMARY if len(experiments) > 1 else ():
        pairs = Pairs(tables.select(compared, metric=metric), level)
        shown = sorted(pairs.within) if category is None else [category]
        if not pairs.within & set(shown):
            continue
        single = shown[0] if len(shown) == 1 else OVER_CATEGORIES
        rows = []
        for a in experiments:
            signs = [[pairs.sign(a, b, each) for each in shown] for b in experiments]
            rows.append(
                [
                    (pairs.get(a, b, single), each.count(1), each.count(-1))
                    for b, each in zip(experiments, signs, strict=True)
                ]
            )
        result.append(
            {
                "metric": metric,
                "title": tables.SHORT_TITLES[metric],
                "rows": rows,
                "methods": pairs.methods(),
                "categories": len(shown),
                "over": len(shown) > 1 and pairs.over,
            }
        )
    return result


def rank_tables(ranks: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the mean ranks of experiments by each main metric for which they were tested.

    Args:
        ranks: rows of one data set.
    """
    result = []
    for metric in tables.SUMMARY:
        chosen = tables.select(ranks, metric=metric)
        if chosen["critical_difference"].notna().any():
            mean = chosen.set_index("experiment")["mean_rank"].to_dict()
            result.append(
                {
                    "title": tables.SHORT_TITLES[metric],
                    "mean": mean,
                    "best": min(mean.values()),
                    "p": chosen["friedman_p"].iloc[0],
                    "critical": chosen["critical_difference"].iloc[0],
                }
            )
    return result
