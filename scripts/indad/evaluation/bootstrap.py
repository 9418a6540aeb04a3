"""Resamples of every metric: a stratified bootstrap over the test images.

Good and defective images are drawn separately with replacement, so every resample has as many of
each as the test set. An image is drawn with all its pixels and ground truth regions. A resample is
therefore an integer weight per image, and its curves are weighted sums of the curves of single
images. These are counted once at a few thousand thresholds; all resamples are then one matrix
product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indad.evaluation.metrics import FPR_LIMIT

#: Increased when the same scores would get other resamples or other intervals.
VERSION = 2
#: Maximum number of thresholds; with fewer distinct scores, every score is a threshold.
MOST_THRESHOLDS = 4096
#: Number of resamples whose curves are in memory at a time.
_ROWS = 64


def draws(labels: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw images with replacement within each label.

    The draws depend only on the labels, the number and the seed, not on the scores. Resamples of
    two experiments on the same images are therefore paired.

    Args:
        labels: ``(N,)``, the stratum of each image.
        resamples: number B of resamples.
        seed: seed of the random numbers.

    Returns:
        How often each image is drawn, float64 ``(B, N)``.
    """
    labels = np.asarray(labels)
    weights = np.zeros((resamples, len(labels)))
    for number, stratum in enumerate(np.unique(labels)):
        members = np.flatnonzero(labels == stratum)
        rng = np.random.default_rng([seed, number])
        weights[:, members] = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), resamples
        )
    return weights


@dataclass(frozen=True)
class ImageCounts:
    """Counts of each image at common thresholds, from the highest threshold to the lowest.

    Attributes:
        fp, tp: negatives and positives that score at least the threshold, ``(N, T)``.
        overlap: sum over regions of the flagged share of each region, ``(N, T)``.
        single: whether only one score lies between a threshold and the next higher one, ``(T,)``.
    """

    fp: np.ndarray
    tp: np.ndarray
    overlap: np.ndarray
    single: np.ndarray

    @classmethod
    def from_scores(
        cls, scores: np.ndarray, regions: np.ndarray, most: int = MOST_THRESHOLDS
    ) -> ImageCounts:
        """Count every image's scores.

        Args:
            scores: ``(N, ...)``, higher is more anomalous.
            regions: the same shape: 0 for a negative, else the number of its region. A region lies
                within one image.
            most: maximum number of thresholds.
        """
        count = len(scores)
        scores, regions = scores.reshape(count, -1), regions.reshape(count, -1)
        area = np.bincount(regions.reshape(-1))
        thresholds, single = _thresholds(scores, regions, area, most)
        if scores.shape[1] == 1:  # image scores need no loop over images
            flagged = scores >= thresholds
            tp = (flagged & (regions > 0)).astype(float)
            return cls(flagged - tp, tp, tp / np.maximum(area[regions], 1), single)
        shape = (count, len(thresholds))
        fp, tp, overlap = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        ascending = thresholds[::-1]
        for i, (values, region) in enumerate(zip(scores, regions, strict=True)):
            positive = region > 0
            fp[i] = _at_least(np.sort(values[~positive]), ascending)
            if positive.any():
                found, region = values[positive], region[positive]
                order = np.argsort(found)
                flagged = _at_least(found[order], ascending)
                shares = np.cumsum(1 / area[region[order[::-1]]])
                tp[i] = flagged
                overlap[i] = np.concatenate([[0], shares])[flagged]
        return cls(fp, tp, overlap, single)

    def metrics(self, weights: np.ndarray) -> np.ndarray:
        """Compute AUROC, average precision, F1-max and AUPRO of weighted images.

        Args:
            weights: ``(B, N)``.

        Returns:
            ``(4, B)``; NaN where a resample has no positive or no negative.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [self._metrics(weights[i : i + _ROWS]) for i in range(0, len(weights), _ROWS)]
        return np.concatenate(parts, axis=1) if parts else np.empty((4, 0))

    def _metrics(self, weights: np.ndarray) -> np.ndarray:
        fp, tp, overlap = (weights @ each for each in (self.fp, self.tp, self.overlap))
        # The last threshold is the lowest score, where everything is flagged.
        positives, negatives, regions = tp[:, -1:], fp[:, -1:], overlap[:, -1:]
        fp_before, tp_before = _before(fp), _before(tp)
        gained = tp - tp_before
        # Several scores between two thresholds: assume positives and negatives in mixed order.
        flagged = np.where(self.single, tp, (tp + tp_before) / 2)
        wrong = np.where(self.single, fp, (fp + fp_before) / 2)
        precision = np.where(gained > 0, flagged / (flagged + wrong), 0)
        ap = (gained * precision).sum(axis=1) / positives[:, 0]
        f1 = (2 * tp / (tp + fp + positives)).max(axis=1)
        auroc = _area(fp / negatives, tp / positives, 1.0)
        return np.stack([auroc, ap, f1, _area(fp / negatives, overlap / regions, FPR_LIMIT)])


def _at_least(ascending: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the values of at least each threshold; both ascend, the counts too."""
    return (len(ascending) - np.searchsorted(ascending, thresholds))[::-1]


