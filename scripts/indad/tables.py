"""Markdown tables of the tidy metrics: one per metric and data set, a row per category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from tabulate import tabulate

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


def _cell(value: float, best: bool) -> str:
    if pd.isna(value):
        return NOT_MEASURED
    text = f"{100 * value:.1f}"
    return f"**{text}**" if best else text


def _row(name: str, values: pd.Series) -> list[str]:
    shown = values.round(3)  # bold what the reader sees as the best, ties included
    return [name, *(_cell(v, bool(r == shown.max())) for v, r in zip(values, shown, strict=True))]


def table(metrics: pd.DataFrame, dataset: str, metric: str, experiments: Sequence[str]) -> str:
    """Return a markdown table in percent: categories by experiments, and the average.

    Values are means over seeds. The best of a row is bold. A missing value is "-", and an
    average over fewer than all categories says over how many. Returns "" where the metric was
    not measured for the data set.
    """
    chosen = metrics[(metrics["dataset"] == dataset) & (metrics["metric"] == metric)]
    if chosen.empty:
        return ""
    wide = chosen.pivot_table(
        index="category", columns="experiment", values="value", aggfunc="mean"
    ).reindex(
        index=list(dict.fromkeys(metrics.loc[metrics["dataset"] == dataset, "category"])),
        columns=list(experiments),
    )
    rows = [_row(str(category), values) for category, values in wide.iterrows()]
    if len(wide) > 1:
        average = _row("average", wide.mean())
        counts = wide.count()
        for i, count in enumerate(counts, 1):
            if 0 < count < len(wide):
                average[i] += f" (of {count})"
        rows.append(average)
    return tabulate(
        rows,
        headers=["category", *experiments],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * len(experiments)),
    )


def document(
    metrics: pd.DataFrame,
    experiments: Sequence[str],
    *,
    selected: Sequence[str] = tuple(TITLES),
    notes: Mapping[str, str] | None = None,
    heading: str = "##",
) -> str:
    """Return markdown with a table for each data set and selected metric.

    Args:
        metrics: tidy metrics.
        experiments: columns, in order.
        selected: metrics to show.
        notes: a remark per experiment that must not be missed, such as random weights.
        heading: the heading level of the first heading.
    """
    parts = []
    seeds = metrics["seed"].nunique()
    for dataset in dict.fromkeys(metrics["dataset"]):
        shown = [(TITLES[m], table(metrics, dataset, m, experiments)) for m in selected]
        missing = [title for title, text in shown if not text]
        parts += [f"{heading} {title}: {dataset}\n\n{text}" for title, text in shown if text]
        if missing:
            parts.append(f"{dataset} has no ground truth masks: image level only.")
    remarks = ["Percent; the best of each row in bold."]
    if seeds > 1:
        remarks.append(f"Means over {seeds} seeds.")
    remarks += [f"{name}: {note}." for name, note in (notes or {}).items()]
    return "\n\n".join([*parts, " ".join(remarks)]) + "\n"
