"""The comparisons of experiments on the report page, and the best experiments."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from indad.evaluation.comparison import AVERAGE
from indad.reporting import tables


def pairs_in_points(compared: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return pairs of experiments in both orders, in percentage points.

    Args:
        compared: rows of ``comparison.COMPARISON_COLUMNS``.
        level: confidence level.

    Returns:
        The same columns, and ``sign``: 1 if the first experiment is significantly better, -1 if it
        is significantly worse, else 0.
    """
    pairs = tables.both_orders(compared)
    pairs[["difference", "ci_low", "ci_high"]] *= 100
    significant = pairs["p_holm"] < 1 - level
    return pairs.assign(sign=np.where(pairs["difference"] > 0, 1, -1) * significant)


def matrices(pairs: pd.DataFrame, experiments: Sequence[str]) -> list[dict[str, Any]]:
    """Return a matrix of pairs for each main metric, rows minus columns.

    Of several categories it shows the averages, and in how many categories the row is better or
    worse than the column.

    Args:
        pairs: of one data set or one category, as ``pairs_in_points``.
        experiments: rows and columns.
    """
    result = []
    names = ["experiment_a", "experiment_b"]
    for metric in tables.SUMMARY:
        of_metric = tables.select(pairs, metric=metric)
        if of_metric.empty:
            continue
        main = tables.select(of_metric, category=_main_category(of_metric))
        by_pair = {(pair.experiment_a, pair.experiment_b): pair for pair in main.itertuples()}
        single = of_metric[of_metric["category"] != AVERAGE]
        count = Counter(single[[*names, "sign"]].itertuples(index=False, name=None))
        result.append(
            {
                "metric": metric,
                "rows": [
                    [(by_pair.get((a, b)), count[a, b, 1], count[a, b, -1]) for b in experiments]
                    for a in experiments
                ],
                "method": main["method"].iloc[0],
                "categories": single["category"].nunique(),
            }
        )
    return result


def _main_category(pairs: pd.DataFrame) -> str:
    """Return the only category, or that of the averages."""
    categories = pairs["category"].unique()
    return categories[0] if len(categories) == 1 else AVERAGE


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
        rivals: other experiments that are not significantly worse.
        tested: what was tested.
    """

    title: str
    best: list[str]
    value: float
    others: int
    rivals: list[str]
    tested: str

    @property
    def open(self) -> bool:
        """Whether no other experiment is significantly worse."""
        return 0 < self.others == len(self.rivals)


def findings(
    found: Mapping[str, Sequence[tables.Line]], experiments: Sequence[str], pairs: pd.DataFrame
) -> list[Finding]:
    """Return for each main metric the best experiments, and those not significantly worse.

    The paired test of the difference of averages decides, or that of the only category.

    Args:
        found: metric to its table on one data set.
        experiments: the columns.
        pairs: within the categories of the data set, as ``pairs_in_points``.
    """
    result = []
    for metric in filter(found.__contains__, tables.SUMMARY):
        cells = dict(zip(experiments, found[metric][-1].cells, strict=True))
        best = [name for name, cell in cells.items() if cell.best]
        if not best:
            continue
        others = [n for n, cell in cells.items() if n not in best and pd.notna(cell.percent)]
        of_metric = tables.select(pairs, metric=metric)
        category = _main_category(of_metric)
        better = tables.select(of_metric, experiment_a=best[0], category=category, sign=1)
        rivals = [name for name in others if name not in set(better["experiment_b"])]
        tested = "difference of the averages" if category == AVERAGE else "difference"
        short = tables.SHORT_TITLES[metric]
        title = short if short.isupper() else short[0].lower() + short[1:]
        result.append(Finding(title, best, cells[best[0]].percent, len(others), rivals, tested))
    return result