def _before(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(counts), 1)), counts[:, :-1]], axis=1)


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> np.ndarray:
    """Integrate ``y (B, T)`` over ``x`` from 0 to ``limit``, over ``limit``."""
    x_before, y_before = _before(x), _before(y)
    start, stop = np.minimum(x_before, limit), np.minimum(x, limit)
    if limit < 1:
        share = np.divide(stop - x_before, x - x_before, out=np.ones_like(x), where=x > x_before)
        y = y_before + (y - y_before) * share
    return ((stop - start) * (y_before + y)).sum(axis=1) / (2 * limit)


def _thresholds(
    scores: np.ndarray, regions: np.ndarray, area: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose thresholds from the highest score to the lowest; return also which hold one score.

    One third are quantiles of the positives, one third quantiles of the regions, one sixth
    quantiles of the negatives up to the false positive rate limit of AUPRO, and one sixth have
    geometrically spaced ranks among the negatives, because a precision depends on the few negatives
    that score highest. If there are few positives, each of them is a threshold and the result is
    exact.
    """
    everything = np.sort(scores, axis=None)
    new = np.concatenate([[True], everything[1:] != everything[:-1]])
    if np.count_nonzero(new) <= most:
        distinct = everything[new][::-1]
        return distinct, np.ones(len(distinct), bool)
    positive = regions > 0
    found, region = scores[positive], regions[positive]
    order = np.argsort(found)[::-1]
    found = found[order]
    shares = np.cumsum(1 / area[region[order]])
    negative = np.sort(scores[~positive])[::-1]
    part = most // 6
    steps = np.linspace(0, 1, part)
    last = len(negative) - 1
    own = np.unique(found)
    if len(own) > 2 * part:
        at_positives = found[(steps * (len(found) - 1)).astype(int)]
        at_regions = found[np.searchsorted(shares, steps * shares[-1]).clip(max=len(found) - 1)]
        own = np.union1d(at_positives, at_regions)
    others = np.concatenate(
        [
            negative[(steps * FPR_LIMIT * last).astype(int)],
            negative[(np.geomspace(1, last + 1, part) - 1).astype(int).clip(max=last)],
            everything[[0, -1]],
        ]
    )
    distinct, times = np.unique(others, return_counts=True)
    # A second threshold just above the score of a positive isolates that score: ties of many images
    # are exact, and the remaining intervals have no bias. The same applies to a score of negatives
    # that was chosen several times, which is a tie of many.
    top = np.array(np.inf, everything.dtype)
    above = np.nextafter(np.union1d(own, distinct[times > 2]), top)
    thresholds = np.unique(np.concatenate([own, distinct, above[above <= everything[-1]]]))
    single = np.zeros(len(thresholds), bool)
    single[:-1] = thresholds[1:] == np.nextafter(thresholds[:-1], top)
    # Only the highest score is above the last threshold.
    single[-1] = True
    return thresholds[::-1], single[::-1]
