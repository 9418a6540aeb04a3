"""Confidence intervals that keep their coverage with few images and at a perfect value.

An interval is for the value that unlimited test images like these would give. On MVTec AD an AUROC
of 1.000 from 20 good images is common. Every resample of such scores is perfect too, so a bootstrap
gives AUROC = 1 a zero-width interval. Score intervals contain all true values that a test would not
reject given the observed one, and have a lower bound below 1. Their coverage is simulated in
``scripts/dev/interval_coverage.py``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are used, not when a workflow is planned

Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


class Spread(NamedTuple):
    """Variance of an estimate, and the degrees of freedom with which it is known.

    The freedom is infinite for a variance that counts as known, and NaN for an unknown variance.
    """

    variance: float
    freedom: float


UNKNOWN_SPREAD = Spread(math.nan, math.nan)


def bootstrap_spread(resampled: np.ndarray, images: int) -> Spread:
    """Return the variance over resamples.

    Args:
        resampled: values on the resamples, ``(B,)``; NaN where undefined.
        images: number m of images of the class that the metric averages over. The bootstrap's
            variance is too small by a factor of (m - 1) / m.
    """
    known = resampled[np.isfinite(resampled)]
    if len(known) < 2 or images < 2:
        return UNKNOWN_SPREAD
    return Spread(float(known.var()) * (images / (images - 1)), images - 1)


def jackknife_spread(left_out: np.ndarray, labels: np.ndarray, area: np.ndarray) -> Spread:
    """Return the jackknife's variance of a pixel metric, good and defective images separately.

    A metric over pixels weights a defective image by its defective area, so that unequal areas
    leave fewer effective images: Kish's number ``(sum of areas)^2 / (sum of squared areas)``. The
    degrees of freedom of the sum of both variances are Satterthwaite's (1946).

    Args:
        left_out: values without each image, ``(N,)``; NaN for an image that has no part in it.
        labels: 0 good, 1 defective, ``(N,)``.
        area: number of defective pixels of each image, ``(N,)``.
    """
    if np.count_nonzero(area) < 2:
        return UNKNOWN_SPREAD
    # One image that holds nearly all of the area would leave no freedom at all.
    effective = max(float(area.sum() ** 2 / (area.astype(float) ** 2).sum()), 2.0)
    parts = []
    for label in (0, 1):
        values = left_out[(labels == label) & np.isfinite(left_out)]
        if len(values) < 2:
            continue
        variance = (len(values) - 1) * float(values.var())
        if label == 1:
            parts.append(Spread(variance * effective / (effective - 1), effective - 1))
        else:
            parts.append(Spread(variance, len(values) - 1))
    return add(parts)


def add(spreads: Sequence[Spread], scale: float = 1.0) -> Spread:
    """Return the variance of ``scale`` times a sum of independent estimates.

    The degrees of freedom are Satterthwaite's; those of the least known part if all are zero.
    """
    variances, freedoms = np.array(spreads).T
    total = float(variances.sum())
    if not total > 0:
        return Spread(total, float(freedoms.min()))
    loss = float((variances**2 / freedoms).sum())
    return Spread(scale**2 * total, total**2 / loss if loss else math.inf)


def score_interval(
    value: float, spread: Spread, *, level: float, most: float = math.inf
) -> Interval:
    """Wilson's score interval of a proportion with an effective number of observations.

    A metric of variance v counts like a proportion of ``value (1 - value) / v`` observations (Korn
    and Graubard 1998, for surveys, where images are the clusters). Student's t replaces the normal
    quantile, because the variance is itself estimated from few images.

    Args:
        value: value of the metric, in [0, 1].
        spread: variance of the metric.
        level: confidence level.
        most: upper bound of the effective number. It is used if the variance is zero; if it is
            infinite, one more than the degrees of freedom is used instead.

    Returns:
        The bounds; NaN if the variance is unknown.
    """
    if math.isnan(spread.variance):
        return UNKNOWN
    product = value * (1 - value)
    if spread.variance > 0 and product > 0:
        count = min(product / spread.variance, most)
    else:
        count = most if math.isfinite(most) else spread.freedom + 1
    square = scipy.special.stdtrit(spread.freedom, (1 + level) / 2) ** 2 / count
    centre = (value + square / 2) / (1 + square)
    half = math.sqrt(square * max(product, 0) + square**2 / 4) / (1 + square)
    low = 0.0 if value <= 0 else max(float(centre - half), 0.0)
    return low, 1.0 if value >= 1 else min(float(centre + half), 1.0)


def average_interval(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> Interval:
    """Return the interval of an average of independent values from their own intervals.

    The half widths of the intervals are squared and added, like the standard errors that they are
    multiples of. A perfect value has no variance but an interval, so that it counts too. The result
    is symmetric: the skewness of single values averages out.

    Args:
        values, low, high: of each category, ``(C,)``.

    Returns:
        The bounds; NaN if one of the intervals is unknown.
    """
    average = float(values.mean())
    half = math.sqrt((((high - low) / 2) ** 2).sum()) / len(values)
    return max(average - half, 0.0), min(average + half, 1.0)


def auroc_interval(
    value: float, variance: float, *, level: float, good: int, defective: int
) -> Interval:
    """Newcombe's score interval of an AUROC, widened if the scores vary more than assumed.

    Newcombe (Statistics in Medicine 25, 2006, part 2, method 5) uses the variance that the AUROC
    would have at each candidate value for exponential scores (Hanley and McNeil 1982). If DeLong's
    variance of the observed scores is larger, all variances are enlarged in proportion.

    Args:
        value: the AUROC.
        variance: DeLong's variance; NaN or 0 if it cannot be estimated.
        level: confidence level.
        good: number of good images.
        defective: number of defective images.
    """
    more = (good + defective) / 2 - 1

    def expected(auroc: float) -> float:
        pairs = 1 + more * ((1 - auroc) / (2 - auroc) + auroc / (1 + auroc))
        return auroc * (1 - auroc) * pairs / (good * defective)

    # At 0 and 1 the variance is zero, which is always a root: the search excludes both ends.
    near = 1e-12
    inside = near < value < 1 - near
    enlarged = max(1.0, variance / expected(value)) if inside and variance > 0 else 1.0
    square = scipy.special.ndtri((1 + level) / 2) ** 2 * enlarged

    def surprise(auroc: float) -> float:
        return (auroc - value) ** 2 - square * expected(auroc)

    low = scipy.optimize.brentq(surprise, 0.0, min(value, 1 - near)) if value > near else 0.0
    high = scipy.optimize.brentq(surprise, max(value, near), 1.0) if value < 1 - near else 1.0
    return float(low), float(high)


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the structural components of AUROCs, by mid-ranks (Sun and Xu 2014).

    Args:
        labels: ``(N,)``, 0 good or 1 defective.
        scores: ``(..., N)``, higher is more anomalous.

    Returns:
        For each defective image the share of good images with a lower score, ``(..., D)``, and for
        each good image the share of defective images with a higher score, ``(..., G)``; ties count
        half. The mean of either is the AUROC.
    """
    bad, good = scores[..., labels == 1], scores[..., labels == 0]
    both = scipy.stats.rankdata(np.concatenate([bad, good], axis=-1), axis=-1)
    count = bad.shape[-1]
    below = (both[..., :count] - scipy.stats.rankdata(bad, axis=-1)) / good.shape[-1]
    above = 1 - (both[..., count:] - scipy.stats.rankdata(good, axis=-1)) / count
    return below, above


def delong_covariance(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return DeLong's covariance of AUROCs on the same images (Biometrics 44, 1988).

    Args:
        below: ``(E, D)`` from ``placements``.
        above: ``(E, G)`` from ``placements``.

    Returns:
        ``(E, E)``; NaN with fewer than two images of a class.
    """
    if min(below.shape[1], above.shape[1]) < 2:
        return np.full((len(below), len(below)), np.nan)
    parts = (np.atleast_2d(np.cov(each)) / each.shape[1] for each in (below, above))
    return sum(parts)
