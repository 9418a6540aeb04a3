"""The tables of results as Markdown documents, and in LaTeX."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from indad.evaluation.counts import by_category
from indad.evaluation.metrics import IMAGE_METRICS
from indad.reporting import published
from indad.reporting.markdown import markdown_table
from indad.reporting.numbers import NOT_MEASURED, percent, signed
from indad.reporting.tables import (
    AVERAGE,
    EXPLANATIONS,
    SHORT_TITLES,
    TITLES,
    Layout,
    select,
    table_lines,
    with_published,
)

#: What tables say of ``evaluate_at``.
RESOLUTIONS = {
    "input": "Pixel metrics: at the size of the network's input, inside the crop.",
    "original": "Pixel metrics: at the size of the image files; pixels outside the crop have the "
    "lowest score.",
}
_ESCAPED = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
})  # fmt: skip
# Characters that occur in no name mark the best value until names are escaped.
_BOLD = "\0{}\1"
_MARKS = {"\0": r"\textbf{", "\1": "}", "±": r"$\pm$", "(-": "($-$"}


def grid(
    cells: pd.DataFrame,
    experiments: Sequence[str],
    *,
    bold: str = "{}",
    intervals: bool = False,
    differences: bool = False,
) -> list[list[str]]:
    """Return the rows of a table: name of the row, then the experiments' values.

    Args:
        cells: rows of ``tables.summarise`` of one data set and metric.
        experiments: the columns.
        bold: format of the best value of a row.
        intervals: whether to show confidence intervals.
        differences: whether to show the difference to the paper.
    """
    found = []
    for scope, name, shown in table_lines(cells, experiments):
        title = f"average of {shown[0].of} {name}" if scope == "group" else name
        found.append([title, *(_cell(cell, bold, intervals, differences) for cell in shown)])
    return found


def _cell(cell: Any, bold: str, intervals: bool, differences: bool) -> str:
    """Write a value with its deviation, interval, difference and number of categories."""
    if pd.isna(cell.percent):
        return NOT_MEASURED
    text = percent(cell.percent)
    text = bold.format(text) if cell.best else text
    if not pd.isna(cell.sd):
        text += f" ± {percent(cell.sd)}"
    if intervals and not pd.isna(cell.ci_low):
        text += f" [{percent(cell.ci_low)}, {percent(cell.ci_high)}]"
    if differences and not pd.isna(cell.difference):
        text += f" ({signed(cell.difference)})"
    return text + _incomplete(cell.averaged, cell.of)


def _incomplete(averaged: int, of: int) -> str:
    """Return how many categories an average covers if it does not cover all."""
    return f" (of {averaged})" if 0 < averaged < of else ""


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

    The best of a row is bold. A missing value is "-". An average of fewer than all categories shows
    their number. Returns "" if the metric was not measured on the data set.

    Args:
        measured: as ``tables.summarise``.
        dataset: the data set.
        metric: the metric.
        layout: what to show.
        intervals: whether to show confidence intervals.
        differences: whether to show the difference to the paper.
    """
    cells = select(measured, dataset=dataset, metric=metric)
    if cells.empty:
        return ""
    names = layout.experiments
    lines = grid(cells, names, bold="**{}**", intervals=intervals, differences=differences)
    return markdown_table(["category", *names], lines)


