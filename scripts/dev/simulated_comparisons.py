"""How often simulated experiments are called different, for `interval_coverage.py`."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
from scipy.special import ndtr, ndtri
from simulated_intervals import CATEGORIES, LEVEL, rate
from simulated_sets import Cell, draw_defects, draw_noise, resampled, truth_of

from indad.evaluation import comparison, intervals
from indad.evaluation.intervals import Spread

#: Good and defective test images of MVTec AD's 15 categories.
MVTEC = (
    (20, 63), (58, 92), (23, 109), (28, 89), (21, 57), (40, 70), (32, 92), (22, 93), (26, 141),
    (41, 119), (33, 84), (12, 30), (60, 40), (19, 60), (32, 119),
)  # fmt: skip


#: Share of the noise that two experiments have in common, and three coresets of one method.
SHARED, COPIES = 0.5, 0.9


# -- two equal experiments ------------------------------------------------------------------------


def pair_tests(cell: Cell, runs: int, resamples: int) -> dict[str, list]:
    """Compare two equally good experiments with correlated scores on the same images.

    Returns:
        By metric, for each run the difference and its ``Spread``.
    """
    rng = np.random.default_rng([4, int(1e4 * cell.case), cell.good])
    edges, _ = truth_of(cell)
    found: dict[str, list] = {name: [] for name in cell.metrics}
    for number in range(runs):
        region, added = (each[0] for each in draw_defects(rng, cell, 1))
        drawn = draw_noise(rng, cell, 3)
        both = np.sqrt(SHARED) * drawn[0] + np.sqrt(1 - SHARED) * drawn[1:] + added
        (values, run), (others, other) = (
            resampled(cell, edges, scores, region, number, resamples) for scores in both
        )
        for name in cell.metrics:
            spread = comparison.difference_spread([run], [other], name)
            found[name].append((values[name] - others[name], spread))
    return found


def claims(tests: Sequence[tuple[float, Spread]]) -> np.ndarray:
    """Return in which runs a difference is called significant."""
    return np.array([comparison.t_test(*each, LEVEL)[2] < 1 - LEVEL for each in tests])


def average_claims(cells: Sequence[dict], names: Sequence[str]) -> Iterator[dict]:
    """Give how often equal averages over categories are called different."""
    for name, categories in product(names, CATEGORIES):
        runs = len(cells[0][name])
        tests = []
        for run in range(runs):
            parts = [cells[i % len(cells)][name][(run + i) % runs] for i in range(categories)]
            spread = intervals.add([part for _, part in parts], 1 / categories)
            tests.append((float(np.mean([difference for difference, _ in parts])), spread))
        row = {"study": "average claims", "metric": name, "case": categories}
        yield row | rate(claims(tests))


# -- which of five experiments is the best -------------------------------------------------------


#: Signs of the opposite effects in each category: each number of categories has equal averages.
SIGNS = (1, -1, 0, 0, 0, *(1, -1) * 5)


def aurocs(scenario: str, category: int, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Return the true image AUROC of five experiments in a category, ``(5,)`` or ``(runs, 5)``."""
    if scenario == "equal":
        return np.full(5, (0.9, 0.95, 0.97, 0.99, 0.995)[category % 5])
    if scenario == "opposite effects":
        return 0.93 + 0.04 * np.array([1, 1, 0, -1, -1]) * SIGNS[category]
    if scenario == "random effects":
        return np.clip(0.93 + 0.02 * rng.normal(size=(runs, 5)), 0, 0.998)
    return np.array([0.95, *[0.95 - int(scenario.split()[0]) / 100] * 4])


SCENARIOS = (
    "equal", "opposite effects", "random effects", "2 points better", "3 points better",
    "15 points better",
)  # fmt: skip


def five_experiments(scenario: str, runs: int) -> list[dict]:
    """Return how often the best of five experiments is called better than another one.

    Three of them are nearly the same, as coresets of three sizes. For the last two scenarios the
    rate is that of the truly best one over each of the others; for the rest that of any claim.
    """
    rng = np.random.default_rng([5, SCENARIOS.index(scenario)])
    pairs = list(combinations(range(5), 2))
    values, differences, variances = [], [], []
    for category, (good, defective) in enumerate(MVTEC):
        labels = np.repeat([0, 1], [good, defective])
        drawn = rng.normal(size=(runs, 7, len(labels)))
        own = np.sqrt(1 - SHARED) * drawn[:, :5]
        own[:, 2:] *= np.sqrt((1 - COPIES) / (1 - SHARED))
        own[:, 2:] += np.sqrt(COPIES - SHARED) * drawn[:, 5:6]
        shift = np.sqrt(2) * ndtri(aurocs(scenario, category, runs, rng))[..., None]
        scores = np.sqrt(SHARED) * drawn[:, 6:] + own + shift * labels
        parts = intervals.placements(labels, scores)
        values.append(parts[0].mean(axis=2))
        between = [np.stack([p[:, a] - p[:, b] for a, b in pairs], axis=1) for p in parts]
        differences.append(between[0].mean(axis=2))
        variances.append(sum(each.var(axis=2, ddof=1) / each.shape[2] for each in between))
    rows = []
    for categories in CATEGORIES:
        mean = np.mean(values[:categories], axis=0)
        p = p_of_averages(np.stack(differences[:categories]), np.stack(variances[:categories]))
        signs = np.where(p < 1 - LEVEL, np.sign(np.mean(differences[:categories], axis=0)), 0)
        better = np.zeros((runs, 5, 5), bool)
        for number, (a, b) in enumerate(pairs):
            better[:, a, b], better[:, b, a] = signs[:, number] > 0, signs[:, number] < 0
        if scenario.endswith("better"):
            hits = (better[:, 0, 1:] & (mean.argmax(axis=1) == 0)[:, None]).mean(axis=1)
        else:
            hits = better[np.arange(runs), mean.argmax(axis=1)].any(axis=1)
        row = {"study": "best of five", "metric": "image_auroc", "variant": scenario}
        rows.append(row | {"case": categories, **rate(hits)})
    return rows


def p_of_averages(differences: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return p after Holm's correction, ``(runs, pairs)``, of the differences of averages."""
    categories = len(differences)
    error = np.sqrt(variances.sum(axis=0)) / categories
    z = np.abs(differences.mean(axis=0)) / np.maximum(error, 1e-300)
    return np.array([comparison.holm(row) for row in 2 * ndtr(-z)])
