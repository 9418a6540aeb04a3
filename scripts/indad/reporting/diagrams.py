"""Critical-difference diagrams: mean ranks over categories and Nemenyi's test."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad.reporting import colours, style
from indad.reporting.numbers import p_value


def groups(ranks: pd.Series, width: float) -> list[tuple[int, int]]:
    """Return the longest groups of experiments whose mean ranks differ by less than ``width``.

    Args:
        ranks: mean ranks, ascending.
        width: the critical difference.

    Returns:
        First and last position of each group of at least two; no group is inside another.
    """
    found: list[tuple[int, int]] = []
    values = ranks.to_numpy()
    for first in range(len(values)):
        last = max(i for i in range(len(values)) if values[i] - values[first] < width)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def critical_difference(ranks: pd.DataFrame, output: Path, *, title: str) -> None:
    """Draw the diagram of Demsar (JMLR 7, 2006, figure 1): the best on the left.

    Args:
        ranks: rows of ``comparison.RANK_COLUMNS`` of one data set and metric.
        output: the PNG file.
        title: heading.
    """
    ordered = ranks.sort_values(["mean_rank", "experiment"], kind="stable")
    first, count = ordered.iloc[0], len(ordered)
    bars = groups(ordered["mean_rank"], float(first["critical_difference"]))
    gap, step = 0.4 + 0.22 * len(bars), 0.34
    height = 0.75 + gap + step * ((count + 1) // 2)
    with style.drawing(output, height=0.75 + 0.62 * height, layout="constrained") as figure:
        axis = figure.subplots()
        axis.set(xlim=(1 - 0.45 * count, count + 0.45 * count), ylim=(-height, 1.35))
        axis.axis("off")
        axis.set_title(style.heading(title, style.WIDTH), fontsize=11, loc="left")
        _scale(axis, count, float(first["critical_difference"]))
        for number, (start, stop) in enumerate(bars):
            y = -0.25 - 0.22 * number
            ends = ordered["mean_rank"].iloc[[start, stop]] + np.array([-0.03, 0.03])
            axis.plot(ends, [y, y], color=colours.PALETTE[0], lw=4, solid_capstyle="round")
        _names(axis, ordered, gap, step)
        axis.text(
            1 - 0.45 * count, -height,
            f"Mean rank over {first['n_categories']} categories, 1 is best; Friedman's chi-square "
            f"test {p_value(first['friedman_p'])}. A bar joins experiments that are not "
            "significantly different (Nemenyi).\nNear-copies of one method take up ranks: the "
            "diagram depends on which experiments take part.",
            fontsize=8, color=colours.GREY, va="bottom",
        )  # fmt: skip


def _scale(axis: Axes, count: int, width: float) -> None:
    """Draw the line of ranks with its ticks, and the critical difference above it."""
    axis.plot([1, count], [0, 0], color=colours.INK, lw=1)
    for rank in range(1, count + 1):
        axis.plot([rank, rank], [0, 0.12], color=colours.INK, lw=1)
        axis.text(rank, 0.2, str(rank), ha="center", va="bottom", fontsize=9)
    axis.plot(
        [1, 1 + width], [0.85, 0.85], color=colours.PALETTE[1], lw=1.4, marker="|", markersize=7
    )
    axis.text(
        1 + width + 0.06 * count / 3, 0.85, f"critical difference {width:.2f}",
        ha="left", va="center", fontsize=9, color=colours.PALETTE[1],
    )  # fmt: skip


def _names(axis: Axes, ordered: pd.DataFrame, gap: float, step: float) -> None:
    """Connect each rank with its experiment's name: the better half left, the others right."""
    count = len(ordered)
    for i, row in enumerate(ordered.itertuples()):
        on_left = i < (count + 1) // 2
        y = -gap - step * ((i if on_left else count - 1 - i) + 1)
        end = 1 - 0.04 * count if on_left else count + 0.04 * count
        axis.plot([row.mean_rank, row.mean_rank, end], [0, y, y], color=colours.GREY, lw=0.9)
        name, rank = style.shorten(row.experiment, 24), f"{row.mean_rank:.2f}"
        axis.text(
            end - 0.02 * count if on_left else end + 0.02 * count, y,
            f"{name}  {rank}" if on_left else f"{rank}  {name}",
            ha="right" if on_left else "left", va="center", fontsize=9,
        )  # fmt: skip
