"""Run time, memory and size of every job, from the records that the workflow leaves.

Snakemake measures each job from outside (``benchmarks/``, wall clock with the start of Python); the
job's log tells its own work from within. Both are of the job's last run: a product that was up to
date keeps the record of when it was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad.core.errors import StoreError
from indad.features.store import FeatureStore
from indad.reporting import published
from indad.reporting.markdown import markdown_table
from indad.reporting.tables import Layout

#: Stages in the order they run, and the splits whose images a job of each works on.
STAGES: dict[str, tuple[str, ...]] = {
    "download": ("train", "test"),
    "index": ("train", "test"),
    "decode": ("train", "test"),
    "extract": ("train", "test"),
    "fit": ("train",),
    "score": ("test",),
    "evaluate": ("test",),
    "pictures": (),
    "figures": (),
}
COLUMNS = (
    "stage", "dataset", "category", "name", "seed", "seconds", "cpu_seconds", "max_rss_mb",
    "images", "images_per_second", "compute_seconds", "load_seconds", "model_mb", "product_mb",
    "device", "machine", "finished", "cached",
)  # fmt: skip
#: Raised when the same records make another table.
VERSION = 2
#: A pause between jobs that is longer lies between two runs.
PAUSE = 60.0

Job = Mapping[str, Any]


def record(folder: Path, job: Job, suffix: str) -> Path:
    """Return a job's record below ``folder``: ``stage/dataset/category[/name][/seed<k>]``."""
    parts = [job["stage"], job["dataset"], job["category"]]
    parts += [job["name"]] if job["name"] else []
    parts += [f"seed{job['seed']}"] if job["seed"] is not None else []
    return Path(folder, *parts[:-1], parts[-1] + suffix)


def collect(
    jobs: Sequence[Job], benchmarks: Path, logs: Path, images: pd.DataFrame
) -> pd.DataFrame:
    """Return one row a job, ``COLUMNS``; what has no record is missing, not left out.

    ``cached`` says that features were copied from a cache: their times are those of a copy, and no
    extraction's. ``seconds`` is the job's wall time; ``compute_seconds`` its own work,
    ``load_seconds`` what loading torch took, the rest went into starting Python.
    ``images_per_second`` goes by the own work. ``model_mb`` is what scoring with an experiment
    needs.

    Args:
        jobs: ``stage``, ``dataset``, ``category``, ``name`` (of the geometry, extractor, model or
            experiment, or ""), ``seed`` (or None) and, optionally, ``product`` (a file); for
            scoring ``model``, ``share`` (of the model that is used), ``gallery`` (a store, or "")
            and ``layers`` (or None).
        benchmarks: folder of Snakemake's records.
        logs: folder of the jobs' logs.
        images: as ``counts.images``.
    """
    counted = images.groupby(["dataset", "category", "split"])["images"].sum()
    found = []
    for job in jobs:
        splits = [(job["dataset"], job["category"], split) for split in STAGES[job["stage"]]]
        count = int(counted.loc[splits].sum()) if splits else np.nan
        row = {key: job[key] for key in ("stage", "dataset", "category", "name", "seed")}
        row |= _measured(record(benchmarks, job, ".tsv")) | _told(record(logs, job, ".log"))
        own = row["compute_seconds"]
        rate = count / own if own > 0 and not row["cached"] else np.nan
        row |= {"images": count, "images_per_second": rate}
        row["product_mb"] = _megabytes(job["product"]) if job.get("product") else np.nan
        row["model_mb"] = _model_megabytes(job) if job.get("model") else np.nan
        found.append(row)
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    return frame.astype({"seed": "Int64", "images": "Int64"})


def read(path: Path) -> pd.DataFrame:
    """Read what ``collect`` returned, from the CSV file it was written to.

    Raises:
        StoreError: the file is missing, damaged, or has other columns.
    """
    try:
        table = pd.read_csv(path, dtype={"dataset": str, "category": str, "name": str})
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not a readable run-time table ({error}); delete it") from None
    if list(table) != list(COLUMNS):
        raise StoreError(f"{path}: not a run-time table of this version; delete it and run again")
    return table


def _measured(path: Path) -> dict[str, float]:
    """Read a record of Snakemake's; of a job too short to be watched some of it is missing."""
    names = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "max_rss_mb"}
    if not path.exists():
        return dict.fromkeys(names.values(), np.nan)
    table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
    return {ours: float(table[theirs].iloc[-1]) for theirs, ours in names.items()}


_DONE = re.compile(r"^(\S+ \S+),\d+ done in ([\d.]+) s$", re.M)
_LOADED = re.compile(r" device: (.*); torch loaded in ([\d.]+) s$", re.M)
_MACHINE = re.compile(r" machine: (.*)$", re.M)


