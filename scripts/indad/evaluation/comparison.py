"""Tests of differences between experiments on the same test images, and over categories.

Within a category two experiments score the same images, so their difference is known more precisely
than either value. Image AUROC is compared by DeLong's test, every other metric by the jackknife or
by resamples of the same images. The difference of two averages over categories has the sum of the
categories' variances, divided by the squared number of categories. These tests are about the
categories of the run: would other test images like these change the result?

Whether it would hold in other categories like these is another question, with far fewer
observations. As recommended by Demsar (JMLR 7, 2006): Friedman's test on the ranks (his chi-square,
not Iman and Davenport's F that Demsar prefers), Nemenyi's critical difference, and Wilcoxon's
signed-rank test for each pair, where these can reach the level at all.

Holm's correction covers the pairs of experiments of one metric: within one category, of the
averages, and over categories. It does not cover the categories.

Seeds are averaged before anything is compared, as in the tables: the tests ask whether other test
images would change the result, not whether other seeds would.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon

from indad.core.errors import StoreError
from indad.evaluation.evaluate import AVERAGE
from indad.evaluation.intervals import (
    UNKNOWN_SPREAD,
    Spread,
    add,
    delong_covariance,
    placements,
)
from indad.evaluation.resamples import JACKKNIFED, Resamples

#: Columns of the table of pairs and their types.
COMPARISON_COLUMNS = {
    "dataset": "str", "category": "str", "metric": "str", "experiment_a": "str",
    "experiment_b": "str", "difference": "float", "ci_low": "float", "ci_high": "float",
    "p": "float", "p_holm": "float", "method": "str", "n_good": "int", "n_defective": "int",
    "effect_size": "float", "standard_error": "float", "freedom": "float",
}  # fmt: skip
#: Columns of the table of ranks and their types.
RANK_COLUMNS = {
    "dataset": "str", "metric": "str", "experiment": "str", "mean_rank": "float",
    "n_categories": "int", "friedman_p": "float", "critical_difference": "float",
}  # fmt: skip
#: The category of a comparison whose observations are the categories.
OVER_CATEGORIES = "(all)"
#: Minimum number of categories and of experiments for tests of ranks.
FEWEST = 3
#: Digits of a metric that count as a difference, as in the metrics file.
_DIGITS = 10


# -- within a category --------------------------------------------------------------------------


def within(
    runs: Sequence[Resamples],
    values: pd.DataFrame,
    experiments: Sequence[str],
    *,
    level: float,
) -> pd.DataFrame:
    """Compare every pair of experiments on one category, metric by metric.

    Args:
        runs: every experiment and seed of one category.
        values: tidy metrics of that category.
        experiments: in the order of the tables; the difference of a pair is the first minus the
            second.
        level: confidence level.

    Returns:
        Rows of ``COMPARISON_COLUMNS``. The interval is NaN if all resamples have the same value.

    Raises:
        StoreError: the runs contain different images, or different resamples.
    """
    _check_same_images(runs)
    grouped = {name: [run for run in runs if run.experiment == name] for name in experiments}
    first = runs[0]
    defective = int(first.label.sum())
    keys = {
        "dataset": first.dataset,
        "category": first.category,
        "n_good": len(first.label) - defective,
        "n_defective": defective,
    }
    means = values.groupby(["metric", "experiment"], sort=False)["value"].mean()
    rows = []
    for metric in dict.fromkeys(values["metric"]):
        have = [name for name in experiments if (metric, name) in means.index]
        family = []
        for a, b in combinations(have, 2):
            spread = difference_spread(grouped[a], grouped[b], metric)
            difference = means[metric, a] - means[metric, b]
            family.append((a, b, difference, *t_test(difference, spread, level), math.nan, spread))
        rows += _corrected(family, keys | {"metric": metric, "method": _method(metric)})
    return pd.DataFrame(rows).reindex(columns=list(COMPARISON_COLUMNS))


def _method(metric: str) -> str:
    if metric == "image_auroc":
        return "DeLong"
    return "paired jackknife" if metric in JACKKNIFED else "paired bootstrap"


def _check_same_images(runs: Sequence[Resamples]) -> None:
    first = runs[0]
    for run in runs[1:]:
        same = list(run.image) == list(first.image) and (run.label == first.label).all()
        sizes = [{len(values) for values in each.values.values()} for each in (run, first)]
        if not same or run.draw_seed != first.draw_seed or sizes[0] - sizes[1]:
            what = "resamples" if same else "test images"
            raise StoreError(
                f"{run.dataset}/{run.category}: {run.experiment} seed {run.seed} has other {what} "
                f"than {first.experiment} seed {first.seed}; delete its metrics and run again"
            )


def difference_spread(
    ours: Sequence[Resamples], theirs: Sequence[Resamples], metric: str
) -> Spread:
    """Return the variance of the difference of two experiments on the same images.

    Args:
        ours, theirs: the seeds of each experiment, which are averaged.
        metric: the metric.
    """
    if metric == "image_auroc":
        return _delong(ours, theirs)
    parts = [[run.variants(metric) for run in runs] for runs in (ours, theirs)]
    if any(values is None for part in parts for values in part):
        return UNKNOWN_SPREAD
    return ours[0].spread(metric, np.mean(parts[0], axis=0) - np.mean(parts[1], axis=0))


def _delong(ours: Sequence[Resamples], theirs: Sequence[Resamples]) -> Spread:
    # The components of a U-statistic averaged over seeds are the averages of its components.
    parts = [
        [each.mean(axis=0) for each in placements(runs[0].label, np.stack([r.score for r in runs]))]
        for runs in (ours, theirs)
    ]
    covariance = delong_covariance(*(np.stack(each) for each in zip(*parts, strict=True)))
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # Remove rounding errors: the variance of two equal experiments is 0, not 1e-19.
    return Spread(0.0 if variance < 1e-14 else variance, math.inf)


def t_test(difference: float, spread: Spread, level: float) -> tuple[float, float, float]:
    """Return interval and two-sided p of a difference, by Student's t; NaN if unknown."""
    if math.isnan(spread.variance):
        return math.nan, math.nan, math.nan
    if spread.variance == 0:
        # Equal on all images: no evidence of a difference, and no interval.
        return math.nan, math.nan, 1.0 if abs(difference) < 10**-_DIGITS else math.nan
    error = math.sqrt(spread.variance)
    if math.isfinite(spread.freedom):
        quantile = stdtrit(spread.freedom, (1 + level) / 2)
        p = 2 * stdtr(spread.freedom, -abs(difference) / error)
    else:
        quantile = ndtri((1 + level) / 2)
        p = 2 * ndtr(-abs(difference) / error)
    low, high = difference - quantile * error, difference + quantile * error
    return max(low, -1.0), min(high, 1.0), float(p)


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted by Holm (1979); NaN stays NaN and is not counted."""
    p = np.asarray(p, float)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)
    order = order[np.isfinite(p[order])]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted


def _corrected(family: Sequence[tuple], keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tests of a family with ``keys`` and corrected p; the last part is the spread."""
    names = ("experiment_a", "experiment_b", "difference", "ci_low", "ci_high", "p", "effect_size")
    adjusted = holm([tested[names.index("p")] for tested in family])
    rows = []
    for (*tested, spread), p_holm in zip(family, adjusted, strict=True):
        known = {"standard_error": math.sqrt(spread.variance), "freedom": spread.freedom}
        rows.append({**keys, **dict(zip(names, tested, strict=True)), **known, "p_holm": p_holm})
    return rows