def overview(
    measured: pd.DataFrame, others: pd.DataFrame, dataset: str, metrics: Sequence[str]
) -> str:
    """Return a Markdown table of averages: each experiment, its paper and its reproductions.

    Returns "" if nothing was published for the data set's experiments.
    """
    others = others[(others["dataset"] == dataset) & others["metric"].isin(metrics)]
    shown = [metric for metric in metrics if (others["metric"] == metric).any()]
    last = select(measured, dataset=dataset)
    last = select(last, scope="average" if "average" in set(last["scope"]) else "category")
    lines = []
    for experiment, of_experiment in others.groupby("experiment", sort=False):
        mine = {each.metric: each for each in select(last, experiment=experiment).itertuples()}
        cells = [_cell(mine[each], "{}", intervals=False, differences=True) for each in shown]
        lines.append([str(experiment), "**ours**", *cells])
        theirs = of_experiment[of_experiment["category"].isin(last["category"])]
        for (name, kind), rows in theirs.groupby(["name", "kind"], sort=False):
            by_metric = rows.set_index("metric")["theirs"].reindex(shown)
            author = "paper" if kind == published.PAPER else str(name)
            lines.append(["", author, *map(percent, by_metric)])
    if not lines:
        return ""
    header = ["experiment", "by", *(SHORT_TITLES[metric] for metric in shown)]
    return markdown_table(header, lines, left=(0, 1))


def comparison(
    measured: pd.DataFrame, others: pd.DataFrame, dataset: str, metric: str, experiment: str
) -> str:
    """Return a Markdown table of categories: an experiment, its paper and its reproductions.

    Returns "" if the metric was never published.
    """
    cells = select(measured, dataset=dataset, metric=metric, experiment=experiment)
    publications = select(others, dataset=dataset, metric=metric, experiment=experiment)
    if publications.empty:
        return ""
    header, columns = ["category", "ours"], []
    for (name, kind), theirs in publications.groupby(["name", "kind"], sort=False):
        columns.append(
            [
                percent(row.theirs) + _incomplete(row.averaged, of)
                for row, of in zip(theirs.itertuples(), cells["of"], strict=True)
            ]
        )
        header += ["paper" if kind == published.PAPER else str(name), "difference"]
        columns.append([signed(each) for each in theirs["difference"]])
    ours = grid(cells, [experiment])
    return markdown_table(
        header, [[*row, *rest] for row, *rest in zip(ours, *columns, strict=True)]
    )


