"""Tables of the tidy metrics, beside what others published: Markdown, LaTeX and CSV.

`summarise` and `beside` compute all figures, as tidy frames; everything else arranges them. Figures
are in percent from there on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from indad.core import atomic
from indad.data.manifest import GOOD
from indad.reporting import published

#: Metric name to its heading, in the order tables are shown.
TITLES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image average precision",
    "image_f1max": "Image F1-max",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel average precision",
    "pixel_f1max": "Pixel F1-max",
    "aupro": "AUPRO (up to 30 % false positives)",
}
#: What a first look needs.
SUMMARY = ("image_auroc", "pixel_auroc", "aupro")
NOT_MEASURED = "-"
#: The row of all categories; groups have rows of their own.
AVERAGE = "average"


@dataclass(frozen=True)
class Layout:
    """What tables show beside the values.

    Attributes:
        experiments: the columns, in order.
        groups: data set to the groups of categories that get an average of their own.
        compared: data set to the one of the published results that it is.
        published: experiment to the published result that stands beside it.
        notes: a remark per experiment that must not be missed, such as random weights.
    """

    experiments: Sequence[str]
    groups: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    compared: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


# -- figures ----------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of a table: a category, or the categories it averages."""

    scope: str  # category, group or average
    name: str
    categories: list[str]


