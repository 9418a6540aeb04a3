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
from functools import partial
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
#: "Method" of the rows that say how often two equally good experiments were called different.
CLAIMED = "difference claimed"

#: Scores of the images, masks of the defects, and what the metrics are computed from.
TestSet = tuple[np.ndarray, np.ndarray, bootstrap.ImageCounts]
Row = dict[str, Any]


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


def draw_scores(rng: np.random.Generator, labels: np.ndarray, auroc: float) -> TestSet:
    """Draw one score per image."""
    scores = rng.normal(size=len(labels)) + labels * ndtri(auroc) * np.sqrt(2)
    counts = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
    return scores, np.zeros((len(labels), 1, 1), bool), counts


def draw_maps(
    rng: np.random.Generator, labels: np.ndarray, contrast: float, spread: float
) -> TestSet:
    """Draw one anomaly map per image; its score is the maximum."""
    drawn, masks = maps(rng, labels, contrast, spread)
    counts = bootstrap.ImageCounts.from_scores(drawn, metrics.regions(masks), 1024)
    return drawn.max(axis=(1, 2)).astype(float), masks, counts


def simulate(
    draw: Callable[[], TestSet],
    labels: np.ndarray,
    truth: dict[str, float],
    *,
    count: int,
    resamples: int,
) -> Iterator[Row]:
    """Draw ``count`` test sets; give a row for each interval that says if it missed the truth.

    Args:
        draw: draws a test set.
        labels: 0 good, 1 defective, of each test image.
        truth: true value by metric.
    """
    names = np.arange(len(labels)).astype(str)
    all_once, one_left_out = np.ones((1, len(labels))), 1 - np.eye(len(labels))
    for number in range(count):
        scores, masks, counts = draw()
        known = GroundTruth(names, labels, names, np.ones(len(labels), bool), masks)
        weights = bootstrap.draws(labels, resamples, number)
        values = dict(zip(truth, counts.metrics(all_once)[:, 0], strict=False))
        resampled = dict(zip(truth, counts.metrics(weights), strict=False))
        left_out = dict(zip(truth, counts.metrics(one_left_out), strict=False))
        found = evaluate.intervals(values, resampled, scores, known, level=LEVEL)
        for metric, value in values.items():
            plain = plain_intervals(value, resampled[metric], left_out[metric], labels)
            for method, (low, high) in ({"indad": found[metric]} | plain).items():
                below, above = truth[metric] < low, truth[metric] > high
                yield {
                    "metric": metric,
                    "truth": truth[metric],
                    "method": method,
                    "coverage": not (below or above),
                    "truth_below": below,
                    "truth_above": above,
                    "mean_width": high - low,
                }


def compare(
    rng: np.random.Generator,
    labels: np.ndarray,
    truth: dict[str, float],
    *,
    count: int,
    resamples: int,
) -> Iterator[Row]:
    """Compare two equally good experiments with correlated scores on the same images."""
    names = np.arange(len(labels)).astype(str)
    for number in range(count):
        shared = rng.normal(size=len(labels))
        runs, rows = [], []
        for experiment in "ab":
            own = (shared + rng.normal(size=len(labels))) / np.sqrt(2)
            scores = own + labels * ndtri(truth["image_auroc"]) * np.sqrt(2)
            counts = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
            drawn = counts.metrics(bootstrap.draws(labels, resamples, number))
            resampled = dict(zip(metrics.IMAGE_METRICS, drawn, strict=False))
            runs.append(Resamples("", "", experiment, 0, names, labels, scores, resampled, 0, 0, 0))
            values = metrics.image_metrics(labels, scores)
            rows.append(evaluate.tidy(values, experiment=experiment, seed=0))
        for found in comparison.within(runs, pd.concat(rows), ["a", "b"], level=LEVEL).itertuples():
            yield {
                "metric": found.metric,
                "truth": truth[found.metric],
                "method": CLAIMED,
                "coverage": not found.p < 1 - LEVEL,
            }


