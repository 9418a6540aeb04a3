"""The tables of metrics on the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indad.reporting import tables


def known(value: Any) -> Any:
    """Return None for a missing value of a table, else the value."""
    return None if pd.isna(value) else value


@dataclass(frozen=True)
class Cell:
    """A value of a table in percent; what is unknown is None.

    Attributes:
        value: the value.
        best: whether it is the best of its row.
        low, high: its confidence interval.
        spread: its standard deviation over seeds.
        paper: the paper's value.
        difference: the value minus the paper's.
        lacks: how many categories an average covers, if not all.
    """

    value: float | None
    best: bool = False
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    paper: float | None = None
    difference: float | None = None
    lacks: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a metric's table.

    Attributes:
        name: shown.
        scope: category, group or average.
        category: number of the category's panel; None for averages.
        cells: by experiment.
    """

    name: str
    scope: str
    category: int | None
    cells: list[Cell]


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
    def overall(self) -> list[Cell]:
        """The cells of the whole data set: of the average, or of its only category."""
        return self.rows[-1].cells

    @property
    def has_intervals(self) -> bool:
        """Whether any cell has an interval."""
        return any(cell.low is not None for row in self.rows for cell in row.cells)

    @property
    def has_papers(self) -> bool:
        """Whether any cell has a paper's value."""
        return any(cell.paper is not None for row in self.rows for cell in row.cells)


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
        if chosen["percent"].notna().any():
            groups = chosen.groupby(["scope", "category"], sort=False)
            rows = [_row(*key, rows, experiments, numbers) for key, rows in groups]
            found.append(Table(metric, rows))
    return found


def _row(
    scope: str,
    name: str,
    rows: pd.DataFrame,
    experiments: Sequence[str],
    numbers: Mapping[str, int],
) -> Row:
    cells = {
        each.experiment: Cell(
            known(each.percent),
            each.best,
            known(each.ci_low),
            known(each.ci_high),
            known(each.sd),
            known(each.paper),
            known(each.difference),
            f"of {each.averaged}" if 0 < each.averaged < each.of else "",
        )
        for each in rows.itertuples()
    }
    title = f"{name} ({rows['of'].iloc[0]})" if scope == "group" else name
    number = numbers.get(name) if scope == "category" else None
    return Row(title, scope, number, [cells.get(each, Cell(None)) for each in experiments])