def averages(pairs: pd.DataFrame, *, level: float) -> pd.DataFrame:
    """Compare the averages over the categories of each data set, at least two.

    Args:
        pairs: rows of ``within``, of all categories.
        level: confidence level.

    Returns:
        Rows of ``COMPARISON_COLUMNS`` of the category ``AVERAGE``, over the categories that have
        both experiments; ``n_good`` and ``n_defective`` are their sums.
    """
    rows = []
    for (dataset, metric), of_metric in pairs.groupby(["dataset", "metric"], sort=False):
        family = []
        names = ["experiment_a", "experiment_b"]
        for (a, b), each in of_metric.groupby(names, sort=False):
            if len(each) < 2:
                continue
            parts = zip(each["standard_error"] ** 2, each["freedom"], strict=True)
            spread = add([Spread(*part) for part in parts], 1 / len(each))
            difference = float(each["difference"].mean())
            family.append((a, b, difference, *t_test(difference, spread, level), math.nan, spread))
        images = of_metric.drop_duplicates("category")[["n_good", "n_defective"]].sum()
        keys = {"dataset": dataset, "category": AVERAGE, "metric": metric, **images}
        rows += _corrected(family, keys | {"method": of_metric["method"].iloc[0]})
    return pd.DataFrame(rows).reindex(columns=list(COMPARISON_COLUMNS))


