"""Run time, memory and size of every job, from the records that the workflow leaves.

Snakemake measures each job from outside (``benchmarks/``, wall clock with the start of Python); the
job's own record (``records/``) has what its script measured. Both are of the job's last run: a
product that was up to date keeps the record of when it was made.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad.core.errors import StoreError
from indad.reporting import published
from indad.reporting.markdown import markdown_table
from indad.reporting.tables import Layout

#: Rules on a category, in the order they run.
STAGES = (
    "download", "index", "decode", "extract", "coreset", "fit", "score", "evaluate", "pictures",
    "figures",
)  # fmt: skip
#: Columns of the table and their types.
COLUMNS = {
    "stage": "str", "dataset": "str", "category": "str", "name": "str", "seed": "Int64",
    "seconds": "float", "cpu_seconds": "float", "max_rss_mb": "float", "images": "Int64",
    "images_per_second": "float", "compute_seconds": "float", "load_seconds": "float",
    "model_mb": "float", "coreset_radius": "float", "product_mb": "float", "device": "str",
    "machine": "str", "finished": "str", "cached": "bool",
}  # fmt: skip
#: Raised when the same records make another table or document.
VERSION = 5


def collect(paths: Iterable[Path], records: Path, benchmarks: Path) -> pd.DataFrame:
    """Return a table of ``COLUMNS`` with one row for each job.

    ``seconds`` is the job's wall time; ``compute_seconds`` its own work, ``load_seconds`` what
    loading torch took, the rest went into starting Python. ``images_per_second`` refers to the own
    work. ``model_mb`` is what scoring with an experiment reads, and ``coreset_radius`` the covering
    radius of the part of PatchCore's coreset that it uses. ``cached`` marks features that were
    copied from a cache: their time is that of a copy, and not of an extraction.

    Args:
        paths: the jobs' records (JSON).
        records: the folder of all records.
        benchmarks: the folder of Snakemake's measurements, which has the same structure.

    Raises:
        StoreError: a record is damaged.
    """
    rows = []
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            row = _row(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path}: damaged record ({error!r}); delete it and run again"
            ) from None
        rows.append(row | _measured(benchmarks / path.relative_to(records).with_suffix(".tsv")))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    place = pd.factorize(table["dataset"] + "/" + table["category"])[0]
    stage = table["stage"].map(STAGES.index)
    table = table.iloc[np.lexsort((stage, place))].reset_index(drop=True)
    return table.astype({"seed": "Int64", "images": "Int64"})


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job recorded."""
    which = dict(record["wildcards"])
    dataset, category, seed = which.pop("dataset"), which.pop("category"), which.pop("seed", None)
    work = max(0.0, record["seconds"] - record["torch_seconds"])
    images, cached = record["images"], record["cached"]
    return {
        "stage": record["rule"],
        "dataset": dataset,
        "category": category,
        "name": next(iter(which.values()), ""),
        "seed": None if seed is None else int(seed),
        "images_per_second": images / work if images and work > 0 and not cached else np.nan,
        "compute_seconds": work,
        "load_seconds": record["torch_seconds"],
        **{name: record.get(name, np.nan) for name in ("model_mb", "coreset_radius")},
        "product_mb": record["output_mb"],
        **{name: record[name] for name in ("images", "device", "machine", "finished", "cached")},
    }


def _measured(path: Path) -> dict[str, float]:
    """Read a measurement of Snakemake; some values of a very short job are missing."""
    names = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "max_rss_mb"}
    if not path.exists():
        return dict.fromkeys(names.values(), np.nan)
    table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
    return {ours: float(table[theirs].iloc[-1]) for theirs, ours in names.items()}


# -- the document -----------------------------------------------------------------------------


#: Experiment to the name of its model and of its extractor; an ensemble's are followed by the name,
#: the model and the extractor of each member.
Models = Mapping[str, Sequence[Any]]


