"""How often the intervals of simulated test sets contain the truth, for `interval_coverage.py`."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from simulated_sets import HEAVY, Cell, draw_defects, draw_noise, resampled, truth_of

from indad.evaluation import evaluate, intervals
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


def test_sets(cell: Cell, runs: int, resamples: int) -> dict[tuple[str, str], Found]:
    """Return what was found on test sets, by metric and kind of interval."""
    edges, truth = truth_of(cell)
    seed = [1, int(1e4 * cell.case), cell.good, cell.variant == HEAVY]
    rng = np.random.default_rng([3, int(10 * cell.case), cell.good] if cell.has_maps else seed)
    found = []
    for start in range(0, runs, 50):
        region, added = draw_defects(rng, cell, min(50, runs - start))
        scores = draw_noise(rng, cell, len(region)) + added
        for number, each in enumerate(zip(scores, region, strict=True), start):
            found.append(bounds(*resampled(cell, edges, *each, number, resamples)))
    true = dict(zip(cell.metrics, truth, strict=True))
    return {
        (name, kind): Found(true[name], *np.array([run[name, kind] for run in found]).T)
        for name, kind in found[0]
    }


def bounds(
    values: dict[str, float], run: Resamples
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return value and bounds by metric and kind of interval."""
    ours = evaluate.intervals(values, run, level=LEVEL)
    made = {(name, "indad"): bound for name, bound in ours.items()}
    drawn = np.array(list(run.values.values()))
    tails = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1).T
    made |= {(name, "percentile"): tuple(tail) for name, tail in zip(values, tails, strict=True)}
    return {(name, kind): (values[name], *bound) for (name, kind), bound in made.items()}


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
