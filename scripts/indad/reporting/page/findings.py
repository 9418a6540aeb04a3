"""The best experiments, and whether their lead may be due to chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indad.evaluation.comparison import OVER_CATEGORIES
from indad.reporting import tables
from indad.reporting.page.comparisons import Pairs
from indad.reporting.page.metric_tables import Table


@dataclass(frozen=True)
class Finding:
    """The best experiments by one metric.

    Attributes:
        metric: the metric.
        title: its name within a sentence.
        best: experiments with the best value; several if they tie.
        value: in percent.
        others: number of other experiments.
        rivals: other experiments that are not significantly worse; None if nothing was tested.
        why: the test.
    """

    metric: str
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

    With enough categories, the paired test over categories decides. Otherwise the tests within the
    categories do: the best must be better in at least one and worse in none. Without tests, the
    intervals must not overlap.

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
        pairs = Pairs(tables.select(compared, metric=table.metric), level)
        rivals, why = _rivals(table, experiments, best[0], others, pairs)
        short = tables.SHORT_TITLES[table.metric]
        title = short if short.isupper() else short[0].lower() + short[1:]
        value = cells[best[0]].percent
        result.append(Finding(table.metric, title, best, value, len(others), rivals, why))
    return result


def leaders(found: Sequence[Finding]) -> list[tuple[list[str], list[Finding]]]:
    """Group findings by their best experiments."""
    grouped: dict[tuple[str, ...], list[Finding]] = {}
    for each in found:
        grouped.setdefault(tuple(each.best), []).append(each)
    return [(list(best), by) for best, by in grouped.items()]


def _rivals(
    table: Table, experiments: Sequence[str], best: str, others: Sequence[str], pairs: Pairs
) -> tuple[list[str] | None, str]:
    """Return the experiments that are not significantly worse than the best, and the test."""
    alpha = f"{100 * (1 - pairs.level):.2g}\N{NO-BREAK SPACE}%"
    rows = table.categories
    at = {name: experiments.index(name) for name in [best, *others]}
    if pairs.over:
        signs = {name: {pairs.sign(best, name, OVER_CATEGORIES)} for name in others}
        why = f"Wilcoxon's test over the categories at {alpha}"
    elif pairs.within:
        signs = {name: {pairs.sign(best, name, row.name) for row in rows} for name in others}
        why = f"paired tests on the same images at {alpha}"
    elif any(pd.notna(row.cells[at[best]].ci_low) for row in rows):
        signs = {
            name: {_order(row.cells[at[best]], row.cells[at[name]]) for row in rows}
            for name in others
        }
        why = f"their {100 * pairs.level:g}\N{NO-BREAK SPACE}% intervals overlap"
    else:
        return None, ""
    return [name for name in others if 1 not in signs[name] or -1 in signs[name]], why


def _order(mine: Any, other: Any) -> int:
    """Return the sign of a difference, 0 if the intervals overlap or are unknown (NaN)."""
    return int(mine.ci_low > other.ci_high) - int(mine.ci_high < other.ci_low)
