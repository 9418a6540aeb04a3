"""Critical-difference diagrams: mean ranks over categories, and what cannot be told apart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from indad.reporting import style
from indad.reporting.style import plt


def groups(ranks: pd.Series, width: float) -> list[tuple[int, int]]:
    """Return the longest runs of experiments whose mean ranks differ by less than ``width``.

    Args:
        ranks: mean ranks, ascending.
        width: the critical difference.

    Returns:
        First and last position of each run of at least two, none inside another.
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
    with style.look():
        _draw(ranks, output, title)


def _draw(ranks: pd.DataFrame, output: Path, title: str) -> None:
    ordered = ranks.sort_values(["mean_rank", "experiment"], kind="stable")
    means, width = ordered["mean_rank"], float(ordered["critical_difference"].iloc[0])
    count = len(ordered)
    bars = groups(means, width)
    left = (count + 1) // 2
    gap, step = 0.4 + 0.22 * len(bars), 0.34
    height = 0.75 + gap + step * left
    figure, axis = plt.subplots(figsize=(style.WIDTH, 0.75 + 0.62 * height), layout="constrained")
    axis.set(xlim=(1 - 0.45 * count, count + 0.45 * count), ylim=(-height, 1.35))
    axis.axis("off")
    axis.set_title(style.heading(title, style.WIDTH), fontsize=11, loc="left")

    axis.plot([1, count], [0, 0], color=style.INK, lw=1)
    for rank in range(1, count + 1):
        axis.plot([rank, rank], [0, 0.12], color=style.INK, lw=1)
        axis.text(rank, 0.2, str(rank), ha="center", va="bottom", fontsize=9)
    axis.plot(
        [1, 1 + width], [0.85, 0.85], color=style.PALETTE[1], lw=1.4, marker="|", markersize=7
    )
    axis.text(
        1 + width + 0.06 * count / 3, 0.85, f"critical difference {width:.2f}",
        ha="left", va="center", fontsize=9, color=style.PALETTE[1],
    )  # fmt: skip
    for number, (first, last) in enumerate(bars):
        y = -0.25 - 0.22 * number
        start, stop = means.iloc[first] - 0.03, means.iloc[last] + 0.03
        axis.plot([start, stop], [y, y], color=style.PALETTE[0], lw=4, solid_capstyle="round")
    for i, (name, rank) in enumerate(zip(ordered["experiment"], means, strict=True)):
        on_left = i < left
        y = -gap - step * ((i if on_left else count - 1 - i) + 1)
        end = 1 - 0.04 * count if on_left else count + 0.04 * count
        axis.plot([rank, rank, end], [0, y, y], color=style.GREY, lw=0.9)
        name = style.shorten(name, 24)
        text = f"{name}  {rank:.2f}" if on_left else f"{rank:.2f}  {name}"
        axis.text(
            end - 0.02 * count if on_left else end + 0.02 * count, y, text,
            ha="right" if on_left else "left", va="center", fontsize=9,
        )  # fmt: skip
    p = float(ordered["friedman_p"].iloc[0])
    axis.text(
        1 - 0.45 * count, -height,
        f"Mean rank over {ordered['n_categories'].iloc[0]} categories, 1 is best; Friedman "
        f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}. A bar joins what Nemenyi's test does not "
        "tell apart.",
        fontsize=8, color=style.GREY, va="bottom",
    )  # fmt: skip
    style.save(figure, output)
