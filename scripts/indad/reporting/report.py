"""The report: one HTML page with all results, for people who know nothing of Snakemake.

Everything is inside the file: no picture, font or script is loaded from anywhere. What it says is
computed here from the run's products; ``report_page/`` arranges it. It can be read without
JavaScript, which only sorts, filters and switches what is already there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core import atomic, provenance
from indad.core.errors import StoreError
from indad.reporting import charts, embed, tables

#: Counts up when the same products would give another page.
VERSION = 1
#: Most characters of the page; pictures are made smaller to stay below.
BUDGET = 25_000_000
#: Colours of experiments that a dark page would swallow.
_ON_DARK = {"#4D4D4D": "#B8BCC2"}
#: Headings without remarks.
_SHORT = {name: title.split(" (")[0] for name, title in tables.TITLES.items()}

#: The category of comparisons over all categories.
OVER_CATEGORIES = "(all)"

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Category:
    """The products of one category that the page shows.

    Attributes:
        dataset, name: of the category.
        pictures: heading to picture file, in the order shown.
        defects: table of each kind of defect, as ``figures.defect_table``; None if there is none.
    """

    dataset: str
    name: str
    pictures: Mapping[str, Path]
    defects: Path | None = None


@dataclass(frozen=True)
class Sources:
    """The products a page is made of. What is None was not made, and the page goes without.

    Attributes:
        metrics: tidy tables in percent, one a metric, as ``tables.summarise``.
        categories: of all data sets, in order.
        described: experiment to its settings, in the order of the tables.
        notes: experiment to a remark that must not be missed.
        config: what was run, to run it again: shown as it is.
        images: numbers of images, as ``tables.images``.
        counts: numbers behind each value.
        comparisons: of each two experiments.
        ranks: of experiments over categories.
        diagrams: critical-difference diagrams, named ``<dataset>_<metric>``.
        runtime: time and memory of each job.
        level: confidence level of intervals and tests.
        provenance: what all of it was made with.
    """

    metrics: Sequence[Path]
    categories: Sequence[Category]
    described: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    images: Path | None = None
    counts: Path | None = None
    comparisons: Path | None = None
    ranks: Path | None = None
    diagrams: Sequence[Path] = ()
    runtime: Path | None = None
    provenance: Path | None = None
    level: float = 0.95


def write(sources: Sources, output: Path, *, budget: int = BUDGET, threads: int = 1) -> None:
    """Write the page, atomically.

    Args:
        sources: what it is made of.
        output: the HTML file.
        budget: most characters of the page.
        threads: pictures compressed at a time.

    Raises:
        StoreError: a product is damaged.
    """
    content = gather(sources)
    # What the page takes without its pictures is not theirs to take.
    pictures = [path for each in sources.categories for path in each.pictures.values()]
    pictures += [
        compared["diagram"]
        for dataset in content["datasets"]
        for compared in dataset["comparisons"]
        if compared["diagram"]
    ]
    room = budget - len(render(content, None))
    embedded = embed.embed(pictures, room, threads)
    atomic.write_text(output, render(content, embedded))


# -- reading ----------------------------------------------------------------------------------

_TEXT = (
    "dataset", "category", "experiment", "experiment_a", "experiment_b", "metric", "scope",
    "defect", "split", "stage", "name", "method", "device", "machine", "finished",
)  # fmt: skip


def read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; names stay text, ``NA`` and ``01`` too.

    Raises:
        StoreError: the file is missing, no table, or lacks one of ``columns``.
    """
    try:
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""]
        )
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not a table ({error}); delete it and run again") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise StoreError(
            f"{path}: a table without the column {missing[0]!r}; delete it and run again"
        )
    return frame


# -- what stands in the page ------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A value of a table and what is known about it; figures in percent, None where unknown."""

    value: float | None
    best: bool = False
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    paper: float | None = None
    difference: float | None = None
    lacks: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a metric's table.

    Attributes:
        name: shown.
        scope: category, group or average.
        category: number of the category's panel; None for averages.
        cells: by experiment.
    """

    name: str
    scope: str
    category: int | None
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """A metric's table of one data set."""

    metric: str
    title: str
    rows: list[Row]

    @property
    def first(self) -> bool:
        """Whether it stands before the others."""
        return self.metric in tables.SUMMARY

    @property
    def has_intervals(self) -> bool:
        """Whether any cell has an interval."""
        return any(cell.low is not None for row in self.rows for cell in row.cells)

    @property
    def has_papers(self) -> bool:
        """Whether any cell has a paper's value beside it."""
        return any(cell.paper is not None for row in self.rows for cell in row.cells)

    @property
    def seeds(self) -> bool:
        """Whether values are means over seeds, with a spread."""
        return any(cell.spread is not None for row in self.rows for cell in row.cells)