def rows(categories: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[Row]:
    """List the rows of a data set: its categories, the groups among them, all of them.

    A group of one category, or of all, would say nothing new.
    """
    result = [Row("category", name, [name]) for name in categories]
    for group, members in groups.items():
        here = [name for name in categories if name in members]
        if 1 < len(here) < len(categories):
            result.append(Row("group", group, here))
    if len(categories) > 1:
        result.append(Row("average", AVERAGE, list(categories)))
    return result


def summarise(metrics: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return what was measured, one row for each row and column of a table.

    Args:
        metrics: tidy metrics, as ``evaluation.read``.
        layout: what to show.

    Returns:
        ``dataset, metric, scope, category, experiment``; ``percent``, the mean over seeds and, for
        a group or average, over its categories; ``sd``, the sample standard deviation over
        ``seeds`` seeds; ``ci_low, ci_high`` of a single seed's category; ``averaged`` categories
        have a value ``of`` those in the row; ``best`` of its row, ties in the shown decimal
        included; ``paper``, the paper's percent, and the signed ``difference`` to it.
    """
    found = []
    for dataset, of_dataset in metrics.groupby("dataset", sort=False):
        categories = list(dict.fromkeys(of_dataset["category"]))
        listed = rows(categories, layout.groups.get(str(dataset), {}))
        for metric in TITLES:
            chosen = of_dataset[of_dataset["metric"] == metric]
            for experiment in layout.experiments if len(chosen) else ():
                mine = chosen[chosen["experiment"] == experiment]
                values = 100 * mine.pivot_table("value", "seed", "category")
                bounds = 100 * mine.set_index("category")[["ci_low", "ci_high"]]
                keys = {"dataset": dataset, "metric": metric, "experiment": experiment}
                found += [keys | _figures(values, bounds, row) for row in listed]
    frame = pd.DataFrame(found, columns=_MEASURED)
    shown = frame["percent"].round(1)
    row = [frame[name] for name in ("dataset", "metric", "scope", "category")]
    frame["best"] = shown == shown.groupby(row).transform("max")
    papers = beside(frame, layout)
    papers = papers[papers["kind"] == published.PAPER].rename(columns={"theirs": "paper"})
    return frame.merge(papers[[*_KEYS, "paper", "difference"]], "left", list(_KEYS))


_KEYS = ("dataset", "metric", "scope", "category", "experiment")
_MEASURED = [*_KEYS, "percent", "sd", "seeds", "ci_low", "ci_high", "averaged", "of"]


def _figures(values: pd.DataFrame, bounds: pd.DataFrame, row: Row) -> dict[str, Any]:
    """Average one experiment's values, seeds by categories, over a row's categories and seeds."""
    here = [name for name in row.categories if name in values]
    chosen = values[here].to_numpy()
    # The spread of an average is that of seeds which have all of it.
    per_seed = chosen[~np.isnan(chosen).any(axis=1)].mean(axis=1) if here else np.empty(0)
    # Seeds score the same images: their intervals are no independent ones, and are not pooled.
    single = row.scope == "category" and here and len(per_seed) == 1
    low, high = bounds.loc[row.name] if single else (np.nan, np.nan)
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


def beside(measured: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return what others published of the same thing, one row a figure.

    Only of data sets in ``layout.compared``. An average is computed over the categories of its
    row. Where a paper printed nothing but an average, that stands, if the row has all categories.

    Args:
        measured: as ``summarise``.
        layout: what to show.

    Returns:
        ``dataset, metric, scope, category, experiment, name, kind, theirs, averaged, difference,
        printed, source``: ``difference`` is ours minus theirs, where both average the same
        categories; ``printed`` whether the average is one as printed.
    """
    found = []
    for (dataset, metric, experiment), ours in measured.groupby(
        ["dataset", "metric", "experiment"], sort=False
    ):
        if dataset not in layout.compared or experiment not in layout.published:
            continue
        for other in _others(layout.compared[dataset], layout.published[experiment], metric):
            members = layout.groups.get(dataset, {})
            categories = list(ours.loc[ours["scope"] == "category", "category"])
            for row, mine in zip(rows(categories, members), ours.itertuples(), strict=True):
                theirs, averaged, printed = other.figure(row)
                same = mine.averaged == averaged == len(row.categories)
                found.append(
                    {
                        "dataset": dataset,
                        "metric": metric,
                        "scope": row.scope,
                        "category": row.name,
                        "experiment": experiment,
                        "name": other.name,
                        "kind": other.kind,
                        "theirs": theirs,
                        "averaged": averaged,
                        "difference": mine.percent - theirs if same else np.nan,
                        "printed": printed,
                        "source": other.source,
                    }
                )
    return pd.DataFrame(found, columns=_PUBLISHED)


_PUBLISHED = [*_KEYS, "name", "kind", "theirs", "averaged", "difference", "printed", "source"]


@dataclass(frozen=True)
class _Other:
    """One metric of a published result by one author."""

    result: str
    name: str
    kind: str
    source: str
    values: Mapping[str, float]
    printed: float | None
    everything: frozenset[str]

    def figure(self, row: Row) -> tuple[float, int, bool]:
        """Return percent, how many categories it averages, and whether it is as printed."""
        have = [self.values[name] for name in row.categories if name in self.values]
        if have:
            return float(np.mean(have)), len(have), False
        if self.only_average and row.scope == "average" and set(row.categories) == self.everything:
            return float(self.printed or np.nan), len(self.everything), True
        return np.nan, 0, False

    @property
    def only_average(self) -> bool:
        return not self.values and self.printed is not None

    @property
    def label(self) -> str:
        return f"{self.name}'s paper" if self.kind == published.PAPER else self.name


def _others(dataset: str, result: str, metric: str) -> list[_Other]:
    """List who published a metric of a result on a data set, the paper first."""
    of_dataset = [each for each in published.values() if each.dataset == dataset]
    everything = frozenset(each.category for each in of_dataset) - {published.AVERAGE}
    found: dict[str, list[published.Value]] = {}
    for each in of_dataset:
        if (each.result, each.metric) == (result, metric):
            found.setdefault(each.name, []).append(each)
    others = []
    for name, values in found.items():
        by_category = {each.category: each.percent for each in values}
        printed = by_category.pop(published.AVERAGE, None)
        kind, source = values[0].kind, values[0].source
        others.append(_Other(result, name, kind, source, by_category, printed, everything))
    return sorted(others, key=lambda other: other.kind != published.PAPER)


def images(manifests: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Count images: ``dataset, category, split, defect, images, masks``, one row a kind.

    Args:
        manifests: of each data set and category, as ``manifest.read``.
    """
    counted = [
        {
            "dataset": dataset,
            "category": category,
            "split": split,
            "defect": defect,
            "images": len(part),
            "masks": int((part["mask"] != "").sum()),
        }
        for (dataset, category), manifest in manifests.items()
        for (split, defect), part in manifest.groupby(["split", "defect"], sort=False)
    ]
    columns = ["dataset", "category", "split", "defect", "images", "masks"]
    return pd.DataFrame(counted, columns=columns)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a tidy frame as CSV, atomically."""
    with atomic.replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


# -- cells ------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return NOT_MEASURED if pd.isna(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    if pd.isna(value):
        return NOT_MEASURED
    return f"{round(value, 1) + 0.0:+.1f}" if round(value, 1) else "0.0"


def _count(averaged: int, of: int) -> str:
    """Say over how many categories an average goes that lacks some."""
    return f" (of {averaged})" if 0 < averaged < of else ""


def _cell(cell: Any, *, bold: str, intervals: bool, differences: bool) -> str:
    """Write a value: best in ``bold``, its spread, interval, difference and what it lacks."""
    if pd.isna(cell.percent):
        return NOT_MEASURED
    text = _number(cell.percent)
    text = bold.format(text) if cell.best else text
    if not pd.isna(cell.sd):
        text += f" ± {_number(cell.sd)}"
    if intervals and not pd.isna(cell.ci_low):
        text += f" [{_number(cell.ci_low)}, {_number(cell.ci_high)}]"
    if differences and not pd.isna(cell.difference):
        text += f" ({_signed(cell.difference)})"
    return text + _count(cell.averaged, cell.of)


def _short(metric: str) -> str:
    return TITLES[metric].split(" (")[0]


def _row_name(scope: str, name: str, of: int) -> str:
    return f"average of {of} {name}" if scope == "group" else name


def _grid(cells: pd.DataFrame, experiments: Sequence[str], **style: Any) -> list[list[str]]:
    """Arrange the cells of one data set and metric: name of the row, then the experiments."""
    grid = []
    for (scope, name), row in cells.groupby(["scope", "category"], sort=False):
        by_experiment = {cell.experiment: cell for cell in row.itertuples()}
        written = [_cell(by_experiment[each], **style) for each in experiments]
        grid.append([_row_name(scope, name, row["of"].iloc[0]), *written])
    return grid


def markdown(
    header: Sequence[str], grid: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Write a Markdown table; the columns ``left`` hold text, the others figures."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *grid)]
    alignment = ["left" if i in left else "right" for i in range(len(header))]
    return tabulate(
        escaped[1:], escaped[0], tablefmt="pipe", disable_numparse=True, colalign=alignment
    )


_LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Return ``text`` as LaTeX shows it literally."""
    return text.translate(str.maketrans(_LATEX))


# -- tables -----------------------------------------------------------------------------------


def table(
    measured: pd.DataFrame,
    dataset: str,
    metric: str,
    layout: Layout,
    *,
    intervals: bool = False,
    differences: bool = True,
) -> str:
    """Return a Markdown table in percent: categories by experiments, and the averages.

    The best of a row is bold. A missing value is "-", and an average over fewer than all
    categories says over how many. Returns "" where the metric was not measured for the data set.

    Args:
        measured: as ``summarise``.
        dataset: the data set.
        metric: the metric.
        layout: what to show.
        intervals: whether to show confidence intervals.
        differences: whether to show the difference to the paper.
    """
    cells = _cells(measured, dataset, metric)
    if cells.empty:
        return ""
    style = {"bold": "**{}**", "intervals": intervals, "differences": differences}
    header = ["category", *layout.experiments]
    return markdown(header, _grid(cells, layout.experiments, **style))


def _cells(measured: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    return measured[(measured["dataset"] == dataset) & (measured["metric"] == metric)]


def latex(measured: pd.DataFrame, metric: str, layout: Layout) -> str:
    """Return a ``tabular`` for the package booktabs for each data set; differences in brackets."""
    parts = [f"% {TITLES[metric]} in percent. Needs \\usepackage{{booktabs}}."]
    for dataset in dict.fromkeys(measured["dataset"]):
        cells = _cells(measured, dataset, metric)
        if cells.empty:
            continue
        # Marks that are no character of any name, so that only names are escaped.
        style = {"bold": "\0{}\1", "intervals": False, "differences": True}
        lines = [[escape_latex(text) for text in ("category", *layout.experiments)]]
        for row in _grid(cells, layout.experiments, **style):
            lines.append([escape_latex(text) for text in row])
        written = [" & ".join(line) + r" \\" for line in lines]
        written.insert(1, r"\midrule")
        count = (cells["scope"] == "category").sum() // len(layout.experiments)
        if count + 2 < len(written):
            written.insert(count + 2, r"\midrule")
        body = "\n".join(written)
        for mark, command in (("\0", r"\textbf{"), ("\1", "}"), ("±", r"$\pm$"), ("(-", "($-$")):
            body = body.replace(mark, command)
        parts.append(
            f"% {dataset}\n\\begin{{tabular}}{{l{'r' * len(layout.experiments)}}}\n\\toprule\n"
            f"{body}\n\\bottomrule\n\\end{{tabular}}"
        )
    return "\n\n".join(parts) + "\n"


def overview(
    measured: pd.DataFrame, others: pd.DataFrame, dataset: str, metrics: Sequence[str]
) -> str:
    """Return a Markdown table of averages: each experiment, its paper, and who reproduced it.

    Returns "" where nothing published stands beside the data set's experiments.
    """
    others = others[(others["dataset"] == dataset) & others["metric"].isin(metrics)]
    shown = [metric for metric in metrics if (others["metric"] == metric).any()]
    last = measured[measured["dataset"] == dataset]
    last = last[last["scope"] == ("average" if "average" in set(last["scope"]) else "category")]
    style = {"bold": "{}", "intervals": False, "differences": True}
    grid = []
    for experiment, of_experiment in others.groupby("experiment", sort=False):
        mine = {each.metric: each for each in last[last["experiment"] == experiment].itertuples()}
        cells = [_cell(mine[each], **style) if each in mine else NOT_MEASURED for each in shown]
        grid.append([str(experiment), "**ours**", *cells])
        theirs = of_experiment[of_experiment["category"].isin(last["category"])]
        for (name, kind), rows_ in theirs.groupby(["name", "kind"], sort=False):
            by_metric = rows_.set_index("metric")["theirs"]
            values = [_number(by_metric.get(each, np.nan)) for each in shown]
            grid.append(["", "paper" if kind == published.PAPER else str(name), *values])
    if not grid:
        return ""
    titles = [_short(metric) for metric in shown]
    return markdown(["experiment", "by", *titles], grid, left=(0, 1))


def comparison(
    measured: pd.DataFrame, others: pd.DataFrame, dataset: str, metric: str, experiment: str
) -> str:
    """Return a Markdown table: an experiment's categories, the paper's, and reproductions'.

    Returns "" where nobody published the metric.
    """
    cells = _cells(measured, dataset, metric)
    cells = cells[cells["experiment"] == experiment]
    mine = _cells(others, dataset, metric)
    mine = mine[mine["experiment"] == experiment]
    if mine.empty:
        return ""
    header, columns = ["category", "ours"], []
    for (name, kind), theirs in mine.groupby(["name", "kind"], sort=False):
        values = [
            _number(row.theirs) + _count(row.averaged, of)
            for row, of in zip(theirs.itertuples(), cells["of"], strict=True)
        ]
        paper = kind == published.PAPER
        header += ["paper", "difference"] if paper else [str(name)]
        columns += [values, [_signed(each) for each in theirs["difference"]]] if paper else [values]
    style = {"bold": "{}", "intervals": False, "differences": False}
    names = _grid(cells, [experiment], **style)
    grid = [[*row, *rest] for row, *rest in zip(names, *columns, strict=True)]
    return markdown(header, grid)


def image_counts(counts: pd.DataFrame, dataset: str) -> str:
    """Return a Markdown table of a data set's images; ``counts`` as ``images`` returns."""
    grid = []
    for category, of_category in counts[counts["dataset"] == dataset].groupby(
        "category", sort=False
    ):
        train = of_category.loc[of_category["split"] == "train", "images"].sum()
        test = of_category[of_category["split"] == "test"]
        good = test.loc[test["defect"] == GOOD, "images"].sum()
        defects = test[test["defect"] != GOOD]
        kinds = ", ".join(f"{each.defect} {each.images}" for each in defects.itertuples())
        counted = [train, good, defects["images"].sum(), defects["masks"].sum()]
        grid.append([str(category), *map(str, counted), kinds])
    header = ["category", "train", "test good", "test defective", "with mask", "kinds of defect"]
    return markdown(header, grid, left=(0, len(header) - 1))


# -- documents --------------------------------------------------------------------------------


def document(
    measured: pd.DataFrame,
    layout: Layout,
    *,
    selected: Sequence[str] = tuple(TITLES),
    full: bool = False,
    counts: pd.DataFrame | None = None,
    remarks: Sequence[str] = (),
    heading: str = "##",
) -> str:
    """Return Markdown with a table for each data set and selected metric.

    Args:
        measured: as ``summarise``.
        layout: what to show.
        selected: metrics to show.
        full: with confidence intervals and every published value; else compact, with the
            difference to the paper.
        counts: as ``images``, to show how many there are.
        remarks: warnings about the images, a sentence each (see ``indad.data.data_warnings``).
        heading: the heading level of the first heading.
    """
    others = beside(measured, layout)
    parts, notes = [], []
    for dataset in dict.fromkeys(measured["dataset"]):
        style = {"intervals": full, "differences": not full}
        shown = [(TITLES[m], table(measured, dataset, m, layout, **style)) for m in selected]
        missing = [title for title, text in shown if not text]
        parts += [f"{heading} {title}: {dataset}\n\n{text}" for title, text in shown if text]
        if missing:
            parts.append(f"{dataset} has no ground truth masks: image level only.")
        if text := overview(measured, others, dataset, selected):
            categories = measured.loc[measured["dataset"] == dataset, "category"].unique()
            what = "averages" if AVERAGE in categories else categories[0]
            parts.append(f"{heading} Beside published results: {dataset}, {what}\n\n{text}")
            notes += _notes(measured, layout, dataset, selected)
        for metric in selected if full else ():
            for experiment in layout.published:
                if text := comparison(measured, others, dataset, metric, experiment):
                    title = f"{heading}# {experiment} beside published results"
                    parts.append(f"{title}: {TITLES[metric]}, {dataset}\n\n{text}")
    for dataset in () if counts is None else dict.fromkeys(counts["dataset"]):
        parts.append(f"{heading} Images: {dataset}\n\n{image_counts(counts, dataset)}")
    explained = ["Percent; the best of each row in bold.", *_remarks(measured, selected, full)]
    if len(others):
        explained.append("Published values: `resources/published.csv`, each with its source.")
    explained += [f"{name}: {note}." for name, note in layout.notes.items()]
    of_images = "\n".join(f"- {remark}" for remark in dict.fromkeys(remarks))
    closing = [of_images, " ".join(explained), " ".join(dict.fromkeys(notes))]
    return "\n\n".join([*parts, *filter(None, closing)]) + "\n"


def _remarks(measured: pd.DataFrame, selected: Sequence[str], full: bool) -> Iterator[str]:
    """Explain what stands behind the values."""
    shown = measured[measured["metric"].isin(selected)]
    if (seeds := shown["seeds"].max()) > 1:
        yield f"Means ± sample standard deviations over {seeds} seeds."
    if full and shown["ci_low"].notna().any():
        yield "In brackets: confidence intervals over images."
    if not full and shown["difference"].notna().any():
        yield "In parentheses: the difference to the paper's value."


def _notes(
    measured: pd.DataFrame, layout: Layout, dataset: str, selected: Sequence[str]
) -> Iterator[str]:
    """Say where a printed average is not the mean of its categories, or is all there is."""
    of_dataset = measured[measured["dataset"] == dataset]
    here = set(of_dataset.loc[of_dataset["scope"] == "category", "category"])
    for result in dict.fromkeys(layout.published.values()):
        for metric in selected:
            for other in _others(layout.compared[dataset], result, metric):
                title = _short(metric)
                if other.printed is None:
                    continue
                if other.only_average:
                    yield (
                        f"{other.label} gives {title} only as an average over all "
                        f"{len(other.everything)} categories: {other.printed:.1f}."
                    )
                elif here == other.everything:
                    computed = round(float(np.mean(list(other.values.values()))), 1)
                    if abs(computed - other.printed) > 0.05:
                        yield (
                            f"{other.label} prints an average {title} of {other.printed:.1f}; "
                            f"the mean of its categories, shown here, is {computed:.1f}."
                        )
