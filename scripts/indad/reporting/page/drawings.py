"""The inline drawings of the report page: positions that its template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    values = [each.value for each in cells]
    if single:
        values += [bound for each in cells for bound in (each.low, each.high)]
    axis = axes.percent_axis([each for each in values if each is not None], 6, width - 6)
    lines = []
    for i, (name, total) in enumerate(zip(experiments, table.overall, strict=True)):
        dots = [(row.name, row.cells[i].value) for row in ([] if single else rows)]
        bounded = single and total.low is not None and total.high is not None
        lines.append(
            {
                "name": name,
                "number": i,
                "y": top + i * line + 22,
                "total": total,
                "x": None if total.value is None else axis(total.value),
                "interval": (axis(total.low), axis(total.high)) if bounded else None,
                "dots": [
                    (axis(value), f"{category}: {value:.1f}")
                    for category, value in dots
                    if value is not None
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


def tradeoffs(found: Sequence[Table], costs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return drawings of accuracy against seconds per image; larger marks are larger models.

    Args:
        found: tables of one data set.
        costs: time and size of experiments, as ``content.costs``.
    """
    drawings = []
    width, height, left, right, top, bottom = 460, 300, 44, 330, 26, 262
    for table in found:
        if table.metric not in ("image_auroc", "aupro"):
            continue
        points = [
            (each, value)
            for each in costs
            if (value := table.overall[each["number"]].value) is not None
            and each["seconds"] is not None
        ]
        if not points:
            continue
        x = axes.seconds_axis([each["seconds"] for each, _ in points], left, right)
        y = axes.percent_axis([value for _, value in points], bottom, top)
        labels = axes.apart([y(value) for _, value in points], 15, top + 4, bottom - 2)
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
                        "number": each["number"],
                        "name": each["experiment"],
                        "x": x(each["seconds"]),
                        "y": y(value),
                        "label": label,
                        "radius": _radius(each["model"]),
                        "tip": _tip(each, value),
                    }
                    for (each, value), label in zip(points, labels, strict=True)
                ],
            }
        )
    return drawings


def _tip(cost: Mapping[str, Any], value: float) -> str:
    """Return the text shown when the pointer is on a mark."""
    text = f"{cost['experiment']}: {value:.1f} %, {duration(cost['seconds'])} per image"
    return text if cost["model"] is None else f"{text}, model {megabytes(cost['model'])}"


def _radius(model_megabytes: float | None) -> float:
    """Return the radius of a mark: a tenfold size doubles the area."""
    return 5.0 if not model_megabytes else round(3.6 * max(model_megabytes, 1.0) ** 0.15, 1)