def study_maps(sizes: Sequence[tuple[int, int]], count: int, resamples: int) -> Iterator[Row]:
    """Simulate pixel metrics for each contrast and size."""
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
            draw = partial(draw_maps, rng, labels, contrast, spread)
            keys = {"n_good": good, "n_defective": defective, "case": truth["pixel_auroc"]}
            for row in simulate(draw, labels, truth, count=count, resamples=resamples):
                yield keys | row
            print(f"maps, contrast {contrast}, {good} + {defective} images", file=sys.stderr)


def study_scores(sizes: Sequence[tuple[int, int]], count: int, resamples: int) -> Iterator[Row]:
    """Simulate image metrics and comparisons for each AUROC and size."""
    for auroc in AUROCS:
        for good, defective in sizes:
            truth = image_truth(auroc, good, defective)
            labels = np.repeat([0, 1], [good, defective])
            rng = np.random.default_rng([3, int(auroc * 10_000), good, defective])
            draw = partial(draw_scores, rng, labels, auroc)
            keys = {"n_good": good, "n_defective": defective, "case": auroc}
            for row in simulate(draw, labels, truth, count=count, resamples=resamples):
                yield keys | row
            for row in compare(rng, labels, truth, count=count // 2, resamples=resamples):
                yield keys | row
            print(f"scores, AUROC {auroc}, {good} + {defective} images", file=sys.stderr)


def study(
    sizes: Sequence[tuple[int, int]], *, images: int, pixels: int, resamples: int
) -> pd.DataFrame:
    """Simulate ``images`` and ``pixels`` test sets for each case; one row for each interval."""
    rows = [*study_maps(sizes, pixels, resamples), *study_scores(sizes, images, resamples)]
    keys = ["metric", "n_good", "n_defective", "case", "truth", "method"]
    measured = ["coverage", "truth_below", "truth_above", "mean_width"]
    groups = pd.DataFrame(rows).astype(dict.fromkeys(measured, float)).groupby(keys, sort=False)
    return groups[measured].mean().assign(simulations=groups.size()).reset_index()


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
        n_claims=counts.max()[CLAIMED],
    )


def coverage_table(table: pd.DataFrame, names: Sequence[str], case: str) -> str:
    """Return coverage and width of indad's intervals by metric, test set size and true value."""
    rows = table[(table["method"] == "indad") & table["metric"].isin(names)]
    cells = [f"{100 * row.coverage:.0f} ({100 * row.mean_width:.1f})" for row in rows.itertuples()]
    return _by_size(rows.assign(cell=cells), case)


def claims_table(table: pd.DataFrame) -> str:
    """Return how often a difference between equally good experiments is claimed."""
    rows = table[table["method"] == CLAIMED]
    cells = [f"{100 * (1 - coverage):.0f}" for coverage in rows["coverage"]]
    return _by_size(rows.assign(cell=cells), "AUROC")


def bootstrap_table(table: pd.DataFrame) -> str:
    """Return mean and worst coverage of indad's and of the plain bootstrap's intervals."""
    names = ["indad", "BCa", "percentile"]
    found = table.groupby(["metric", "method"])["coverage"].agg(["mean", "min"])

    def cell(metric: str, method: str) -> str:
        mean, worst = 100 * found.loc[(metric, method)]
        return f"{mean:.0f} (worst {worst:.0f})"

    body = [[title, *(cell(metric, name) for name in names)] for metric, title in TITLES.items()]
    return _table(body, ["metric", *names])


def _by_size(rows: pd.DataFrame, case: str) -> str:
    """Return a table of ``cell``: a row for each metric and test set size, a column per case."""
    # By rank, since the true value of a case differs a little with the share of good images.
    sizes = [rows["metric"].map(list(TITLES).index), rows["n_good"], rows["n_defective"]]
    truths = rows["case"].groupby(rows.groupby(sizes)["case"].rank()).min()
    body = [
        [list(TITLES.values())[metric], f"{good} / {defective}", *group.sort_values("case")["cell"]]
        for (metric, good, defective), group in rows.groupby(sizes)
    ]
    headers = [f"true {case} {100 * truth:.4g}" for truth in truths]
    return _table(body, ["metric", "good / defective", *headers])


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