def gather(sources: Sources) -> dict[str, Any]:
    """Compute all that the page says, but for its pictures.

    Raises:
        StoreError: a product is damaged.
    """
    experiments = list(sources.described)
    number = {(each.dataset, each.name): i for i, each in enumerate(sources.categories)}
    measured = pd.concat([read(path, _MEASURED) for path in sources.metrics], ignore_index=True)
    ranks = None if sources.ranks is None else read(sources.ranks, _RANKS)
    compared = None if sources.comparisons is None else read(sources.comparisons, _COMPARED)
    runtime = None if sources.runtime is None else read(sources.runtime, _RUNTIME)
    images = None if sources.images is None else read(sources.images, _IMAGES)
    counts = None if sources.counts is None else read(sources.counts, _COUNTS)
    diagrams = {path.stem: path for path in sources.diagrams}
    datasets = []
    for name in dict.fromkeys(each.dataset for each in sources.categories):
        mine = measured[measured["dataset"] == name]
        costs = costs_of(_of(runtime, name), sources.described)
        found = [
            table
            for metric in tables.TITLES
            if (table := metric_table(mine, metric, experiments, name, number)) is not None
        ]
        found_best = findings(found, experiments, _of(compared, name), sources.level)
        datasets.append(
            {
                "name": name,
                "tables": found,
                "masks": any(table.metric.startswith("pixel") for table in found),
                "findings": found_best,
                "leaders": leaders(found_best),
                "spreads": [spread(t, experiments) for t in found if t.metric in tables.SUMMARY],
                "images": image_counts(_of(images, name), _of(counts, name), number),
                "comparisons": [
                    each | {"diagram": diagrams.get(f"{name}_{each['metric']}")}
                    for each in comparisons(_of(compared, name), experiments, sources.level)
                ],
                "ranks": rank_tables(_of(ranks, name)),
                "costs": costs,
                "tradeoffs": tradeoffs(found, costs, experiments),
            }
        )
    return {
        "experiments": experiments,
        "described": sources.described,
        "notes": dict(sources.notes),
        "datasets": datasets,
        "categories": [
            {
                "dataset": each.dataset,
                "name": each.name,
                "number": i,
                "pictures": list(each.pictures.items()),
                "defects": defects(each.defects, experiments),
                "tables": [
                    (table.title, row.cells)
                    for dataset in datasets
                    if dataset["name"] == each.dataset
                    for table in dataset["tables"]
                    for row in table.rows
                    if row.category == i
                ],
                "comparisons": comparisons(
                    _of(compared, each.dataset), experiments, sources.level, each.name
                ),
                "counts": next(
                    (
                        row
                        for dataset in datasets
                        if dataset["name"] == each.dataset
                        for row in dataset["images"]
                        if row["category"] == each.name
                    ),
                    None,
                ),
            }
            for i, each in enumerate(sources.categories)
        ],
        "level": f"{100 * sources.level:g}",
        "alpha": f"{100 * (1 - sources.level):.2g}",
        "seeds": int(measured["seeds"].max()) if len(measured) else 0,
        "config": sources.config,
        "provenance": origins(sources.provenance),
        "budget_mb": BUDGET // 1_000_000,
    }


def _of(frame: pd.DataFrame | None, name: str, column: str = "dataset") -> pd.DataFrame | None:
    return None if frame is None else frame[frame[column] == name]


def _known(value: Any) -> Any:
    """Return None for what a table leaves empty."""
    return None if pd.isna(value) else value


_MEASURED = (
    "dataset", "metric", "scope", "category", "experiment", "percent", "sd", "seeds", "ci_low",
    "ci_high", "averaged", "of", "best", "paper", "difference",
)  # fmt: skip


