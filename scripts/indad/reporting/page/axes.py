"""Axes and label positions of the report's inline drawings, in units of their view boxes.

The page's template draws them as SVG, which follows its light and dark colours, stays sharp at any
size and is accessible to screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most ``most`` round values from ``low`` to ``high``, 1, 2 or 5 times ten apart."""
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    steps = (factor * 10.0**power for factor in (1, 2, 5, 10))
    step = next(step for step in steps if (high - low) / step <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten from ``low`` to ``high``; if many, only powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


@dataclass(frozen=True)
class Axis:
    """A scale from values to positions.

    Attributes:
        low, high: values at its ends.
        start, stop: positions of its ends.
        logarithmic: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value, rounded to one decimal."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = (math.log(each) for each in (value, low, high))
        share = (value - low) / (high - low)
        return round(self.start + share * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of round values."""
        find = log_ticks if self.logarithmic else linear_ticks
        return [(self(tick), f"{tick:g}") for tick in find(self.low, self.high)]


def percent_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """Return an axis for percentages, with a margin but never beyond 0 and 100."""
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.4)
    return Axis(max(0.0, low - room), min(100.0, high + room), start, stop)


def seconds_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """Return a logarithmic axis over at least a factor of five, so that small ratios look small."""
    low, high = min(values), max(values)
    middle, half = math.sqrt(low * high), max(1.3 * math.sqrt(high / low), math.sqrt(5))
    return Axis(middle / half, middle * half, start, stop, logarithmic=True)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels as little as possible so that no two are closer than ``gap``, in the same order.

    Args:
        places: preferred positions.
        gap: minimum distance.
        low, high: bounds; exceeded only if there is not enough room.
    """
    order = np.argsort(places, kind="stable")
    # Labels that touch move as a group, to the mean of their preferred positions.
    groups: list[tuple[list[int], float]] = []
    for i in order:
        members, first = [int(i)], float(places[i])
        while groups and groups[-1][1] + gap * len(groups[-1][0]) > first:
            members = groups.pop()[0] + members
            preferred = [places[m] - gap * k for k, m in enumerate(members)]
            first = float(np.mean(preferred))
            first = max(low, min(first, high - gap * (len(members) - 1)))
        first = max(low, min(first, high - gap * (len(members) - 1)))
        groups.append((members, first))
    moved = [0.0] * len(places)
    for members, first in groups:
        for k, member in enumerate(members):
            moved[member] = round(first + gap * k, 1)
    return moved
