"""The tables of metrics on the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indad.reporting import tables


@dataclass(frozen=True)
class Row:
    """A row of a metric's table.

    Attributes:
        name: shown.
        scope: category, group or average.
        category: number of the category's panel; None for averages.
        cells: rows of ``tables.summarise``, by experiment.
    """

    name: str
    scope: str
    category: int | None
    cells: list[Any]


@dataclass(frozen=True)
class Table:
    """A metric's table of one data set."""

    metric: str
    rows: list[Row]

    @property
    def title(self) -> str:
        """Its heading."""
        return tables.TITLES[self.metric]

    @property
    def first(self) -> bool:
        """Whether it is shown before the tables of other metrics."""
        return self.metric in tables.SUMMARY

    @property
    def categories(self) -> list[Row]:
        """The rows of single categories."""
        return [row for row in self.rows if row.scope == "category"]

    @property
    def overall(self) -> list[Any]:
        """The cells of the whole data set: of the average, or of its only category."""
        return self.rows[-1].cells

    def has(self, column: str) -> bool:
        """Return whether any cell has a value of this column."""
        return any(pd.notna(getattr(cell, column)) for row in self.rows for cell in row.cells)


def metric_tables(
    measured: pd.DataFrame, experiments: Sequence[str], numbers: Mapping[str, int]
) -> list[Table]:
    """Return the table of each metric that was measured on a data set.

    Args:
        measured: rows of the data set, as ``tables.summarise``.
        experiments: the columns.
        numbers: category to the number of its panel.
    """
    found = []
    for metric in tables.TITLES:
        chosen = tables.select(measured, metric=metric)
        if chosen["percent"].isna().all():
            continue
        rows = []
        for (scope, name), group in chosen.groupby(["scope", "category"], sort=False):
            cells = {cell.experiment: cell for cell in group.itertuples()}
            number = numbers.get(name) if scope == "category" else None
            title = f"{name} ({group['of'].iloc[0]})" if scope == "group" else name
            rows.append(Row(title, scope, number, [cells[each] for each in experiments]))
        found.append(Table(metric, rows))
    return found