def document(table: pd.DataFrame, models: Models, layout: Layout) -> str:
    """Return Markdown: time, memory and size by experiment, extractor and stage.

    Args:
        table: as ``collect``.
        models: the names of the experiments' jobs.
        layout: the experiments, and the published result that each is compared with.
    """
    parts = ["# Run time and memory", _machines(table)]
    for dataset in dict.fromkeys(table["dataset"]):
        mine = table[table["dataset"] == dataset]
        costs = experiments(mine, models)
        parts += [f"## Experiments: {dataset}", _experiments(costs), _sharing(models)]
        parts += [f"## Features: {dataset}", _extractors(mine)]
        if dataset in layout.compared and (text := _papers(costs, layout)):
            parts += [f"## Compared with the papers: {dataset}", text]
    parts += ["## Where a second goes", _stages(table)]
    if len(missing := table[table["seconds"].isna()]):
        first = missing.iloc[0]
        parts.append(
            f"{len(missing)} of {len(table)} jobs have no measurement in benchmarks/, for example "
            f"{first['stage']} of {first['dataset']}/{first['category']}; the sums leave them out."
        )
    return "\n\n".join(filter(None, parts)) + "\n"


def experiments(table: pd.DataFrame, models: Models) -> pd.DataFrame:
    """Return what each experiment costs on a data set, means over categories and seeds.

    An ensemble costs what its members cost, and its own jobs. The features of an extractor count
    once. The peak of the memory is the highest of any of these jobs.

    Returns:
        ``experiment, fit_seconds, score_seconds`` (own work, per category), ``score_per_second``
        (images), ``seconds_per_image`` (scoring), ``with_backbone`` (seconds an image, features
        and scoring), ``max_rss_mb``, ``model_mb``, ``coreset_radius`` (NaN for an ensemble).
    """
    found = []
    for experiment, (model, extractor, *members) in models.items():
        parts = [(experiment, model, extractor), *map(tuple, members)]
        names, fitted, extractors = (dict.fromkeys(each) for each in zip(*parts, strict=True))
        fits = [_jobs(table, "fit", name) for name in fitted]
        coresets = [_jobs(table, "coreset", name) for name in fitted]
        scores = [_jobs(table, "score", name) for name in names]
        features = [_measured_jobs(_jobs(table, "extract", name)) for name in extractors]
        each = sum(map(_seconds_per_image, scores))
        found.append(
            {
                "experiment": experiment,
                "fit_seconds": sum(map(_fit_seconds, fits, coresets)),
                "score_seconds": sum(jobs["compute_seconds"].mean() for jobs in scores),
                "score_per_second": 1 / each if each > 0 else np.nan,
                "seconds_per_image": each,
                "with_backbone": each + sum(map(_seconds_per_image, features)),
                "max_rss_mb": pd.concat(
                    jobs["max_rss_mb"] for jobs in coresets + fits + scores
                ).max(),
                "model_mb": sum(jobs["model_mb"].mean() for jobs in scores),
                "coreset_radius": np.nan if members else scores[0]["coreset_radius"].mean(),
            }
        )
    return pd.DataFrame(found)


def _jobs(table: pd.DataFrame, stage: str, name: str) -> pd.DataFrame:
    return table[(table["stage"] == stage) & (table["name"] == name)]


def _fit_seconds(fits: pd.DataFrame, coresets: pd.DataFrame) -> float:
    """Return seconds of a fit and of the jobs that choose coresets of parts for it."""
    return fits["compute_seconds"].mean() + coresets["compute_seconds"].sum() / max(1, len(fits))


def _measured_jobs(jobs: pd.DataFrame) -> pd.DataFrame:
    """Leave out features that were copied from a cache."""
    return jobs[~jobs["cached"].astype(bool)]


def _seconds_per_image(jobs: pd.DataFrame) -> float:
    """Return seconds per image; NaN without jobs."""
    return jobs["compute_seconds"].sum() / (float(jobs["images"].sum()) or np.nan)


_RADIUS = (
    "The covering radius is the largest distance of a training patch to the coreset of PatchCore, "
    "in the projected space in which it is chosen; of several merged parts (`coreset: merge`), an "
    "upper bound."
)


def _text(value: float, digits: int = 1) -> str:
    return "-" if pd.isna(value) else f"{value:,.{digits}f}"


