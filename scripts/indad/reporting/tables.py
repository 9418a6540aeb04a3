"""The values of all tables: averages of the tidy metrics, and published values of the same.

`summarise` and `with_published` return tidy frames in percent. `results_document` formats them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indad.evaluation.evaluate import BIASED
from indad.evaluation.intervals import average_interval
from indad.evaluation.metrics import EXTRA_METRICS
from indad.reporting import published

#: Metric name to its heading, in the order of the tables.
TITLES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image average precision",
    "image_f1max": "Image F1-max (threshold chosen with the test labels)",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel average precision",
    "pixel_f1max": "Pixel F1-max (threshold chosen with the test labels)",
    "aupro": "AUPRO (up to 30 % false positives)",
    "aupro_05": "AUPRO-05 (up to 5 % false positives)",
    "spro_05": "AU-sPRO-05 (saturated overlap, up to 5 % false positives)",
    "seg_f1": "SegF1 (threshold from good images)",
}
#: What a reader has to know of a metric besides its heading.
EXPLANATIONS = {
    "spro_05": "AU-sPRO-05: the metric of MVTec LOCO AD, average over the kinds of defects. Each "
    "mask file is one defect, which counts as completely found from its saturation in "
    "defects_config.json on.",
    "seg_f1": "SegF1: F1 of all pixels, where those above the mean plus three standard deviations "
    "of the maps of the good test images are flagged. MVTec AD 2 takes this threshold from "
    "validation images instead.",
}
#: Headings without the remark in parentheses.
SHORT_TITLES = {name: title.split(" (")[0] for name, title in TITLES.items()}
#: A limit of mean ranks that a reader of a diagram has to know.
RANKS_DEPEND = (
    "Mean ranks depend on which experiments take part: near-copies of one method, such as coresets "
    "of several sizes, take up ranks and make it harder to tell the other experiments apart."
)
#: The main metrics, shown first.
SUMMARY = ("image_auroc", "pixel_auroc", "aupro")
#: The row of all categories; groups have rows of their own.
AVERAGE = "average"

_KEYS = ["dataset", "metric", "scope", "category", "experiment"]
#: Columns of the measured values and their types.
MEASURED_COLUMNS = dict.fromkeys(_KEYS, "str") | {
    "percent": "float", "sd": "float", "seeds": "int", "ci_low": "float", "ci_high": "float",
    "averaged": "int", "of": "int", "best": "bool", "paper": "float", "difference": "float",
}  # fmt: skip
_PUBLISHED = [*_KEYS, "name", "kind", "theirs", "averaged", "difference", "printed", "source"]


@dataclass(frozen=True)
class Layout:
    """What tables show besides the measured values.

    Attributes:
        experiments: the columns, in order.
        groups: data set to its groups of categories, each with an average of its own.
        compared: data set to its name in the published results.
        published: experiment to the published result to compare it with.
        notes: experiment to an important remark, such as random weights.
        metrics: data set to the metrics that it is shown with besides the usual ones.
        evaluated_at: size of maps and masks in pixel metrics, ``input`` or ``original``.
    """

    experiments: Sequence[str]
    groups: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    compared: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    evaluated_at: str = "input"

    def shows(self, dataset: str, metric: str) -> bool:
        """Tell whether tables of a data set show a metric."""
        return metric not in EXTRA_METRICS or metric in self.metrics.get(dataset, ())

    @property
    def titles(self) -> dict[str, str]:
        """Headings of the metrics that are shown of any data set, by metric."""
        asked = set(chain(*self.metrics.values()))
        return {
            metric: title
            for metric, title in TITLES.items()
            if metric not in EXTRA_METRICS or metric in asked
        }


class Row(NamedTuple):
    """A row of a table: a category, or the categories it averages."""

    scope: str  # category, group or average
    name: str
    categories: list[str]


def rows(categories: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return the rows of a data set: its categories, its groups, and the average of all.

    A group of one category or of all categories is left out, because it repeats another row.
    """
    result = [Row("category", name, [name]) for name in categories]
    for group, members in groups.items():
        here = [name for name in categories if name in members]
        if 1 < len(here) < len(categories):
            result.append(Row("group", group, here))
    if len(categories) > 1:
        result.append(Row("average", AVERAGE, list(categories)))
    return result


class Line(NamedTuple):
    """A row of a metric's table as it is shown.

    Attributes:
        scope: category, group or average.
        name: of the category or the group.
        cells: rows of ``summarise``, one for each experiment.
    """

    scope: str
    name: str
    cells: list[Any]


def table_lines(cells: pd.DataFrame, experiments: Sequence[str]) -> list[Line]:
    """Return the rows of a table; the last one is the average, or the only category.

    Args:
        cells: rows of ``summarise`` of one data set and metric.
        experiments: the columns.
    """
    found = []
    for (scope, name), row in cells.groupby(["scope", "category"], sort=False):
        by_experiment = {cell.experiment: cell for cell in row.itertuples()}
        found.append(Line(scope, name, [by_experiment[each] for each in experiments]))
    return found