def image_counts(counts: pd.DataFrame, dataset: str) -> str:
    """Return a Markdown table of a data set's images; ``counts`` as ``counts.images``."""
    lines = []
    for each in by_category(select(counts, dataset=dataset)):
        kinds = ", ".join(f"{defect} {images}" for defect, images in each.pop("kinds").items())
        lines.append([*map(str, each.values()), kinds])
    header = ["category", "train", "test good", "test defective", "with mask", "kinds of defect"]
    return markdown_table(header, lines, left=(0, len(header) - 1))


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
        measured: as ``tables.summarise``.
        layout: what to show.
        selected: metrics to show.
        full: whether to show confidence intervals and every published value, instead of only the
            difference to the paper.
        counts: as ``counts.images``, to show the numbers of images.
        remarks: warnings about the images, one sentence each.
        heading: Markdown level of the first heading.
    """
    others = with_published(measured, layout)
    parts, notes = [], []
    for dataset in measured["dataset"].unique():
        shown = {
            metric: table(measured, dataset, metric, layout, intervals=full, differences=not full)
            for metric in selected
            if layout.shows(dataset, metric)
        }
        parts += [
            f"{heading} {TITLES[metric]}: {dataset}\n\n{text}"
            for metric, text in shown.items()
            if text
        ]
        if not all(shown.values()):
            parts.append(f"{dataset} has no ground truth masks: image-level metrics only.")
        if text := overview(measured, others, dataset, selected):
            categories = measured.loc[measured["dataset"] == dataset, "category"].unique()
            what = "averages" if AVERAGE in categories else categories[0]
            parts.append(
                f"{heading} Comparison with published results: {dataset}, {what}\n\n{text}"
            )
            notes += _published_notes(measured, layout, dataset, selected)
        for metric in selected if full else ():
            for experiment in layout.published:
                if text := comparison(measured, others, dataset, metric, experiment):
                    title = f"{heading}# {experiment} and published results"
                    parts.append(f"{title}: {TITLES[metric]}, {dataset}\n\n{text}")
    if not parts:
        parts.append("No data set asks for this metric (option `metrics` of a data set).")
    for dataset in () if counts is None else counts["dataset"].unique():
        parts.append(f"{heading} Images: {dataset}\n\n{image_counts(counts, dataset)}")
    explained = [*_explanations(measured, layout, selected, full)]
    if len(others):
        explained.append("Published values: `resources/published.csv`, each with its source.")
    explained += [f"{name}: {note}." for name, note in layout.notes.items()]
    of_images = "\n".join(f"- {remark}" for remark in dict.fromkeys(remarks))
    closing = [of_images, " ".join(explained), " ".join(dict.fromkeys(notes))]
    return "\n\n".join([*parts, *filter(None, closing)]) + "\n"


def _explanations(
    measured: pd.DataFrame, layout: Layout, selected: Sequence[str], full: bool
) -> Iterator[str]:
    """Explain the parts of a cell and the metrics."""
    shown = measured[measured["metric"].isin(selected)]
    present = [metric for metric in selected if metric in set(shown["metric"])]
    yield "Percent; the best value of each row is bold."
    if (seeds := shown["seeds"].max()) > 1:
        yield f"With ±: means and sample standard deviations over {seeds} seeds."
    if full and shown["ci_low"].notna().any():
        yield (
            "In brackets: confidence intervals for the value that unlimited test images like these "
            "would give; that of an average combines those of its categories."
        )
    if not full and shown["difference"].notna().any():
        yield "In parentheses: the difference to the paper's value."
    yield from (EXPLANATIONS[metric] for metric in present if metric in EXPLANATIONS)
    if set(present) - set(IMAGE_METRICS):
        yield RESOLUTIONS[layout.evaluated_at]


def _published_notes(
    measured: pd.DataFrame, layout: Layout, dataset: str, selected: Sequence[str]
) -> Iterator[str]:
    """Name printed averages that differ from the mean of their categories or have no categories."""
    here = set(select(measured, dataset=dataset, scope="category")["category"])
    for result in dict.fromkeys(layout.published.values()):
        for metric in selected:
            title = SHORT_TITLES[metric]
            for other in published.publications(layout.compared[dataset], result, metric):
                if other.only_average:
                    yield (
                        f"{other.label} gives {title} only as an average over all "
                        f"{len(other.everything)} categories: {other.printed:.1f}."
                    )
                elif other.printed is not None and here == other.everything:
                    computed = round(fmean(other.values.values()), 1)
                    if abs(computed - other.printed) > 0.05:
                        yield (
                            f"{other.label} prints an average {title} of {other.printed:.1f}; "
                            f"the mean of its categories, shown here, is {computed:.1f}."
                        )


def latex(measured: pd.DataFrame, metric: str, layout: Layout) -> str:
    """Return a ``tabular`` for the package booktabs for each data set.

    The difference to the paper is in parentheses.
    """
    parts = [f"% {TITLES[metric]} in percent. Needs \\usepackage{{booktabs}}."]
    for dataset in dict.fromkeys(measured["dataset"]):
        cells = select(measured, dataset=dataset, metric=metric)
        if cells.empty:
            continue
        names = layout.experiments
        rows = [["category", *names], *grid(cells, names, bold=_BOLD, differences=True)]
        lines = [" & ".join(text.translate(_ESCAPED) for text in row) + r" \\" for row in rows]
        lines.insert(1, r"\midrule")
        averages = 2 + (cells["scope"] == "category").sum() // len(layout.experiments)
        if averages < len(lines):
            lines.insert(averages, r"\midrule")
        body = "\n".join(lines)
        for mark, command in _MARKS.items():
            body = body.replace(mark, command)
        parts.append(
            f"% {dataset}\n\\begin{{tabular}}{{l{'r' * len(layout.experiments)}}}\n\\toprule\n"
            f"{body}\n\\bottomrule\n\\end{{tabular}}"
        )
    return "\n\n".join(parts) + "\n"
