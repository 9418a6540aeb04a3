"""How often the intervals of simulated test sets contain the truth, for `interval_coverage.py`."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from simulated_sets import (
    HEAVY,
    Cell,
    count,
    image_truth,
    levels_of,
    noise,
    pixel_noise,
    regions,
    shift_of,
)

from indad.evaluation import bootstrap, evaluate, intervals
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from indad.evaluation.resamples import Resamples

LEVEL = 0.95
#: Numbers of categories of averages.
CATEGORIES = (2, 3, 4, 5, 9, 15)


class Found(NamedTuple):
    """Values and intervals of one metric in one cell, each ``(runs,)``, and its true value."""

    truth: float
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def image_sets(cell: Cell, runs: int, resamples: int) -> dict[tuple[str, str], Found]:
    """Return what was found on test sets of image scores, by metric and kind of interval."""
    rng = np.random.default_rng([1, int(1e4 * cell.case), cell.good, cell.variant == HEAVY])
    shift = shift_of(cell.case, cell.variant)
    truth = image_truth(shift, cell.variant, cell.good, cell.defective)
    drawn = noise(rng, cell.variant, (runs, 1, len(cell.labels)))[:, 0] + shift * cell.labels
    found = []
    for number, scores in enumerate(drawn):
        counts = bootstrap.ImageCounts.from_scores(scores, cell.labels.astype(np.int32))
        found.append(bounds(cell, IMAGE_METRICS, counts, number, resamples, scores=scores))
    return collect(truth, IMAGE_METRICS, found)


def map_sets(cell: Cell, runs: int, resamples: int) -> dict[tuple[str, str], Found]:
    """Return what was found on test sets of maps, by metric and kind of interval."""
    edges, truth = levels_of(cell)
    rng = np.random.default_rng([3, int(10 * cell.case), cell.good])
    found = []
    for start in range(0, runs, 50):
        region, added = regions(rng, cell, min(50, runs - start))
        scores = pixel_noise(rng, cell.variant, *region.shape[:2]) + added
        for number, levels in enumerate(np.searchsorted(edges, scores), start):
            counts = count(levels, region[number - start])
            mask = region[number - start] > 0
            found.append(bounds(cell, PIXEL_METRICS, counts, number, resamples, mask=mask))
    return collect(truth, PIXEL_METRICS, found)


def bounds(
    cell: Cell,
    names: Sequence[str],
    counts: bootstrap.ImageCounts,
    number: int,
    resamples: int,
    *,
    scores: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return value and bounds by metric and kind of interval."""
    labels = cell.labels
    area = 0 * labels if mask is None else np.count_nonzero(mask, axis=(1, 2))
    scores = 0 * labels if scores is None else scores
    values, drawn, left = evaluated(names, counts, labels, number, resamples)
    run = Resamples("", "", "", 0, labels, labels, scores, area, drawn, left, 0, 0)
    ours = evaluate.intervals(values, run, level=LEVEL)
    made = {(name, "indad"): bound for name, bound in ours.items()}
    tails = np.quantile(np.array(list(drawn.values())), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    made |= {(name, "percentile"): tuple(bound) for name, bound in zip(drawn, tails.T, strict=True)}
    return {(name, kind): (values[name], *bound) for (name, kind), bound in made.items()}


def evaluated(
    names: Sequence[str],
    counts: bootstrap.ImageCounts,
    labels: np.ndarray,
    number: int,
    resamples: int,
) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return metrics, their values on resamples, and their values without each image."""
    weights = [
        np.ones((1, len(labels))),
        bootstrap.draws(labels, resamples, number),
        1 - np.eye(len(labels)),
    ]
    found = counts.metrics(np.concatenate(weights))[: len(names)]
    drawn = dict(zip(names, found[:, 1 : 1 + resamples], strict=True))
    left = dict(zip(names, found[:, 1 + resamples :], strict=True))
    return dict(zip(names, found[:, 0].tolist(), strict=True)), drawn, left


def collect(
    truth: Sequence[float], names: Sequence[str], found: Sequence[dict]
) -> dict[tuple[str, str], Found]:
    """Return arrays over the runs, by metric and kind of interval."""
    true = dict(zip(names, truth, strict=True))
    return {
        (name, kind): Found(true[name], *np.array([run[name, kind] for run in found]).T)
        for name, kind in found[0]
    }


def coverage(cell: Cell, found: dict[tuple[str, str], Found]) -> Iterator[dict]:
    """Give how often each kind of interval contains the truth, and its mean width."""
    for (metric, method), each in found.items():
        keys = {"study": "coverage", "metric": metric, **cell._asdict(), "method": method}
        inside = (each.low <= each.truth) & (each.truth <= each.high)
        width = float((each.high - each.low).mean())
        yield keys | {"truth": each.truth, **rate(inside), "width": width}


def averages(cells: Sequence[dict], names: Sequence[str]) -> Iterator[dict]:
    """Give the coverage of averages over categories, each another cell."""
    for name, categories in product(names, CATEGORIES):
        parts = [cells[i % len(cells)][name, "indad"] for i in range(categories)]
        # Another run of a cell that is used twice.
        rolled = [[np.roll(x, i) for x in part[1:]] for i, part in enumerate(parts)]
        runs = np.array(rolled).transpose(2, 1, 0)
        truth = np.mean([part.truth for part in parts])
        made = np.array([intervals.average_interval(*run) for run in runs])
        inside = (made[:, 0] <= truth) & (truth <= made[:, 1])
        row = {"study": "average", "metric": name, "case": categories, "truth": truth}
        yield row | {**rate(inside), "width": float(np.diff(made).mean())}


def rate(hits: np.ndarray) -> dict[str, float]:
    """Return the share of runs, its Monte Carlo standard error, and their number."""
    share = float(np.mean(hits))
    return {"rate": share, "error": np.sqrt(share * (1 - share) / len(hits)), "runs": len(hits)}
