"""Published accuracies and run times, each row with its source.

They are in ``resources/published.csv``, ``published_low_shot.csv`` (few training images) and
``published_timings.csv``. The name of a *result*, such as ``PaDiM`` or ``PatchCore-10``, denotes a
method with its paper's settings; experiments refer to it by ``published``.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import pandas as pd

from indad.core.paths import project_root

_ACCURACIES = project_root() / "resources" / "published.csv"
_TIMINGS = project_root() / "resources" / "published_timings.csv"
_LOW_SHOT = project_root() / "resources" / "published_low_shot.csv"
#: The category of an average as it was printed.
AVERAGE = "average"
PAPER = "paper"


@cache
def values() -> pd.DataFrame:
    """Return the published accuracies in percent, one per row.

    The ``kind`` is ``paper`` or ``reproduction``; ``backbone`` is timm's name without a tag.
    """
    return pd.read_csv(_ACCURACIES, keep_default_na=False)


@cache
def timings() -> pd.DataFrame:
    """Return the published run times and sizes; a ``quantity`` is fit, inference or memory."""
    return pd.read_csv(_TIMINGS, keep_default_na=False)


@cache
def low_shot() -> pd.DataFrame:
    """Return the published accuracies with few training images, averages in percent."""
    return pd.read_csv(_LOW_SHOT, keep_default_na=False)


def results() -> list[str]:
    """Return the names of the published results."""
    return list(values()["result"].unique())


def backbone(result: str) -> str:
    """Return the backbone that a result was published with, timm's name without a tag."""
    return values().set_index("result").loc[[result], "backbone"].iloc[0]


def datasets() -> list[str]:
    """Return the names of the data sets with published results."""
    return list(values()["dataset"].unique())


@cache
def fingerprint() -> str:
    """Return a hash of the files; tables are written again when it changes."""
    content = b"".join(path.read_bytes() for path in (_ACCURACIES, _TIMINGS, _LOW_SHOT))
    return hashlib.sha256(content).hexdigest()[:16]


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
    of_dataset = values()[values()["dataset"] == dataset]
    everything = frozenset(of_dataset["category"]) - {AVERAGE}
    chosen = of_dataset[(of_dataset["result"] == result) & (of_dataset["metric"] == metric)]
    found = []
    for name, rows in chosen.groupby("name", sort=False):
        first = rows.iloc[0]
        percent = rows.set_index("category")["percent"].to_dict()
        printed = percent.pop(AVERAGE, None)
        found.append(
            Publication(name, first["kind"], first["source"], percent, printed, everything)
        )
    return sorted(found, key=lambda each: each.kind != PAPER)