def _told(path: Path) -> dict[str, Any]:
    """Read what a job's log tells of its time and its machine."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    done, loaded, where = _DONE.search(text), _LOADED.search(text), _MACHINE.search(text)
    load = float(loaded[2]) if loaded else 0.0
    return {
        "compute_seconds": max(0.0, float(done[2]) - load) if done else np.nan,
        "load_seconds": load if done else np.nan,
        "device": loaded[1] if loaded else "",
        "machine": where[1] if where else "",
        "finished": done[1] if done else "",
        "cached": " cache: features copied from " in text,
    }


def _megabytes(path: str) -> float:
    return Path(path).stat().st_size / 1e6


def _model_megabytes(job: Job) -> float:
    """Return what scoring needs: its share of the model, and the gallery a model links."""
    size = job["share"] * _megabytes(job["model"])
    if job["gallery"]:
        with FeatureStore(job["gallery"], verify=False) as store:
            size += store.split("train").stored_bytes(job["layers"]) / 1e6
    return size


# -- the document -----------------------------------------------------------------------------


def document(table: pd.DataFrame, models: Mapping[str, tuple[str, str]], layout: Layout) -> str:
    """Return Markdown: time, memory and size by experiment, extractor and stage.

    Args:
        table: as ``collect``.
        models: experiment to its model's and its extractor's name.
        layout: the experiments, and which published result each stands beside.
    """
    parts = ["# Run time and memory", _machines(table)]
    for dataset in dict.fromkeys(table["dataset"]):
        mine = table[table["dataset"] == dataset]
        costs = experiments(mine, models)
        parts += [f"## Experiments: {dataset}", _experiments(costs), _sharing(models)]
        parts += [f"## Features: {dataset}", _extractors(mine)]
        if dataset in layout.compared and (text := _papers(costs, layout)):
            parts += [f"## Beside the papers: {dataset}", text]
    parts += ["## Where a second goes", _stages(table), _overlap(table)]
    if len(missing := table[table["seconds"].isna() | table["compute_seconds"].isna()]):
        first = missing.iloc[0]
        parts.append(
            f"{len(missing)} of {len(table)} jobs left no record or log, {first['stage']} of "
            f"{first['dataset']}/{first['category']} among them; they are left out of the sums."
        )
    return "\n\n".join(filter(None, parts)) + "\n"


def experiments(table: pd.DataFrame, models: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return what each experiment costs on a data set, means over categories and seeds.

    Returns:
        ``experiment, fit_seconds, score_seconds`` (own work, per category), ``score_per_second``
        (images), ``seconds_per_image`` (scoring), ``with_backbone`` (seconds an image, features
        and scoring), ``max_rss_mb``, ``model_mb``.
    """
    found = []
    for experiment, (model, extractor) in models.items():
        fit = _jobs(table, "fit", model)
        score = _jobs(table, "score", experiment)
        each = score["compute_seconds"].sum() / _known(score)
        features = _measured_jobs(_jobs(table, "extract", extractor))
        found.append(
            {
                "experiment": experiment,
                "fit_seconds": fit["compute_seconds"].mean(),
                "score_seconds": score["compute_seconds"].mean(),
                "score_per_second": 1 / each if each > 0 else np.nan,
                "seconds_per_image": each,
                "with_backbone": each + features["compute_seconds"].sum() / _known(features),
                "max_rss_mb": pd.concat([fit["max_rss_mb"], score["max_rss_mb"]]).max(),
                "model_mb": score["model_mb"].mean(),
            }
        )
    return pd.DataFrame(found)


def _jobs(table: pd.DataFrame, stage: str, name: str) -> pd.DataFrame:
    return table[(table["stage"] == stage) & (table["name"] == name)]


def _measured_jobs(jobs: pd.DataFrame) -> pd.DataFrame:
    """Leave out features that were copied from a cache."""
    return jobs[~jobs["cached"].astype(bool)]


def _known(jobs: pd.DataFrame) -> float:
    """Count the images of jobs that told their time."""
    return float(jobs.loc[jobs["compute_seconds"].notna(), "images"].sum()) or np.nan


def _text(value: float, digits: int = 1) -> str:
    return "-" if pd.isna(value) else f"{value:,.{digits}f}"


def _experiments(costs: pd.DataFrame) -> str:
    grid = [
        [
            row.experiment,
            _text(row.fit_seconds),
            _text(row.score_seconds),
            _text(row.score_per_second),
            _text(row.with_backbone, 3),
            _text(row.max_rss_mb, 0),
            _text(row.model_mb),
        ]
        for row in costs.itertuples()
    ]
    header = [
        "experiment", "fit, s", "score, s", "images/s scored", "s/image with backbone",
        "peak memory, MB", "model, MB",
    ]  # fmt: skip
    return markdown_table(header, grid)


