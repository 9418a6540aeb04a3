"""The products that the report page is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indad.data.data_warnings import DataWarning
from indad.reporting.runtime import Models


@dataclass(frozen=True)
class Category:
    """The products of one category that the page shows.

    Attributes:
        dataset, name: of the category.
        pictures: heading to picture file, in order.
        defects: table of each kind of defect, as ``defect_figures.defect_table``.
    """

    dataset: str
    name: str
    pictures: Mapping[str, Path]
    defects: Path


@dataclass(frozen=True)
class Sources:
    """The products that a page is made from.

    Attributes:
        metrics: tables in percent, one per metric, as ``tables.summarise``.
        categories: of all data sets, in order.
        experiments: experiment to its settings, in the order of the tables.
        models: the names of the experiments' jobs.
        notes: experiment to an important remark.
        config: the configuration of the run, shown as it is.
        images: numbers of images, as ``counts.images``.
        counts: numbers of images that metrics are computed from, as ``counts.row``.
        comparisons: of each two experiments.
        ranks: of experiments over categories.
        diagrams: folder of critical-difference diagrams, named ``<dataset>_<metric>.png``.
        runtime: time and memory of each job, as ``runtime.collect``.
        tradeoff: figure of accuracy against time and size.
        provenance: record of how everything was made.
        level: confidence level of intervals and tests.
        data_warnings: data set and warning about its data.
        curve_points: accuracy by number of training images, as ``learning_curves.gather``, of a
            run with such experiments.
        curve_figures: folder of the figures of these, named ``<dataset>.png``.
    """

    metrics: Sequence[Path]
    categories: Sequence[Category]
    experiments: Mapping[str, Mapping[str, Any]]
    models: Models
    notes: Mapping[str, str]
    config: str
    images: Path
    counts: Path
    comparisons: Path
    ranks: Path
    diagrams: Path
    runtime: Path
    tradeoff: Path
    provenance: Path
    level: float
    data_warnings: Sequence[tuple[str, DataWarning]] = ()
    curve_points: Path | None = None
    curve_figures: Path | None = None
