"""What the report page shows, gathered from the products of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core import provenance
from indad.core.csv_files import read_csv
from indad.evaluation import cases, comparison, counts
from indad.reporting import learning_curves, runtime, tables
from indad.reporting.page.comparisons import Finding, findings, matrices, rank_tables
from indad.reporting.page.metric_tables import chart, metric_tables
from indad.reporting.page.sources import Category, Sources
from indad.reporting.tables import select


def _read(path: Path | None, columns: Mapping[str, str], kind: str) -> pd.DataFrame:
    """Read a table; an empty one if there is none."""
    if path is None:
        return pd.DataFrame(columns=list(columns)).astype(dict(columns))
    return read_csv(path, columns, f"table of {kind}")


def gather(sources: Sources) -> dict[str, Any]:
    """Return everything that the page shows except its pictures.

    Raises:
        StoreError: a product is damaged.
    """
    measured = [read_csv(path, tables.MEASURED_COLUMNS, "table") for path in sources.metrics]
    frames = {
        "images": _read(sources.images, counts.IMAGE_COLUMNS, "images"),
        "counts": _read(sources.counts, counts.COLUMNS, "counts"),
        "comparisons": _read(sources.comparisons, comparison.COMPARISON_COLUMNS, "comparisons"),
        "ranks": _read(sources.ranks, comparison.RANK_COLUMNS, "ranks"),
        "runtime": _read(sources.runtime, runtime.COLUMNS, "run times"),
        "measured": pd.concat(measured, ignore_index=True),
        "curves": _read(sources.curve_points, learning_curves.COLUMNS, "learning curves"),
    }
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
            _category(i, each, datasets[each.dataset], sources, frames["comparisons"])
            for i, each in enumerate(sources.categories)
        ],
        "level": f"{100 * sources.level:g}",
        "alpha": f"{100 * (1 - sources.level):.2g}",
        "seeds": int(frames["measured"]["seeds"].max()),
        "config": sources.config,
        "tradeoff": sources.tradeoff,
        "provenance": _origins(sources.provenance),
    }


def _dataset(name: str, sources: Sources, frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what the page shows of one data set."""
    mine = {kind: select(frame, dataset=name) for kind, frame in frames.items()}
    names = list(sources.experiments)
    numbers = {each.name: i for i, each in enumerate(sources.categories) if each.dataset == name}
    regions = mine["counts"].set_index("category")["n_regions"].to_dict()
    diagrams = {path.stem: path for path in sources.diagrams}
    found = metric_tables(mine["measured"], names, numbers)
    best = findings(found, names, mine["comparisons"], sources.level)
    leaders: dict[tuple[str, ...], list[Finding]] = {}
    for each in best:
        leaders.setdefault(tuple(each.best), []).append(each)
    return {
        "name": name,
        "tables": found,
        "masks": any(table.metric.startswith("pixel") for table in found),
        "findings": best,
        "leaders": list(leaders.items()),
        "charts": [chart(table, names) for table in found if table.first],
        "images": [
            each
            | {"number": numbers.get(each["category"]), "regions": regions.get(each["category"])}
            for each in counts.by_category(mine["images"])
        ],
        "comparisons": [
            each | {"diagram": diagrams.get(f"{name}_{each['metric']}")}
            for each in matrices(mine["comparisons"], names, sources.level)
        ],
        "other_categories": matrices(
            mine["comparisons"], names, sources.level, comparison.OVER_CATEGORIES
        ),
        "ranks": rank_tables(mine["ranks"], sources.level),
        "costs": _costs(mine["runtime"], sources.experiments),
        "curves": {
            "figure": sources.curve_figures.get(name),
            "sentences": list(learning_curves.sentences(mine["curves"])),
            "tables": [
                (tables.SHORT_TITLES[metric], *learning_curves.grid(rows, "", {}))
                for metric, rows in mine["curves"].groupby("metric", sort=False)
            ],
        },
    }


def _category(
    number: int,
    category: Category,
    dataset: Mapping[str, Any],
    sources: Sources,
    compared: pd.DataFrame,
) -> dict[str, Any]:
    """Return what the page shows of one category."""
    names = list(sources.experiments)
    compared = select(compared, dataset=category.dataset)
    images = [row for row in dataset["images"] if row["category"] == category.name]
    return {
        "dataset": category.dataset,
        "name": category.name,
        "number": number,
        "pictures": list(category.pictures.items()),
        "defects": _defects(_read(category.defects, cases.DEFECT_COLUMNS, "defects"), names),
        "tables": [
            (table.title, row.cells)
            for table in dataset["tables"]
            for row in table.categories
            if row.category == number
        ],
        "comparisons": matrices(compared, names, sources.level, category.name),
        "images": images[0] if images else None,
    }


def _costs(jobs: pd.DataFrame, experiments: Mapping[str, Mapping[str, Any]]) -> dict[int, Any]:
    """Return the rows of ``runtime.experiments`` of measured experiments, by their number."""
    models = {
        name: (each["model"], each["extractor"], *each.get("members", ()))
        for name, each in experiments.items()
    }
    if jobs.empty:
        return {}
    measured = enumerate(runtime.experiments(jobs, models).itertuples())
    return {number: row for number, row in measured if pd.notna(row.seconds_per_image)}


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


def _origins(path: Path | None) -> dict[str, Any] | None:
    """Return how the results were made; None without a record of it."""
    if path is None:
        return None
    record = provenance.read(path)
    made = [run["made_with"] for run in record["runs"]]
    return {
        "software": record["software"],
        "revision": record["revision"],
        "devices": sorted({f"{each['device']} ({each['hardware']})" for each in made}),
        "platform": record["platform"],
        "weights": [{"sha256": key, **value} for key, value in record["weights"].items()],
        "data": [
            {"manifest": manifest, "folder": folder, "digest": record["digests"][manifest]}
            for manifest, folder in record["data"].items()
        ],
    }