def _sharing(models: Mapping[str, tuple[str, str]]) -> str:
    """Explain the columns, and say which experiments share a fit."""
    users: dict[str, list[str]] = {}
    for experiment, (model, _) in models.items():
        users.setdefault(model, []).append(experiment)
    shared = [" and ".join([", ".join(each[:-1]), each[-1]]) for each in users.values() if each[1:]]
    text = (
        "Means over categories and seeds, without starting Python and loading torch. The model is "
        "what scoring reads: SPADE's gallery of stored features, PatchCore's part of the bank."
    )
    return " ".join([text, *(f"{each} share one fit." for each in shared)])


def _extractors(table: pd.DataFrame) -> str:
    grid = []
    extracted = table[table["stage"] == "extract"]
    for name, jobs in extracted.groupby("name", sort=False):
        size, made = jobs["product_mb"].mean(), _measured_jobs(jobs)
        rate = _known(made) / made["compute_seconds"].sum()
        seconds, memory = made["compute_seconds"].mean(), made["max_rss_mb"].max()
        grid.append([str(name), _text(seconds), _text(rate), _text(memory, 0), _text(size, 0)])
    header = ["extractor", "extract, s", "images/s", "peak memory, MB", "features, MB"]
    copied = int(extracted["cached"].sum())
    told = (
        f"\n\n{copied} of {len(extracted)} were copied from a cache, and count for their size only."
    )
    return markdown_table(header, grid) + (told if copied else "")


def _papers(costs: pd.DataFrame, layout: Layout) -> str:
    """Put the papers' run times beside ours; other hardware, so no differences are taken."""
    by_experiment = costs.set_index("experiment")
    grid = []
    for experiment, result in layout.published.items():
        mine = by_experiment.loc[experiment]
        ours = {
            "fit": _text(mine["fit_seconds"]),
            "inference": _text(mine["with_backbone"], 3),
            "memory": _text(mine["model_mb"] / 1000, 2),
        }
        for each in (timing for timing in published.timings() if timing.result == result):
            hardware = "" if each.hardware == "none" else f"{each.hardware}; "
            where = f"{hardware}{each.settings}"
            figures = [ours[each.quantity], f"{each.value:g}", each.unit]
            grid.append([experiment, each.quantity, *figures, each.by, where, each.source])
    if not grid:
        return ""
    header = ["experiment", "what", "ours", "published", "unit", "by", "measured on", "source"]
    return markdown_table(header, grid, left=(0, 1, 4, 5, 6, 7))


def _stages(table: pd.DataFrame) -> str:
    known = table[table["seconds"].notna() & table["compute_seconds"].notna()]
    grid = []
    listed = [(name, known[known["stage"] == name]) for name in STAGES]
    for name, jobs in [*listed, ("all", known)]:
        if len(jobs):
            wall, work = jobs["seconds"].sum(), jobs["compute_seconds"].sum()
            load = jobs["load_seconds"].sum()
            # Clocks differ in their last digit.
            start = max(0.0, wall - work - load)
            share = 100 * (load + start) / wall if wall else np.nan
            times = [_text(each) for each in (wall, work, load, start)]
            grid.append([name, str(len(jobs)), *times, f"{_text(share, 0)} %"])
    header = ["stage", "jobs", "seconds", "own work", "loading torch", "starting", "overhead"]
    return markdown_table(header, grid)


def _overlap(table: pd.DataFrame) -> str:
    """Say how the jobs lay in time: side by side, and with what pauses between them."""
    known = table[table["seconds"].notna() & (table["finished"] != "")]
    if known.empty:
        return ""
    ends = pd.to_datetime(known["finished"])
    starts = ends - pd.to_timedelta(known["seconds"], unit="s")
    busy = between = 0.0
    pauses, last = 0, None
    for start, end in sorted(zip(starts, ends, strict=True)):
        gap = (start - last).total_seconds() if last is not None else 0.0
        if last is None or gap > 0:
            pauses += gap > PAUSE
            between += gap if gap <= PAUSE else 0.0
            busy += (end - start).total_seconds()
        else:
            busy += max(0.0, (end - last).total_seconds())
        last = end if last is None else max(last, end)
    total = known["seconds"].sum()
    text = (
        f"{len(known)} jobs took {_text(total)} s one by one; during {_text(busy)} s at least one "
        f"ran, {_text(total / busy if busy else np.nan)} at once on average, and {_text(between)} "
        "s passed between jobs. Jobs side by side slow each other down."
    )
    if pauses:
        text += f" Made in {pauses + 1} or more runs: pauses over {PAUSE:.0f} s do not count."
    return text


def _machines(table: pd.DataFrame) -> str:
    machines = [name for name in dict.fromkeys(table["machine"]) if name]
    devices = [name for name in dict.fromkeys(table["device"]) if name]
    return (
        f"Machine: {'; '.join(machines) or 'not recorded'}. Device: "
        f"{'; '.join(devices) or 'not recorded'}. A job that was up to date keeps the record of "
        "its last run."
    )
