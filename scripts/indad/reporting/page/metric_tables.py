"""The tables of metrics on the report page, and the chart of each main metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

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
    def explanation(self) -> str:
        """What a reader has to know of the metric, or an empty string."""
        return tables.EXPLANATIONS.get(self.metric, "")

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


def chart(table: Table, experiments: Sequence[str]) -> dict[str, Any]:
    """Return a chart of a metric with one line per experiment, as positions in its SVG.

    It has a dot for each category and one for the average, or the interval of a single category.
    SVG follows the page's light and dark colours and is accessible to screen readers.
    """
    width, step, top, margin = 340, 38, 8, 6
    single = len(table.categories) == 1
    shown = ("percent", "ci_low", "ci_high") if single else ("percent",)
    cells = [cell for row in table.categories for cell in row.cells]
    values = np.array([[getattr(cell, name) for name in shown] for cell in cells], float)
    low, high = np.nanmin(values), np.nanmax(values)
    room = max(0.06 * (high - low), 0.4)
    low, high = max(0.0, low - room), min(100.0, high + room)

    def place(value: float) -> float:
        return round(margin + (value - low) / (high - low) * (width - 2 * margin), 1)

    lines = []
    for i, (name, total) in enumerate(zip(experiments, table.overall, strict=True)):
        dots = [] if single else [(row.name, row.cells[i].percent) for row in table.categories]
        bounded = single and pd.notna(total.ci_low)
        lines.append(
            {
                "name": name,
                "number": i,
                "y": top + i * step + 22,
                "total": total,
                "x": None if pd.isna(total.percent) else place(total.percent),
                "interval": (place(total.ci_low), place(total.ci_high)) if bounded else None,
                "dots": [
                    (place(value), f"{category}: {value:.1f}")
                    for category, value in dots
                    if pd.notna(value)
                ],
            }
        )
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return {
        "title": tables.SHORT_TITLES[table.metric],
        "width": width,
        "top": top,
        "bottom": top + len(experiments) * step,
        "ticks": [(place(tick), f"{tick:g}") for tick in ticks if low <= tick <= high],
        "lines": lines,
        "single": single,
    }
