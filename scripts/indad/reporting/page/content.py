"""What the report page shows, gathered from the products of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from indad.core import provenance
from indad.core.csv_files import read_csv
from indad.evaluation import cases, comparison, counts
from indad.reporting import learning_curves, runtime, tables
from indad.reporting.page.chart import chart
from indad.reporting.page.comparisons import (
    Finding,
    findings,
    matrices,
    pairs_in_points,
    rank_tables,
)
from indad.reporting.page.sources import Category, Sources
from indad.reporting.tables import select


def gather(sources: Sources) -> dict[str, Any]:
    """Return everything that the page shows except its pictures.

    Raises:
        StoreError: a product is damaged.
    """
    measured = [read_csv(path, tables.MEASURED_COLUMNS, "table") for path in sources.metrics]
    compared = read_csv(sources.comparisons, comparison.COMPARISON_COLUMNS, "table of comparisons")
    pairs = pairs_in_points(compared, sources.level)
    over = pairs["category"] == comparison.OVER_CATEGORIES
    frames = {
        "images": read_csv(sources.images, counts.IMAGE_COLUMNS, "table of images"),
        "counts": read_csv(sources.counts, counts.COLUMNS, "table of counts"),
        "pairs": pairs[~over],
        "over": pairs[over],
        "ranks": read_csv(sources.ranks, comparison.RANK_COLUMNS, "table of ranks"),
        "runtime": read_csv(sources.runtime, runtime.COLUMNS, "table of run times"),
        "measured": pd.concat(measured, ignore_index=True),
    }
    columns, path = learning_curves.COLUMNS, sources.curve_points
    frames["curves"] = (
        read_csv(path, columns, "table of learning curves")
        if path
        else pd.DataFrame(columns=columns)
    )
    known = frames["measured"].dropna(subset="percent")
    record = provenance.read(sources.provenance)
    made = [run["made_with"] for run in record["runs"]]
    datasets = {
        name: _dataset(name, sources, frames)
        for name in dict.fromkeys(each.dataset for each in sources.categories)
    }
    return {
        "experiments": list(sources.experiments),
        "settings": sources.experiments,
        "notes": dict(sources.notes),
        "data_warnings": [
            (f"{dataset}, {each.category}", str(each)) for dataset, each in sources.data_warnings
        ],
        "datasets": list(datasets.values()),
        "categories": [
            _category(i, each, datasets[each.dataset], sources, frames["pairs"])
            for i, each in enumerate(sources.categories)
        ],
        # What a table shows below its values.
        "columns": [name for name in ("ci_low", "paper") if known[name].notna().any()],
        "level": f"{100 * sources.level:g}",
        "alpha": f"{100 * (1 - sources.level):.2g}",
        "seeds": int(frames["measured"]["seeds"].max()),
        "config": sources.config,
        "tradeoff": sources.tradeoff,
        "provenance": record,
        "devices": sorted({f"{each['device']} ({each['hardware']})" for each in made}),
    }


def _dataset(name: str, sources: Sources, frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what the page shows of one data set."""
    mine = {kind: select(frame, dataset=name) for kind, frame in frames.items()}
    names = list(sources.experiments)
    regions = mine["counts"].set_index("category")["n_regions"].to_dict()
    by_metric = dict(iter(mine["measured"].groupby("metric")))
    found = {
        metric: tables.table_lines(by_metric[metric], names)
        for metric in tables.TITLES
        if metric in by_metric and by_metric[metric]["percent"].notna().any()
    }
    best = findings(found, names, mine["pairs"])
    leaders: dict[tuple[str, ...], list[Finding]] = {}
    for each in best:
        leaders.setdefault(tuple(each.best), []).append(each)
    return {
        "name": name,
        # Category to the number of its panel.
        "numbers": {
            each.name: i for i, each in enumerate(sources.categories) if each.dataset == name
        },
        "tables": found,
        "masks": any(metric.startswith("pixel") for metric in found),
        "findings": best,
        "leaders": list(leaders.items()),
        "charts": {
            metric: chart(rows, names) for metric, rows in found.items() if metric in tables.SUMMARY
        },
        "images": {
            each["category"]: each | {"regions": regions[each["category"]]}
            for each in counts.by_category(mine["images"])
        },
        "comparisons": matrices(mine["pairs"], names),
        "diagrams": {
            metric: path
            for metric in tables.SUMMARY
            if (path := sources.diagrams / f"{name}_{metric}.png").exists()
        },
        "other_categories": matrices(mine["over"], names),
        "ranks": rank_tables(mine["ranks"], sources.level),
        "costs": list(runtime.experiments(mine["runtime"], sources.models).itertuples()),
        "curves": {
            "figure": sources.curve_figures / f"{name}.png" if len(mine["curves"]) else None,
            "sentences": list(learning_curves.sentences(mine["curves"])),
            "tables": {
                metric: learning_curves.grid(rows, "", {})
                for metric, rows in mine["curves"].groupby("metric", sort=False)
            },
        },
    }


def _category(
    number: int,
    category: Category,
    dataset: Mapping[str, Any],
    sources: Sources,
    pairs: pd.DataFrame,
) -> dict[str, Any]:
    """Return what the page shows of one category."""
    names = list(sources.experiments)
    defects = read_csv(category.defects, cases.DEFECT_COLUMNS, "table of defects")
    return {
        "dataset": category.dataset,
        "name": category.name,
        "number": number,
        "pictures": list(category.pictures.items()),
        "defects": _defects(defects, names),
        "tables": {
            metric: row.cells
            for metric, rows in dataset["tables"].items()
            for row in rows
            if (row.scope, row.name) == ("category", category.name)
        },
        "comparisons": matrices(
            select(pairs, dataset=category.dataset, category=category.name), names
        ),
        "images": dataset["images"][category.name],
    }


def _defects(table: pd.DataFrame, experiments: Sequence[str]) -> list[dict[str, Any]]:
    """Return each kind of defect: images, and AUROC and missed images by experiment."""
    result = []
    for defect, rows in table.groupby("defect", sort=False):
        measured = rows.dropna(subset="image_auroc")
        percent = 100 * measured["image_auroc"]
        best = percent.round(1) == percent.round(1).max()
        values = zip(percent, measured["missed"].astype(int), best, strict=True)
        cells = dict(zip(measured["experiment"], values, strict=True))
        result.append(
            {
                "defect": str(defect).replace("_", " "),
                "images": rows["images"].iloc[0],
                "cells": [cells.get(name) for name in experiments],
            }
        )
    return result
