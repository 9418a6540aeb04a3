"""Confidence intervals that keep their coverage with few images and at a perfect value.

On MVTec AD an AUROC of 1.000 from 20 good images is common. Every resample of such scores is
perfect too, so a bootstrap gives AUROC = 1 a zero-width interval. Score intervals contain all true
values that a test would not reject given the observed one, and have a lower bound below 1. Their
coverage is simulated in ``scripts/dev/interval_coverage.py``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit
from scipy.stats import rankdata

Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


def score_interval(
    value: float, variance: float, *, level: float, images: int, most: float = math.inf
) -> Interval:
    """Wilson's score interval of a proportion with an effective number of observations.

    A metric of variance v counts like a proportion of ``value (1 - value) / v`` observations (Korn
    and Graubard 1998, for surveys, where images are the clusters). Student's t replaces the normal
    quantile, because the variance is itself estimated from few images.

    Args:
        value: value of the metric, in [0, 1].
        variance: variance of the metric over resamples.
        level: confidence level.
        images: number m of images of the class that the metric averages over. The bootstrap's
            variance is too small by a factor of (m - 1) / m.
        most: upper bound of the effective number. It is used if the variance is zero; if it is
            infinite, ``images`` is used instead.

    Returns:
        The bounds; NaN for one image, from which no variance can be estimated.
    """
    if images < 2:
        return UNKNOWN
    spread = value * (1 - value)
    variance *= images / (images - 1)
    if variance > 0 and spread > 0:
        count = min(spread / variance, most)
    else:
        count = most if math.isfinite(most) else images
    square = stdtrit(images - 1, (1 + level) / 2) ** 2 / count
    centre = (value + square / 2) / (1 + square)
    half = math.sqrt(square * max(spread, 0) + square**2 / 4) / (1 + square)
    low = 0.0 if value <= 0 else max(float(centre - half), 0.0)
    return low, 1.0 if value >= 1 else min(float(centre + half), 1.0)


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
    square = ndtri((1 + level) / 2) ** 2 * enlarged

    def surprise(auroc: float) -> float:
        return (auroc - value) ** 2 - square * expected(auroc)

    low = brentq(surprise, 0.0, min(value, 1 - near)) if value > near else 0.0
    high = brentq(surprise, max(value, near), 1.0) if value < 1 - near else 1.0
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
    both = rankdata(np.concatenate([bad, good], axis=-1), axis=-1)
    count = bad.shape[-1]
    below = (both[..., :count] - rankdata(bad, axis=-1)) / good.shape[-1]
    above = 1 - (both[..., count:] - rankdata(good, axis=-1)) / count
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
