"""Published accuracies and run times, each row with its source.

They are in ``resources/published.csv`` and ``resources/published_timings.csv``. The name of a
*result*, such as ``PaDiM`` or ``PatchCore-10``, stands for a method with its paper's settings;
experiments refer to it by ``published``. The files are read without pandas, because planning a
workflow needs the names.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import NamedTuple

from indad.core.paths import project_root

RESOURCES = project_root() / "resources"
#: The category of an average as it was printed.
AVERAGE = "average"
PAPER = "paper"


class Value(NamedTuple):
    """One published value, in percent; ``kind`` is ``paper`` or ``reproduction``.

    ``backbone`` is timm's name without a tag.
    """

    dataset: str
    result: str
    backbone: str
    name: str
    kind: str
    metric: str
    category: str
    percent: float
    source: str


class Timing(NamedTuple):
    """One published run time or size: ``quantity`` is ``fit``, ``inference`` or ``memory``."""

    result: str
    quantity: str
    value: float
    unit: str
    by: str
    hardware: str
    settings: str
    source: str


@cache
def values() -> tuple[Value, ...]:
    """Read the published accuracies."""
    rows = _rows("published.csv")
    return tuple(Value(**row | {"percent": float(row["percent"])}) for row in rows)


@cache
def timings() -> tuple[Timing, ...]:
    """Read the published run times."""
    rows = _rows("published_timings.csv")
    return tuple(Timing(**row | {"value": float(row["value"])}) for row in rows)


def _rows(name: str) -> list[dict[str, str]]:
    with (RESOURCES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results() -> list[str]:
    """Return the names of the published results."""
    return list(dict.fromkeys(value.result for value in values()))


def backbone(result: str) -> str:
    """Return the backbone that a result was published with, timm's name without a tag."""
    return next(value.backbone for value in values() if value.result == result)


def datasets() -> list[str]:
    """Return the names of the data sets with published results."""
    return list(dict.fromkeys(value.dataset for value in values()))


@cache
def fingerprint() -> str:
    """Return a hash of both files; tables are written again when it changes."""
    files = (RESOURCES / "published.csv", RESOURCES / "published_timings.csv")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@dataclass(frozen=True)
class Publication:
    """One metric of a result, as published by one author.

    Attributes:
        name: the author or code.
        kind: ``paper`` or ``reproduction``.
        source: where it was published.
        values: percent by category.
        printed: the printed average, if any.
        everything: all categories of the data set.
    """

    name: str
    kind: str
    source: str
    values: Mapping[str, float]
    printed: float | None
    everything: frozenset[str]

    def average(self, categories: Collection[str]) -> tuple[float | None, int, bool]:
        """Return the average over categories, how many it covers, and whether it is printed.

        It is computed from the published categories. A printed average is used only if nothing but
        an average was published and all categories are asked for.
        """
        known = [self.values[name] for name in categories if name in self.values]
        if known:
            return fmean(known), len(known), False
        if self.only_average and set(categories) == self.everything:
            return self.printed, len(self.everything), True
        return None, 0, False

    @property
    def only_average(self) -> bool:
        """Whether nothing but an average was published."""
        return not self.values and self.printed is not None

    @property
    def label(self) -> str:
        """The name within a sentence."""
        return f"{self.name}'s paper" if self.kind == PAPER else self.name


def publications(dataset: str, result: str, metric: str) -> Sequence[Publication]:
    """Return who published a metric of a result on a data set, the paper first."""
    of_dataset = [each for each in values() if each.dataset == dataset]
    everything = frozenset(each.category for each in of_dataset) - {AVERAGE}
    by_name: dict[str, list[Value]] = {}
    for each in of_dataset:
        if (each.result, each.metric) == (result, metric):
            by_name.setdefault(each.name, []).append(each)
    found = []
    for name, rows in by_name.items():
        percent = {each.category: each.percent for each in rows}
        printed = percent.pop(AVERAGE, None)
        found.append(Publication(name, rows[0].kind, rows[0].source, percent, printed, everything))
    return sorted(found, key=lambda each: each.kind != PAPER)