def both_orders(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of experiments, each followed by the same pair in the other order.

    Args:
        pairs: rows of ``comparison.COMPARISON_COLUMNS`` with different indices.
    """
    turned = pairs.rename(
        columns={"experiment_a": "experiment_b", "experiment_b": "experiment_a"}
    ).assign(difference=-pairs["difference"], ci_low=-pairs["ci_high"], ci_high=-pairs["ci_low"])
    return pd.concat([pairs, turned]).sort_index(kind="stable")


def select(frame: pd.DataFrame, **keys: str | int) -> pd.DataFrame:
    """Return the rows of a tidy frame with these values in these columns."""
    chosen = np.ones(len(frame), bool)
    for column, value in keys.items():
        chosen &= (frame[column] == value).to_numpy()
    return frame[chosen]


def summarise(metrics: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return the measured values, one row for each row and column of a table.

    Args:
        metrics: tidy metrics, as ``evaluate.read``.
        layout: what to show.

    Returns:
        ``dataset, metric, scope, category, experiment``; ``percent``, the mean over seeds and, for
        a group or average, over its categories; ``sd``, the sample standard deviation over
        ``seeds`` seeds; ``ci_low, ci_high`` with a single seed; ``averaged``, how
        many ``of`` the row's categories have a value; ``best`` of its row, including ties in the
        displayed decimal; ``paper``, the paper's percent, and the signed ``difference`` to it.
    """
    found = []
    for dataset, of_dataset in metrics.groupby("dataset", sort=False):
        categories = list(dict.fromkeys(of_dataset["category"]))
        listed = rows(categories, layout.groups.get(str(dataset), {}))
        for metric in (name for name in TITLES if layout.shows(str(dataset), name)):
            chosen = select(of_dataset, metric=metric)
            for experiment in layout.experiments if len(chosen) else ():
                mine = select(chosen, experiment=experiment)
                values = 100 * mine.pivot_table("value", "seed", "category")
                bounds = 100 * mine.set_index("category")[["ci_low", "ci_high"]]
                pooled = metric not in BIASED
                keys = {"dataset": dataset, "metric": metric, "experiment": experiment}
                found += [keys | _average(values, bounds, row, pooled) for row in listed]
    frame = pd.DataFrame(found, columns=list(MEASURED_COLUMNS)[:-3])
    shown = frame["percent"].round(1)
    row = [frame[name] for name in ("dataset", "metric", "scope", "category")]
    frame["best"] = shown == shown.groupby(row).transform("max")
    papers = select(with_published(frame, layout), kind=published.PAPER).rename(
        columns={"theirs": "paper"}
    )
    return frame.merge(papers[[*_KEYS, "paper", "difference"]], "left", _KEYS)


def _average(values: pd.DataFrame, bounds: pd.DataFrame, row: Row, pooled: bool) -> dict[str, Any]:
    """Average one experiment's values, seeds by categories, over a row's categories and seeds."""
    here = [name for name in row.categories if name in values]
    chosen = values[here].to_numpy()
    # The deviation of an average needs seeds that have all categories.
    per_seed = chosen[~np.isnan(chosen).any(axis=1)].mean(axis=1) if here else np.empty(0)
    # Seeds score the same images, so their intervals are not independent and are not pooled.
    low = high = np.nan
    if here and np.count_nonzero(~np.isnan(chosen)) == len(here):
        lows, highs = bounds.loc[here].to_numpy().T
        if row.scope == "category":
            low, high = lows[0], highs[0]
        elif pooled:
            own = np.nansum(chosen, axis=0)
            low, high = 100 * np.array(average_interval(own / 100, lows / 100, highs / 100))
    return {
        "scope": row.scope,
        "category": row.name,
        "percent": np.nanmean(chosen, axis=0).mean() if here else np.nan,
        "sd": per_seed.std(ddof=1) if len(per_seed) > 1 else np.nan,
        "seeds": len(per_seed),
        "ci_low": low,
        "ci_high": high,
        "averaged": len(here),
        "of": len(row.categories),
    }


def with_published(measured: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return published values of the same data sets, metrics and methods, one per row.

    Only of data sets in ``layout.compared``. An average is computed over the categories of its
    row. If a paper printed only an average, it is used if the row has all categories.

    Args:
        measured: as ``summarise``.
        layout: what to show.

    Returns:
        ``dataset, metric, scope, category, experiment, name, kind, theirs, averaged, difference,
        printed, source``: ``difference`` is ours minus theirs if both average the same categories;
        ``printed`` is whether the average is a printed one.
    """
    found = []
    keys = ["dataset", "metric", "experiment"]
    for (dataset, metric, experiment), ours in measured.groupby(keys, sort=False):
        if dataset not in layout.compared or experiment not in layout.published:
            continue
        categories = list(select(ours, scope="category")["category"])
        listed = rows(categories, layout.groups.get(dataset, {}))
        result = layout.published[experiment]
        for other in published.publications(layout.compared[dataset], result, metric):
            for row, mine in zip(listed, ours.itertuples(), strict=True):
                theirs, averaged, printed = other.average(row.categories)
                same = mine.averaged == averaged == len(row.categories)
                difference = mine.percent - theirs if same else np.nan
                at = (dataset, metric, row.scope, row.name, experiment, other.name, other.kind)
                found.append((*at, theirs, averaged, difference, printed, other.source))
    return pd.DataFrame(found, columns=_PUBLISHED).astype({"theirs": float})