# -- over categories ----------------------------------------------------------------------------


def _tables(
    metrics: pd.DataFrame, experiments: Sequence[str]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield data set, metric and means over seeds, of complete categories by experiments."""
    for (dataset, metric), chosen in metrics.groupby(["dataset", "metric"], sort=False):
        table = chosen.pivot_table(
            index="category", columns="experiment", values="value", aggfunc="mean", sort=False
        )
        shown = [name for name in experiments if name in table]
        yield dataset, metric, table.reindex(columns=shown).dropna()


@cache
def critical_difference(experiments: int, categories: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of mean ranks (Demsar 2006, section 3.2.2)."""
    quantile = studentized_range.ppf(level, experiments, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(experiments * (experiments + 1) / (6 * categories)))


def ranks(metrics: pd.DataFrame, experiments: Sequence[str], *, level: float) -> pd.DataFrame:
    """Rank the experiments of each data set and metric over its categories, the best first.

    Returns:
        Rows of ``RANK_COLUMNS``; Friedman's p and the critical difference are NaN with fewer than
        three categories or experiments.
    """
    rows = []
    for dataset, metric, table in _tables(metrics, experiments):
        if table.empty:
            continue
        ranked = rankdata(-table.round(_DIGITS).to_numpy(), axis=1)
        p = size = math.nan
        if min(table.shape) >= FEWEST:
            size = critical_difference(table.shape[1], len(table), level)
            p = 1.0  # all values are tied
            if (ranked != ranked.mean()).any():
                p = float(friedmanchisquare(*table.round(_DIGITS).to_numpy().T).pvalue)
        rows += [
            (dataset, metric, name, mean, len(table), p, size)
            for name, mean in zip(table, ranked.mean(axis=0), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(RANK_COLUMNS))


def lowest_wilcoxon_p(categories: int, experiments: int) -> float:
    """Return the lowest p after Holm's correction that Wilcoxon's test can give for all pairs."""
    return math.comb(experiments, 2) * 2.0 ** (1 - categories)


def over(
    metrics: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    experiments: Sequence[str],
    *,
    level: float,
) -> pd.DataFrame:
    """Compare every pair of experiments, with the categories as the observations.

    Only where Wilcoxon's test can reach the level, see ``lowest_wilcoxon_p``. The difference is
    the Hodges-Lehmann estimate, the median of the means of every two categories' differences. Its
    interval inverts Wilcoxon's test (normal approximation). The effect size is the matched-pairs
    rank-biserial correlation: 1 if the first is better in every category, -1 if the second is.

    Args:
        metrics: tidy metrics.
        counts: data set to its numbers of good and defective test images.
        experiments: in the order of the tables.
        level: confidence level.
    """
    rows = []
    for dataset, metric, table in _tables(metrics, experiments):
        if lowest_wilcoxon_p(len(table), table.shape[1]) >= 1 - level:
            continue
        family = []
        for a, b in combinations(table, 2):
            differences = (table[a] - table[b]).round(_DIGITS).to_numpy()
            estimate, low, high = hodges_lehmann(differences, level)
            p, effect = 1.0, 0.0
            if differences.any():
                # Zeros are split between the two, as in Demsar's paper.
                p = float(wilcoxon(differences, zero_method="zsplit").pvalue)
                order = rankdata(abs(differences))
                effect = float((order * np.sign(differences)).sum() / order.sum())
            family.append((a, b, estimate, low, high, p, effect, UNKNOWN_SPREAD))
        keys = {
            "dataset": dataset,
            "category": OVER_CATEGORIES,
            "metric": metric,
            "method": "Wilcoxon signed-rank",
            "n_good": counts[dataset][0],
            "n_defective": counts[dataset][1],
        }
        rows += _corrected(family, keys)
    return pd.DataFrame(rows).reindex(columns=list(COMPARISON_COLUMNS))


def hodges_lehmann(differences: np.ndarray, level: float) -> tuple[float, float, float]:
    """Return the median of the Walsh averages and its interval, NaN if there are too few."""
    count = len(differences)
    i, j = np.triu_indices(count)
    walsh = np.sort((differences[i] + differences[j]) / 2)
    deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    cut = math.floor(len(walsh) / 2 - ndtri((1 + level) / 2) * deviation) - 1
    low, high = (walsh[cut], walsh[-1 - cut]) if cut >= 0 else (math.nan, math.nan)
    return float(np.median(walsh)), float(low), float(high)
