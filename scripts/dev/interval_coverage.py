"""How often the confidence intervals of the metrics contain the true value, by simulation.

    python scripts/dev/interval_coverage.py            everything: about three minutes on one core
    python scripts/dev/interval_coverage.py --small    fewer simulations

Image scores are drawn from two normal distributions whose AUROC is known. Anomaly maps consist of
noise and defects of random size, number and contrast; their true metrics are those of a very large
sample. The test sets have the sizes of small and large MVTec AD categories. For comparison, the
percentile and the BCa interval (Efron 1987) of a plain bootstrap are computed from the same
resamples. A second study counts how often two equally good experiments are called different. Writes
a CSV file and a Markdown page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from tabulate import tabulate

from indad.core import atomic
from indad.data.ground_truth import GroundTruth
from indad.evaluation import bootstrap, comparison, evaluate, metrics
from indad.evaluation.resamples import Resamples

LEVEL = 0.95
#: Good and defective test images; the last four are MVTec AD's toothbrush, bottle, pill, screw.
SIZES = ((3, 8), (12, 30), (20, 63), (26, 141), (41, 119))
AUROCS = (0.75, 0.9, 0.97, 0.995, 0.9995)
#: Mean contrast of the defects and its standard deviation between defects.
CONTRASTS = ((1.5, 1.0), (3.0, 1.5), (5.0, 1.5))
SIDE = 16
TITLES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO",
}  # fmt: skip


def image_truth(auroc: float, good: int, defective: int) -> dict[str, float]:
    """Return the metrics of infinitely many images in these proportions."""
    shift = ndtri(auroc) * np.sqrt(2)
    threshold = np.linspace(shift + 9, -9, 200_001)
    recall, fp = ndtr(shift - threshold), good * ndtr(-threshold)
    tp = defective * recall
    precision = tp / np.maximum(tp + fp, 1e-300)
    f1 = 2 * tp / (tp + fp + defective)
    values = (auroc, np.trapezoid(precision, recall), f1.max())
    return dict(zip(metrics.IMAGE_METRICS, map(float, values), strict=True))


def image_scores(rng: np.random.Generator, auroc: float, labels: np.ndarray) -> np.ndarray:
    """Draw one score per image."""
    return rng.normal(size=len(labels)) + labels * ndtri(auroc) * np.sqrt(2)


def maps(
    rng: np.random.Generator, labels: np.ndarray, contrast: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw anomaly maps and masks ``(N, SIDE, SIDE)``: the level of each image is random too."""
    shape = (len(labels), SIDE, SIDE)
    drawn = rng.normal(size=shape) + 0.5 * rng.normal(size=(len(labels), 1, 1))
    masks = np.zeros(shape, bool)
    for i in np.flatnonzero(labels):
        for number in range(1 + (rng.random() < 0.3)):
            height, width = np.clip(np.exp(rng.normal(1.2, 0.5, 2)), 1, SIDE // 2 - 1).astype(int)
            top = rng.integers(SIDE // 2 - height) + number * SIDE // 2
            left = rng.integers(SIDE - width + 1)
            box = i, slice(top, top + height), slice(left, left + width)
            masks[box] = True
            drawn[box] += contrast + spread * rng.normal()
    return drawn.astype(np.float32), masks


def plain_intervals(
    value: float, resampled: np.ndarray, left_out: np.ndarray, labels: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return the percentile and the BCa interval."""
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    parts = [left_out[labels == each] for each in (0, 1)]
    influence = np.concatenate([(len(p) - 1) / len(p) * (p.mean() - p) for p in parts])
    total = (influence**2).sum()
    acceleration = (influence**3).sum() / total**1.5 / 6 if total else 0.0
    share = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / len(resampled), 1 - 0.5 / len(resampled)))
    z = bias + ndtri(tails)
    corrected = ndtr(bias + z / (1 - acceleration * z))
    return {
        "percentile": tuple(np.quantile(resampled, tails)),
        "BCa": tuple(np.quantile(resampled, corrected)),
    }


class Cell:
    """Counts how often the intervals of one simulated case miss the true value."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}

    def add(self, metric: str, method: str, bounds: tuple[float, float], truth: float) -> None:
        low, high = bounds
        row = (truth < low, truth > high, high - low)
        self.rows.setdefault((metric, method), []).append(row)

    def summary(self) -> Iterator[dict[str, Any]]:
        for (metric, method), rows in self.rows.items():
            low, high, width = np.mean(rows, axis=0)
            yield {
                "metric": metric,
                "method": method,
                "coverage": 1 - low - high,
                "truth_below": low,
                "truth_above": high,
                "mean_width": width,
                "simulations": len(rows),
            }


def simulate(
    rng: np.random.Generator,
    labels: np.ndarray,
    truth: dict[str, float],
    kind: tuple[float, ...],
    *,
    count: int,
    resamples: int,
) -> Iterator[dict[str, Any]]:
    """Draw ``count`` test sets and compare their intervals with the true metrics.

    Args:
        labels: 0 good, 1 defective, of each test image.
        truth: true value by metric.
        kind: ``(auroc,)`` for image scores, or ``(contrast, spread)`` for anomaly maps.
    """
    cell = Cell()
    one_out = 1 - np.eye(len(labels))
    for number in range(count):
        if len(kind) == 1:
            scores, drawn = image_scores(rng, kind[0], labels), np.zeros((len(labels), 1, 1))
            masks = np.zeros(drawn.shape, bool)
            counted = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
        else:
            drawn, masks = maps(rng, labels, *kind)
            scores = drawn.max(axis=(1, 2)).astype(float)
            counted = bootstrap.ImageCounts.from_scores(drawn, metrics.regions(masks), 1024)
        names = np.arange(len(labels)).astype(str)
        known = GroundTruth(names, labels, names, np.ones(len(labels), bool), masks)
        values = dict(zip(truth, counted.metrics(np.ones((1, len(labels))))[:, 0], strict=False))
        weights = bootstrap.draws(labels, resamples, number)
        resampled = dict(zip(truth, counted.metrics(weights), strict=False))
        left_out = dict(zip(truth, counted.metrics(one_out), strict=False))
        found = evaluate.intervals(values, resampled, scores, known, level=LEVEL)
        for metric, value in values.items():
            cell.add(metric, "indad", found[metric], truth[metric])
            plain = plain_intervals(value, resampled[metric], left_out[metric], labels)
            for method, bounds in plain.items():
                cell.add(metric, method, bounds, truth[metric])
    yield from cell.summary()


def claims(
    rng: np.random.Generator, labels: np.ndarray, auroc: float, *, count: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """Compare two equally good experiments with correlated scores on the same images."""
    claimed: dict[str, list[bool]] = {}
    names = np.arange(len(labels)).astype(str)
    for number in range(count):
        shared = rng.normal(size=len(labels))
        runs, rows = [], []
        for experiment in "ab":
            own = (shared + rng.normal(size=len(labels))) / np.sqrt(2)
            scores = own + labels * ndtri(auroc) * np.sqrt(2)
            counted = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
            drawn = counted.metrics(bootstrap.draws(labels, resamples, number))
            resampled = dict(zip(metrics.IMAGE_METRICS, drawn, strict=False))
            runs.append(Resamples("", "", experiment, 0, names, labels, scores, resampled, 0, 0, 0))
            values = metrics.image_metrics(labels, scores)
            rows.append(evaluate.tidy(values, experiment=experiment, seed=0))
        table = comparison.within(runs, pd.concat(rows), ["a", "b"], level=LEVEL)
        for row in table.itertuples():
            claimed.setdefault(row.metric, []).append(row.p < 1 - LEVEL)
    for metric, rejected in claimed.items():
        yield {
            "metric": metric,
            "method": "difference claimed",
            "coverage": 1 - np.mean(rejected),
            "simulations": count,
        }


def study_maps(
    sizes: Sequence[tuple[int, int]], count: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """Simulate pixel metrics: a row for each metric, size, contrast and interval."""
    large = np.repeat([0, 1], 10_000)
    for number, (contrast, spread) in enumerate(CONTRASTS):
        # A sample so large that its metrics count as the true ones.
        big = maps(np.random.default_rng([1, number]), large, contrast, spread)
        for good, defective in sizes:
            most = max(good, defective)
            chosen = np.r_[0 : 10_000 * good // most, 10_000 : 10_000 + 10_000 * defective // most]
            truth = metrics.pixel_metrics(big[0][chosen], big[1][chosen])
            labels = np.repeat([0, 1], [good, defective])
            rng = np.random.default_rng([2, number, good, defective])
            kind = (contrast, spread)
            keys = {"n_good": good, "n_defective": defective, "case": truth["pixel_auroc"]}
            for row in simulate(rng, labels, truth, kind, count=count, resamples=resamples):
                yield keys | row | {"truth": truth[row["metric"]]}
            print(f"maps, contrast {contrast}, {good} + {defective} images", file=sys.stderr)


def study_scores(
    sizes: Sequence[tuple[int, int]], count: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """Simulate image metrics and comparisons: a row for each metric, size, AUROC and interval."""
    for auroc in AUROCS:
        for good, defective in sizes:
            truth = image_truth(auroc, good, defective)
            labels = np.repeat([0, 1], [good, defective])
            rng = np.random.default_rng([3, int(auroc * 10_000), good, defective])
            keys = {"n_good": good, "n_defective": defective, "case": auroc}
            rows = [
                *simulate(rng, labels, truth, (auroc,), count=count, resamples=resamples),
                *claims(rng, labels, auroc, count=count // 2, resamples=resamples),
            ]
            yield from (keys | row | {"truth": truth[row["metric"]]} for row in rows)
            print(f"scores, AUROC {auroc}, {good} + {defective} images", file=sys.stderr)


def study(
    sizes: Sequence[tuple[int, int]], *, images: int, pixels: int, resamples: int
) -> pd.DataFrame:
    """Run all simulations: ``images`` and ``pixels`` test sets for each case."""
    rows = [
        *study_maps(sizes, pixels, resamples),
        *study_scores(sizes, images, resamples),
    ]
    columns = [
        "metric", "n_good", "n_defective", "case", "truth", "method", "coverage", "truth_below",
        "truth_above", "mean_width", "simulations",
    ]  # fmt: skip
    return pd.DataFrame(rows)[columns]


# -- the page -------------------------------------------------------------------------------------

PAGE = """\
# How reliable the confidence intervals are

Share of simulated test sets whose nominal 95 % interval contains the true value, in percent. In
parentheses: the mean width of the interval in percentage points. Made by
`python scripts/dev/interval_coverage.py`, whose docstring describes the simulation. All figures:
[coverage.csv](coverage.csv).

{images}

{pixels}

The intervals of image metrics are rather too wide. Those of pixel AUROC and AUPRO are too narrow
if the test set is small and nearly all defects are found: then a missed defect accounts for most of
the loss, and a small test set often contains none.

## Compared with a plain bootstrap

Mean over all cases, and the worst case. A percentile or BCa interval of perfect scores has zero
width, so it misses every true value below 100 %. The closer the true value is to 100 %, the more
often this happens.

{bootstrap}

## False claims of a difference

Two experiments of the same true quality, with scores correlated at 0.5: share of test sets with
p < 0.05, in percent. The nominal share is 5.

{claims}

Simulated test sets for each cell: {n_images} for images, {n_maps} for maps, {n_claims} for
differences.
"""


def page(table: pd.DataFrame) -> str:
    """Return the study as Markdown."""
    counts = table.groupby("method")["simulations"]
    return PAGE.format(
        images=coverage_table(table, metrics.IMAGE_METRICS, "AUROC"),
        pixels=coverage_table(table, metrics.PIXEL_METRICS, "pixel AUROC"),
        bootstrap=bootstrap_table(table),
        claims=claims_table(table),
        n_images=counts.max()["indad"],
        n_maps=counts.min()["indad"],
        n_claims=counts.max()["difference claimed"],
    )


def coverage_table(table: pd.DataFrame, names: Sequence[str], case: str) -> str:
    """Return coverage and width of indad's intervals by metric, test set size and true value."""
    rows = table[(table["method"] == "indad") & table["metric"].isin(names)]
    labels = dict.fromkeys(f"{100 * each:.4g}" for each in _merge(sorted(rows["case"].unique())))

    def cells(case: pd.DataFrame) -> list[str]:
        return [f"{100 * r.coverage:.0f} ({100 * r.mean_width:.1f})" for r in case.itertuples()]

    return _by_size(rows, cells, [f"true {case} {each}" for each in labels])


def claims_table(table: pd.DataFrame) -> str:
    """Return how often a difference between equally good experiments is claimed."""
    rows = table[table["method"] == "difference claimed"]
    headers = [f"true AUROC {100 * each:.4g}" for each in sorted(rows["case"].unique())]
    return _by_size(rows, lambda case: [f"{100 * (1 - c):.0f}" for c in case["coverage"]], headers)


def bootstrap_table(table: pd.DataFrame) -> str:
    """Return mean and worst coverage of indad's and of the plain bootstrap's intervals."""
    names = ["indad", "BCa", "percentile"]
    found = table.groupby(["metric", "method"])["coverage"].agg(["mean", "min"])

    def cell(metric: str, method: str) -> str:
        mean, worst = 100 * found.loc[(metric, method)]
        return f"{mean:.0f} (worst {worst:.0f})"

    body = [[title, *(cell(metric, name) for name in names)] for metric, title in TITLES.items()]
    return _table(body, ["metric", *names])


def _by_size(
    rows: pd.DataFrame, cells: Callable[[pd.DataFrame], list[str]], headers: list[str]
) -> str:
    """Return a table with a row for each metric and test set size, a column for each case."""
    groups = rows.groupby(["metric", "n_good", "n_defective"], sort=False)
    body = [
        [TITLES[metric], f"{good} / {defective}", *cells(group.sort_values("case"))]
        for (metric, good, defective), group in groups
    ]
    body.sort(key=lambda line: list(TITLES.values()).index(line[0]))
    return _table(body, ["metric", "good / defective", *headers])


def _merge(cases: list[float]) -> list[float]:
    """Merge cases that differ by little.

    The pixel AUROC of one contrast differs in the last digits with the share of good images.
    """
    merged: list[float] = []
    for each in cases:
        if not merged or each - merged[-1] > (0.01 if each < 0.99 else 0.002):
            merged.append(each)
    return merged


def _table(body: list[list[str]], headers: list[str]) -> str:
    return tabulate(
        body,
        headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * (len(headers) - 2)),
    )


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--small", action="store_true", help="fewer simulations")
    parse.add_argument(
        "--output", type=Path, default=Path("docs/coverage"), metavar="PREFIX",
        help="where to write, without suffix (default: %(default)s)",
    )  # fmt: skip
    given = parse.parse_args()
    if given.small:
        table = study(SIZES[1:3], images=40, pixels=10, resamples=200)
    else:
        table = study(SIZES, images=400, pixels=120, resamples=300)
    file = given.output.with_suffix(".csv")
    with atomic.replacing(file) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    # Read back, so that the page shows the rounded values of the file.
    atomic.write_text(given.output.with_suffix(".md"), page(pd.read_csv(file)))


if __name__ == "__main__":
    main()