def metric_table(
    measured: pd.DataFrame,
    metric: str,
    experiments: Sequence[str],
    dataset: str,
    number: Mapping[tuple[str, str], int],
) -> Table | None:
    """Arrange a metric of one data set; None where it was not measured.

    Args:
        measured: of the data set, as ``tables.summarise``.
        metric: the metric.
        experiments: the columns.
        dataset: its name.
        number: of each category's panel.
    """
    chosen = measured[measured["metric"] == metric]
    if chosen["percent"].notna().sum() == 0:
        return None
    rows = []
    for (scope, name), row in chosen.groupby(["scope", "category"], sort=False):
        cells = {
            each.experiment: Cell(
                _known(each.percent),
                bool(each.best),
                _known(each.ci_low),
                _known(each.ci_high),
                _known(each.sd),
                _known(each.paper),
                _known(each.difference),
                f"of {each.averaged}" if 0 < each.averaged < each.of else "",
            )
            for each in row.itertuples()
        }
        rows.append(
            Row(
                f"{name} ({row['of'].iloc[0]})" if scope == "group" else name,
                scope,
                number.get((dataset, name)) if scope == "category" else None,
                [cells.get(each, Cell(None)) for each in experiments],
            )
        )
    return Table(metric, tables.TITLES[metric], rows)


def overall(table: Table) -> Row:
    """Return the row that stands for a whole data set: the average, or its only category."""
    return table.rows[-1]


# -- findings ---------------------------------------------------------------------------------

