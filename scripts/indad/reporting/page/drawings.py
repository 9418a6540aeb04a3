"""The inline drawings of the report page: positions that its template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from indad.reporting import tables
from indad.reporting.numbers import duration, megabytes
from indad.reporting.page import axes
from indad.reporting.page.metric_tables import Table


def spread(table: Table, experiments: Sequence[str]) -> dict[str, Any]:
    """Return a drawing of a metric with one line per experiment.

    It has a dot for each category and one for the average, or the interval of a single category.
    """
    width, line, top = 340, 38, 8
    rows = table.categories
    single = len(rows) == 1
    cells = [cell for row in rows for cell in row.cells]
    values = [each.percent for each in cells]
    if single:
        values += [bound for each in cells for bound in (each.ci_low, each.ci_high)]
    axis = axes.percent_axis([each for each in values if pd.notna(each)], 6, width - 6)
    lines = []
    for i, (name, total) in enumerate(zip(experiments, table.overall, strict=True)):
        dots = [(row.name, row.cells[i].percent) for row in ([] if single else rows)]
        bounded = single and pd.notna(total.ci_low)
        lines.append(
            {
                "name": name,
                "number": i,
                "y": top + i * line + 22,
                "total": total,
                "x": None if pd.isna(total.percent) else axis(total.percent),
                "interval": (axis(total.ci_low), axis(total.ci_high)) if bounded else None,
                "dots": [
                    (axis(value), f"{category}: {value:.1f}")
                    for category, value in dots
                    if pd.notna(value)
                ],
            }
        )
    bottom = top + len(experiments) * line
    return {
        "title": tables.SHORT_TITLES[table.metric],
        "width": width,
        "height": bottom + 18,
        "bottom": bottom,
        "top": top,
        "ticks": axis.ticks,
        "lines": lines,
        "single": single,
    }


def tradeoffs(found: Sequence[Table], costs: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Return drawings of accuracy against seconds per image; larger marks are larger models.

    Args:
        found: tables of one data set.
        costs: number of an experiment to its row of ``runtime.experiments``.
    """
    drawings = []
    width, height, left, right, top, bottom = 460, 300, 44, 330, 26, 262
    for table in found:
        if table.metric not in ("image_auroc", "aupro"):
            continue
        points = [
            (number, cost, value)
            for number, cost in costs.items()
            if pd.notna(value := table.overall[number].percent) and pd.notna(cost.with_backbone)
        ]
        if not points:
            continue
        x = axes.seconds_axis([cost.with_backbone for _, cost, _ in points], left, right)
        y = axes.percent_axis([value for *_, value in points], bottom, top)
        labels = axes.apart([y(value) for *_, value in points], 15, top + 4, bottom - 2)
        drawings.append(
            {
                "title": tables.SHORT_TITLES[table.metric],
                "width": width,
                "height": height,
                "left": left,
                "right": right,
                "top": top,
                "bottom": bottom,
                "x": x.ticks,
                "y": y.ticks,
                "marks": [
                    {
                        "number": number,
                        "name": cost.experiment,
                        "x": x(cost.with_backbone),
                        "y": y(value),
                        "label": label,
                        "radius": _radius(cost.model_mb),
                        "tip": _tip(cost, value),
                    }
                    for (number, cost, value), label in zip(points, labels, strict=True)
                ],
            }
        )
    return drawings


def _tip(cost: Any, value: float) -> str:
    """Return the text shown when the pointer is on a mark."""
    text = f"{cost.experiment}: {value:.1f} %, {duration(cost.with_backbone)} per image"
    return text if pd.isna(cost.model_mb) else f"{text}, model {megabytes(cost.model_mb)}"


def _radius(model_mb: float) -> float:
    """Return the radius of a mark: a tenfold size doubles the area."""
    return 5.0 if pd.isna(model_mb) else round(3.6 * max(model_mb, 1.0) ** 0.15, 1)
