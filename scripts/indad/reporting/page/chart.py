"""The chart of a main metric on the report page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from indad.reporting.tables import Line


def chart(rows: Sequence[Line], experiments: Sequence[str]) -> dict[str, Any]:
    """Return a chart of a metric with one line per experiment, as positions in its SVG.

    It has a dot for each category and one for the average, or the interval of a single category.
    SVG follows the page's light and dark colours and is accessible to screen readers.

    Args:
        rows: the metric's table on one data set.
        experiments: its columns.
    """
    width, step, top, margin = 340, 38, 8, 6
    categories = [row for row in rows if row.scope == "category"]
    single = len(categories) == 1
    shown = ("percent", "ci_low", "ci_high") if single else ("percent",)
    cells = [cell for row in categories for cell in row.cells]
    values = np.array([[getattr(cell, name) for name in shown] for cell in cells], float)
    low, high = np.nanmin(values), np.nanmax(values)
    room = max(0.06 * (high - low), 0.4)
    low, high = max(0.0, low - room), min(100.0, high + room)

    def place(value: float) -> float:
        return round(margin + (value - low) / (high - low) * (width - 2 * margin), 1)

    lines = []
    for i, (name, total) in enumerate(zip(experiments, rows[-1].cells, strict=True)):
        dots = [] if single else [(row.name, row.cells[i].percent) for row in categories]
        bounded = single and pd.notna(total.ci_low)
        lines.append(
            {
                "name": name,
                "y": top + i * step + 22,
                "total": total,
                "x": place(total.percent),
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
        "width": width,
        "top": top,
        "bottom": top + len(experiments) * step,
        "ticks": [(place(tick), f"{tick:g}") for tick in ticks if low <= tick <= high],
        "lines": lines,
        "single": single,
    }