_RANKS = (
    "dataset", "metric", "experiment", "mean_rank", "n_categories", "friedman_p",
    "critical_difference",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Who is best at what, and who may be as good.

    Attributes:
        metric: by which.
        title: its name within a sentence.
        best: experiments with the best value; several if they tie.
        value: in percent.
        others: how many other experiments were measured.
        rivals: those of them that cannot be told from the best; None if nothing was tested.
        why: how that was judged.
    """

    metric: str
    title: str
    best: list[str]
    value: float
    others: int
    rivals: list[str] | None
    why: str

    @property
    def open(self) -> bool:
        """Whether every other experiment may be as good."""
        return self.rivals is not None and 0 < self.others == len(self.rivals)


def findings(
    found: Sequence[Table], experiments: Sequence[str], compared: pd.DataFrame | None, level: float
) -> list[Finding]:
    """Say for each main metric which experiment is best, and which may be as good.

    Over several categories by the paired test over them, where there are enough; else by the
    tests within each: the best must be better in one at least, and worse in none. Where nothing
    was tested, by whether the intervals overlap.

    Args:
        found: tables of one data set.
        experiments: their columns.
        compared: pairs of experiments on it.
        level: confidence level.
    """
    result = []
    for table in found:
        if table.metric not in tables.SUMMARY:
            continue
        cells = dict(zip(experiments, overall(table).cells, strict=True))
        best = [name for name, cell in cells.items() if cell.best]
        if not best:
            continue
        others = [n for n, cell in cells.items() if n not in best and cell.value is not None]
        pairs = Pairs(_of(compared, table.metric, "metric"), level)
        rivals, why = _rivals(table, experiments, best[0], others, pairs)
        short = _SHORT[table.metric]
        title = short if short.isupper() else short[0].lower() + short[1:]
        result.append(
            Finding(
                table.metric, title, best, cells[best[0]].value or 0.0, len(others), rivals, why
            )
        )
    return result


def leaders(found: Sequence[Finding]) -> list[tuple[list[str], list[Finding]]]:
    """Put together what the same experiments are best at."""
    grouped: dict[tuple[str, ...], list[Finding]] = {}
    for each in found:
        grouped.setdefault(tuple(each.best), []).append(each)
    return [(list(best), by) for best, by in grouped.items()]


def _rivals(
    table: Table, experiments: Sequence[str], best: str, others: Sequence[str], pairs: Pairs
) -> tuple[list[str] | None, str]:
    alpha = f"{100 * (1 - pairs.level):.2g}\N{NO-BREAK SPACE}%"
    if pairs.over:
        signs = {name: {pairs.sign(best, name, OVER_CATEGORIES)} for name in others}
        why = f"Wilcoxon's test over the categories at {alpha}"
    else:
        rows = [row for row in table.rows if row.scope == "category"]
        at = {name: experiments.index(name) for name in [best, *others]}
        if pairs.within:
            signs = {name: {pairs.sign(best, name, row.name) for row in rows} for name in others}
            why = f"paired tests on the same images at {alpha}"
        elif any(row.cells[at[best]].low is not None for row in rows):
            signs = {
                name: {_clear(row.cells[at[best]], row.cells[at[name]]) for row in rows}
                for name in others
            }
            why = f"their {100 * pairs.level:g}\N{NO-BREAK SPACE}% intervals overlap"
        else:
            return None, ""
    return [name for name in others if 1 not in signs[name] or -1 in signs[name]], why


def _clear(mine: Cell, other: Cell) -> int:
    """Return the sign of a difference, 0 where intervals overlap or are unknown."""
    if None in (mine.low, mine.high, other.low, other.high):
        return 0
    return int(mine.low > other.high) - int(mine.high < other.low)  # type: ignore[operator]


# -- drawings ---------------------------------------------------------------------------------


def spread(table: Table, experiments: Sequence[str]) -> dict[str, Any]:
    """Return a drawing of a metric: a line an experiment, a dot a category, the average above."""
    width, line, top = 340, 38, 8
    rows = [row for row in table.rows if row.scope == "category"]
    values = [v for row in table.rows for c in row.cells for v in (c.value, c.low, c.high)
              if v is not None and (row.scope == "category" or c.value == v)]  # fmt: skip
    single = len(rows) == 1
    if not single:
        values = [c.value for row in rows for c in row.cells if c.value is not None]
    axis = charts.percent_axis(values, 6, width - 6)
    lines = []
    for i, name in enumerate(experiments):
        total = overall(table).cells[i]
        lines.append(
            {
                "name": name,
                "number": i,
                "y": top + i * line + 22,
                "total": total,
                "x": None if total.value is None else axis(total.value),
                "interval": None
                if not single or total.low is None or total.high is None
                else (axis(total.low), axis(total.high)),
                "dots": []
                if single
                else [
                    (axis(row.cells[i].value), f"{row.name}: {row.cells[i].value:.1f}")
                    for row in rows
                    if row.cells[i].value is not None
                ],
            }
        )
    bottom = top + len(experiments) * line
    return {
        "title": _SHORT[table.metric],
        "width": width,
        "height": bottom + 18,
        "bottom": bottom,
        "top": top,
        "ticks": axis.ticks,
        "lines": lines,
        "single": single,
        "count": len(rows),
    }


_RUNTIME = (
    "stage", "dataset", "category", "name", "seed", "seconds", "max_rss_mb", "images",
    "compute_seconds", "model_mb", "cached",
)  # fmt: skip


def costs_of(
    runtime: pd.DataFrame | None, described: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return time and memory of each experiment on one data set, over categories and seeds.

    Args:
        runtime: of the data set.
        described: experiments, with the ``extractor`` and ``model`` whose jobs they need.
    """
    if runtime is None or runtime.empty:
        return []

    def jobs(stage: str, name: str) -> pd.DataFrame:
        chosen = runtime[(runtime["stage"] == stage) & (runtime["name"] == name)]
        return chosen[chosen["compute_seconds"].notna()]

    def per_image(chosen: pd.DataFrame) -> float | None:
        total = chosen["images"].sum()
        return float(chosen["compute_seconds"].sum() / total) if total else None

    found = []
    for number, (name, settings) in enumerate(described.items()):
        fit, score = jobs("fit", settings["model"]), jobs("score", name)
        extracted = jobs("extract", settings["extractor"])
        # Copies of kept features took no extraction's time.
        backbone = per_image(extracted[~extracted["cached"].astype(bool)])
        method = per_image(score)
        if method is None:
            continue
        found.append(
            {
                "experiment": name,
                "number": number,
                "backbone": backbone,
                "method": method,
                "seconds": None if backbone is None else method + backbone,
                "fit": _known(fit["compute_seconds"].mean()),
                "memory": _known(pd.concat([fit, score])["max_rss_mb"].max()),
                "model": _known(score["model_mb"].mean()),
            }
        )
    return found


def tradeoffs(
    found: Sequence[Table], costs: Sequence[Mapping[str, Any]], experiments: Sequence[str]
) -> list[dict[str, Any]]:
    """Return drawings of quality against seconds per image, marks by memory."""
    drawings = []
    width, height, left, right, top, bottom = 460, 300, 44, 130, 26, 262
    for table in found:
        if table.metric not in ("image_auroc", "aupro"):
            continue
        cells = overall(table).cells
        points = [(each, cells[each["number"]]) for each in costs if each["seconds"] is not None]
        points = [(each, cell.value) for each, cell in points if cell.value is not None]
        if not points:
            continue
        x = charts.seconds_axis([each["seconds"] for each, _ in points], left, width - right)
        y = charts.percent_axis([value for _, value in points], bottom, top)
        places = [y(value) for _, value in points]
        labels = charts.apart(places, 15, top + 4, bottom - 2)
        marks = []
        for (each, value), place, label in zip(points, places, labels, strict=True):
            told = f"{each['experiment']}: {value:.1f} %, {duration(each['seconds'])} per image"
            if each["model"] is not None:
                told += f", model {megabytes(each['model'])}"
            marks.append(
                {
                    "number": each["number"],
                    "name": each["experiment"],
                    "x": x(each["seconds"]),
                    "y": place,
                    "label": label,
                    "radius": _radius(each["model"]),
                    "told": told,
                }
            )
        drawings.append(
            {
                "title": _SHORT[table.metric],
                "width": width,
                "height": height,
                "left": left,
                "right": width - right,
                "top": top,
                "bottom": bottom,
                "x": x.ticks,
                "y": y.ticks,
                "marks": marks,
            }
        )
    return drawings


def _radius(megabytes: float | None) -> float:
    """Return a mark's radius: a tenfold size doubles the area."""
    return 5.0 if not megabytes else round(3.6 * max(megabytes, 1.0) ** 0.15, 1)


# -- comparisons ------------------------------------------------------------------------------

_COMPARED = (
    "dataset", "category", "metric", "experiment_a", "experiment_b", "difference", "ci_low",
    "ci_high", "p_holm", "method",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Experiment A minus experiment B in percentage points.

    Attributes:
        difference: A minus B.
        low, high: its interval.
        p: after Holm's correction.
        significant: whether p is below the level.
        method: of the test.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    significant: bool
    method: str


class Pairs:
    """All pairs of experiments by one metric, whichever comes first.

    Args:
        compared: rows of one data set and metric; None if nothing was compared.
        level: confidence level.
    """

    def __init__(self, compared: pd.DataFrame | None, level: float) -> None:
        self.level = level
        self._pairs: dict[tuple[str, str, str], Pair] = {}
        for row in () if compared is None else compared.itertuples():
            figures = (row.difference, row.ci_low, row.ci_high)
            difference, low, high = (None if pd.isna(x) else 100 * x for x in figures)
            if difference is None:
                continue
            tested = (_known(row.p_holm), bool(row.p_holm < 1 - level), str(row.method))
            flipped = (None, None) if low is None or high is None else (-high, -low)
            key = (row.experiment_a, row.experiment_b)
            self._pairs[(*key, row.category)] = Pair(difference, low, high, *tested)
            self._pairs[(*key[::-1], row.category)] = Pair(-difference, *flipped, *tested)
        categories = {category for _, _, category in self._pairs}
        self.over = OVER_CATEGORIES in categories
        self.within = categories - {OVER_CATEGORIES}

    def get(self, a: str, b: str, category: str) -> Pair | None:
        """Return a pair, None if it was not compared."""
        return self._pairs.get((a, b, category))

    def sign(self, a: str, b: str, category: str) -> int:
        """Return 1 if A is significantly better, -1 if worse, else 0."""
        pair = self.get(a, b, category)
        if pair is None or not pair.significant:
            return 0
        return 1 if pair.difference > 0 else -1

    def methods(self) -> list[str]:
        """Name the tests that were made."""
        return sorted({pair.method for pair in self._pairs.values()})


def comparisons(
    compared: pd.DataFrame | None,
    experiments: Sequence[str],
    level: float,
    category: str | None = None,
) -> list[dict[str, Any]]:
    """Return for each main metric a matrix of pairs, rows against columns.

    Args:
        compared: rows of one data set.
        experiments: to compare.
        level: confidence level.
        category: the only one to look at; if None, all: the test over them, and in how many the
            row is better or worse.
    """
    if compared is None or len(experiments) < 2:
        return []
    result = []
    for metric in tables.SUMMARY:
        pairs = Pairs(compared[compared["metric"] == metric], level)
        shown = sorted(pairs.within) if category is None else [category]
        if not pairs.within & set(shown):
            continue
        single = shown[0] if len(shown) == 1 else OVER_CATEGORIES
        rows = []
        for a in experiments:
            row = []
            for b in experiments:
                signs = [pairs.sign(a, b, each) for each in shown]
                row.append((pairs.get(a, b, single), signs.count(1), signs.count(-1)))
            rows.append(row)
        result.append(
            {
                "metric": metric,
                "title": _SHORT[metric],
                "rows": rows,
                "methods": pairs.methods(),
                "categories": len(shown),
                "over": len(shown) > 1 and pairs.over,
            }
        )
    return result


def rank_tables(ranks: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return mean ranks of experiments over the categories of one data set, where tested."""
    if ranks is None:
        return []
    result = []
    for metric in tables.SUMMARY:
        chosen = ranks[ranks["metric"] == metric]
        if chosen["critical_difference"].notna().any():
            mean = chosen.set_index("experiment")["mean_rank"]
            result.append(
                {
                    "title": _SHORT[metric],
                    "mean": {name: _known(value) for name, value in mean.items()},
                    "best": mean.min(),
                    "p": _known(chosen["friedman_p"].iloc[0]),
                    "critical": _known(chosen["critical_difference"].iloc[0]),
                }
            )
    return result


# -- images and defects -----------------------------------------------------------------------

_IMAGES = ("dataset", "category", "split", "defect", "images", "masks")
_COUNTS = ("dataset", "category", "n_train", "n_good", "n_defective", "n_masks", "n_regions")


def image_counts(
    images: pd.DataFrame | None,
    counts: pd.DataFrame | None,
    number: Mapping[tuple[str, str], int],
) -> list[dict[str, Any]]:
    """Return the numbers of images, masks and regions of each category."""
    if images is None:
        return []
    regions = {} if counts is None else counts.set_index("category")["n_regions"].to_dict()
    result = []
    for (dataset, category), rows in images.groupby(["dataset", "category"], sort=False):
        test = rows[rows["split"] == "test"]
        good = test["defect"] == "good"
        result.append(
            {
                "category": category,
                "number": number.get((dataset, category)),
                "train": int(rows.loc[rows["split"] == "train", "images"].sum()),
                "good": int(test.loc[good, "images"].sum()),
                "defective": int(test.loc[~good, "images"].sum()),
                "kinds": int((~good).sum()),
                "masks": int(test.loc[~good, "masks"].sum()),
                "regions": _known(regions.get(category)),
            }
        )
    return result


def defects(path: Path | None, experiments: Sequence[str]) -> list[dict[str, Any]]:
    """Return each kind of defect: images, and AUROC and missed images by experiment."""
    if path is None:
        return []
    frame = read(path, ("experiment", "defect", "images", "image_auroc", "missed"))
    result = []
    for defect, rows in frame.groupby("defect", sort=False):
        by_experiment = rows.set_index("experiment")
        values = [
            by_experiment.loc[name, ["image_auroc", "missed"]].tolist()
            if name in by_experiment.index
            else None
            for name in experiments
        ]
        best = max((round(100 * v[0], 1) for v in values if v), default=0)
        result.append(
            {
                "defect": str(defect).replace("_", " "),
                "images": int(rows["images"].iloc[0]),
                "cells": [
                    v and (100 * v[0], int(v[1]), round(100 * v[0], 1) == best) for v in values
                ],
            }
        )
    return result


# -- provenance -------------------------------------------------------------------------------


def origins(path: Path | None) -> dict[str, Any] | None:
    """Return what is told of how the results were made.

    Raises:
        StoreError: the record is missing, damaged or edited.
    """
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


# -- rendering --------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Write a time per image."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2g} s"


def megabytes(value: float) -> str:
    """Write a size."""
    return f"{value:.2g} MB" if value < 10 else f"{value:,.0f} MB"


def signed(value: float) -> str:
    """Write a difference in percentage points, with a true minus."""
    shown = round(value, 1)
    return f"{shown:+.1f}".replace("-", "\N{MINUS SIGN}") if shown else "0.0"


def probability(value: float) -> str:
    """Write a p value."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def render(content: Mapping[str, Any], embedded: embed.Embedded | None) -> str:
    """Return the page; without ``embedded``, one without pictures, to learn what the rest takes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from indad.reporting.style import PALETTE

    colours = [PALETTE[i % len(PALETTE)] for i in range(len(content["experiments"]))]
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Names come from folders and files of anybody's: everything is escaped unless marked.
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration, "megabytes": megabytes, "signed": signed, "probability": probability,
    }  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        content,
        embedded=embedded,
        colours=[(colour, _ON_DARK.get(colour, colour)) for colour in colours],
        titles=_SHORT,
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_digest=digest,
    )
