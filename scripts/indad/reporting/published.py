"""What others published: accuracies and run times, each row with its source.

``resources/published.csv`` and ``resources/published_timings.csv``. The name of a *result*, such as
``PaDiM`` or ``PatchCore-10``, stands for a method with its paper's settings; experiments name it
with ``published``. Plain CSV reading, for planning a workflow reads the names.
"""

from __future__ import annotations

import csv
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from indad.core.paths import project_root

RESOURCES = project_root() / "resources"
#: The category of an average as it was printed.
AVERAGE = "average"
PAPER = "paper"


class Value(NamedTuple):
    """One published figure, in percent; ``kind`` is ``paper`` or ``reproduction``.

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
def values(path: Path = RESOURCES / "published.csv") -> tuple[Value, ...]:
    """Read the published accuracies."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Value(**row | {"percent": float(row["percent"])}) for row in rows)


@cache
def timings(path: Path = RESOURCES / "published_timings.csv") -> tuple[Timing, ...]:
    """Read the published run times."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Timing(**row | {"value": float(row["value"])}) for row in rows)


def results() -> list[str]:
    """Name the results that an experiment can stand beside."""
    return list(dict.fromkeys(value.result for value in values()))


def backbone(result: str) -> str:
    """Return the backbone that a result was published with, timm's name without a tag."""
    return next(value.backbone for value in values() if value.result == result)


def datasets() -> list[str]:
    """Name the data sets there are published results on."""
    return list(dict.fromkeys(value.dataset for value in values()))


@cache
def fingerprint() -> str:
    """Hash both files, so that tables are written anew when one of them changes."""
    files = (RESOURCES / "published.csv", RESOURCES / "published_timings.csv")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