def _experiments(costs: pd.DataFrame) -> str:
    columns = {
        "fit, s": ("fit_seconds", 1),
        "score, s": ("score_seconds", 1),
        "images/s scored": ("score_per_second", 1),
        "s/image with backbone": ("with_backbone", 3),
        "peak memory, MB": ("max_rss_mb", 0),
        "model, MB": ("model_mb", 1),
    }
    covered = len(costs) and costs["coreset_radius"].notna().any()
    if covered:
        columns["covering radius"] = ("coreset_radius", 3)
    grid = [
        [cost["experiment"], *(_text(cost[name], digits) for name, digits in columns.values())]
        for cost in costs.to_dict("records")
    ]
    table = markdown_table(["experiment", *columns], grid)
    return f"{table}\n\n{_RADIUS}" if covered else table


def _sharing(models: Models) -> str:
    """Explain the columns, and list the experiments that share a fit."""
    users: dict[str, list[str]] = {}
    for experiment, (model, *_) in models.items():
        users.setdefault(model, []).append(experiment)
    shared = [" and ".join([", ".join(each[:-1]), each[-1]]) for each in users.values() if each[1:]]
    text = (
        "Means over categories and seeds, without starting Python and loading torch. The model is "
        "what scoring reads: SPADE's gallery of stored features, PatchCore's part of the bank."
    )
    if any(each[2:] for each in models.values()):
        text += " The values of an ensemble are sums over its members, and its own jobs."
    return " ".join([text, *(f"{each} share one fit." for each in shared)])


def _extractors(table: pd.DataFrame) -> str:
    grid = []
    extracted = table[table["stage"] == "extract"]
    for name, jobs in extracted.groupby("name", sort=False):
        size, made = jobs["product_mb"].mean(), _measured_jobs(jobs)
        rate = 1 / _seconds_per_image(made)
        seconds, memory = made["compute_seconds"].mean(), made["max_rss_mb"].max()
        grid.append([str(name), _text(seconds), _text(rate), _text(memory, 0), _text(size, 0)])
    header = ["extractor", "extract, s", "images/s", "peak memory, MB", "features, MB"]
    copied = int(extracted["cached"].sum())
    note = f"\n\n{copied} of {len(extracted)} were copied from a cache; only their size counts."
    return markdown_table(header, grid) + (note if copied else "")


def _papers(costs: pd.DataFrame, layout: Layout) -> str:
    """Compare our run times with the papers', without differences: the hardware is another."""
    by_experiment = costs.set_index("experiment")
    grid = []
    for experiment, result in layout.published.items():
        mine = by_experiment.loc[experiment]
        ours = {
            "fit": _text(mine["fit_seconds"]),
            "inference": _text(mine["with_backbone"], 3),
            "memory": _text(mine["model_mb"] / 1000, 2),
        }
        timings = published.timings()
        for each in timings[timings["result"] == result].itertuples():
            hardware = "" if each.hardware == "none" else f"{each.hardware}; "
            where = f"{hardware}{each.settings}"
            figures = [ours[each.quantity], f"{each.value:g}", each.unit]
            grid.append([experiment, each.quantity, *figures, each.by, where, each.source])
    if not grid:
        return ""
    header = ["experiment", "what", "ours", "published", "unit", "by", "measured on", "source"]
    return markdown_table(header, grid, left=(0, 1, 4, 5, 6, 7))


def _stages(table: pd.DataFrame) -> str:
    known = table[table["seconds"].notna()]
    grid = []
    for name, jobs in [*((name, known[known["stage"] == name]) for name in STAGES), ("all", known)]:
        if len(jobs):
            wall, work, load = jobs[["seconds", "compute_seconds", "load_seconds"]].sum()
            # Clocks differ in their last digit.
            start = max(0.0, wall - work - load)
            share = 100 * (load + start) / wall if wall else np.nan
            times = [_text(each) for each in (wall, work, load, start)]
            grid.append([name, str(len(jobs)), *times, f"{_text(share, 0)} %"])
    header = ["stage", "jobs", "seconds", "own work", "loading torch", "starting", "overhead"]
    return markdown_table(header, grid)


def _machines(table: pd.DataFrame) -> str:
    machines = [name for name in dict.fromkeys(table["machine"]) if name]
    devices = [name for name in dict.fromkeys(table["device"]) if name]
    return (
        f"Machine: {'; '.join(machines) or 'not recorded'}. Device: "
        f"{'; '.join(devices) or 'not recorded'}. A job that was up to date keeps the record of "
        "its last run."
    )
