"""The comparisons of experiments on the report page, and the best experiments."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from indad.evaluation.comparison import AVERAGE, OVER_CATEGORIES
from indad.reporting import tables
from indad.reporting.page.metric_tables import Table


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

    @property
    def sign(self) -> int:
        """1 if A is significantly better, -1 if it is significantly worse, else 0."""
        if not self.significant:
            return 0
        return 1 if self.difference > 0 else -1


def _pairs(compared: pd.DataFrame, metric: str, level: float) -> dict[tuple[str, str, str], Pair]:
    """Return all pairs by one metric, in both orders, by A, B and category."""
    found = {}
    chosen = tables.select(compared, metric=metric)
    for row in chosen.dropna(subset="difference").itertuples():
        a, b, category = row.experiment_a, row.experiment_b, row.category
        difference, low, high = (100 * x for x in (row.difference, row.ci_low, row.ci_high))
        test = (row.p_holm, row.p_holm < 1 - level, row.method)
        found[a, b, category] = Pair(difference, low, high, *test)
        found[b, a, category] = Pair(-difference, -high, -low, *test)
    return found


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
        category: the category to show, or ``OVER_CATEGORIES``. None shows the averages, and in how
            many categories the row is better or worse than the column.
    """
    result = []
    for metric in tables.SUMMARY if len(experiments) > 1 else ():
        pairs = _pairs(compared, metric, level)
        tested = {each for *_, each in pairs}
        summaries = {AVERAGE, OVER_CATEGORIES}
        shown = tested - summaries if category is None else tested & {category}
        if not shown:
            continue
        single = min(shown) if len(shown) == 1 else AVERAGE
        signs = Counter((a, b, pair.sign) for (a, b, at), pair in pairs.items() if at in shown)
        result.append(
            {
                "metric": metric,
                "title": tables.SHORT_TITLES[metric],
                "rows": [
                    [(pairs.get((a, b, single)), signs[a, b, 1], signs[a, b, -1])
                     for b in experiments]
                    for a in experiments
                ],
                "methods": sorted({p.method for (*_, at), p in pairs.items() if at == single}),
                "categories": len(shown),
            }
        )  # fmt: skip
    return result


def rank_tables(ranks: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """Return the mean ranks of experiments by each main metric for which they were tested.

    The critical difference is NaN if Friedman's test is not significant.
    """
    result = []
    for metric in tables.SUMMARY:
        chosen = tables.select(ranks, metric=metric)
        if chosen["critical_difference"].notna().any():
            mean = chosen.set_index("experiment")["mean_rank"].to_dict()
            p, critical = chosen[["friedman_p", "critical_difference"]].iloc[0]
            result.append(
                {
                    "title": tables.SHORT_TITLES[metric],
                    "mean": mean,
                    "best": min(mean.values()),
                    "p": p,
                    "critical": critical if p < 1 - level else np.nan,
                }
            )
    return result


@dataclass(frozen=True)
class Finding:
    """The best experiments by one metric.

    Attributes:
        title: the metric's name within a sentence.
        best: experiments with the best value; several if they tie.
        value: in percent.
        others: number of other experiments.
        rivals: other experiments that are not significantly worse; None if nothing was tested.
        why: the test.
    """

    title: str
    best: list[str]
    value: float
    others: int
    rivals: list[str] | None
    why: str

    @property
    def open(self) -> bool:
        """Whether no other experiment is significantly worse."""
        return self.rivals is not None and 0 < self.others == len(self.rivals)


def findings(
    found: Sequence[Table], experiments: Sequence[str], compared: pd.DataFrame, level: float
) -> list[Finding]:
    """Return for each main metric the best experiments, and those not significantly worse.

    The paired test of the difference of averages decides, or that of the only category. Without
    tests, the intervals must not overlap.

    Args:
        found: tables of one data set.
        experiments: their columns.
        compared: pairs of experiments on it.
        level: confidence level.
    """
    result = []
    for table in found:
        cells = dict(zip(experiments, table.overall, strict=True))
        best = [name for name, cell in cells.items() if cell.best]
        if not best or not table.first:
            continue
        others = [n for n, cell in cells.items() if n not in best and pd.notna(cell.percent)]
        better, why = _better(table, experiments, best[0], compared, level)
        rivals = [name for name in others if name not in better] if why else None
        short = tables.SHORT_TITLES[table.metric]
        title = short if short.isupper() else short[0].lower() + short[1:]
        result.append(Finding(title, best, cells[best[0]].percent, len(others), rivals, why))
    return result


def _better(
    table: Table, experiments: Sequence[str], best: str, compared: pd.DataFrame, level: float
) -> tuple[set[str], str]:
    """Return the experiments that the best is significantly better than, and the test."""
    alpha = f"{100 * (1 - level):.2g}\N{NO-BREAK SPACE}%"
    pairs = _pairs(compared, table.metric, level)
    tested = {category for *_, category in pairs} - {OVER_CATEGORIES}
    if tested:
        single = min(tested) if len(tested) == 1 else AVERAGE
        what = "the difference" if len(tested) == 1 else "the difference of the averages"
        better = {
            b for (a, b, at), pair in pairs.items() if (a, at) == (best, single) and pair.sign > 0
        }
        return better, f"{what} was tested on the same images at {alpha}"
    cells = dict(zip(experiments, table.overall, strict=True))
    better = {name for name, cell in cells.items() if cells[best].ci_low > cell.ci_high}
    bounded = pd.notna(cells[best].ci_low)
    return better, f"their {100 * level:g}\N{NO-BREAK SPACE}% intervals overlap" if bounded else ""
