"""Resamples of every metric: a stratified bootstrap over the test images.

Good and defective images are drawn separately, each with replacement, so that every resample has
as many of both as the test set; all pixels and ground truth regions of an image go with it. A
resample is thus a weight for each image, a whole number, and its curves are weighted sums of the
images' own: counted once, at a few thousand thresholds, all resamples are one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indad.evaluation.metrics import FPR_LIMIT

#: Counts up when the same scores would get other resamples or other intervals.
VERSION = 1
#: Most thresholds at which images are counted; with fewer distinct scores, each is one.
MOST_THRESHOLDS = 4096
#: Resamples whose curves are held at once.
_ROWS = 64


def draws(labels: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw images with replacement within each label.

    The same labels, number and seed give the same draws, whatever was measured on the images: this
    is what makes resamples of two experiments comparable one by one.

    Args:
        labels: ``(N,)``, the stratum of each image.
        resamples: number B of resamples.
        seed: of the random numbers.

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
    """What each image adds to the curves at common thresholds, from the highest down.

    Attributes:
        fp, tp: negatives and positives that score at least the threshold, ``(N, T)``.
        overlap: the same of regions, each counting by the share that is flagged, ``(N, T)``.
        single: whether only one score lies between a threshold and the one above, ``(T,)``.
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
            regions: the same shape: 0 for a negative, else the number of its region, which lies in
                one image.
            most: thresholds to use at most.
        """
        count = len(scores)
        scores, regions = scores.reshape(count, -1), regions.reshape(count, -1)
        area = np.bincount(regions.reshape(-1))
        thresholds, single = _thresholds(scores, regions, area, most)
        if scores.shape[1] == 1:  # image scores: no need to go through them one by one
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
        # The last threshold is the lowest score: there, everything is flagged.
        positives, negatives, regions = tp[:, -1:], fp[:, -1:], overlap[:, -1:]
        fp_before, tp_before = _before(fp), _before(tp)
        gained = tp - tp_before
        # Among several scores between two thresholds, positives and negatives lie mixed.
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
    """Choose thresholds from the highest score to the lowest, and tell which hold one score.

    A third of them cuts the positives into equal parts, a third the regions, a sixth the negatives
    up to the false positive rate that AUPRO ends at, and a sixth runs through the negatives in
    equal ratios, because a precision hangs on the few that score highest. Where there are few
    positives, each is a threshold, and nothing is lost.
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
    # A threshold just above a positive's has that score alone between the two: a tie of many is
    # exact, and what is left between thresholds leans to neither side. The same for a negative's
    # score that was chosen again and again.
    top = np.array(np.inf, everything.dtype)
    above = np.nextafter(np.union1d(own, distinct[times > 2]), top)
    thresholds = np.unique(np.concatenate([own, distinct, above[above <= everything[-1]]]))
    single = np.zeros(len(thresholds), bool)
    single[:-1] = thresholds[1:] == np.nextafter(thresholds[:-1], top)
    # The highest score is alone above the last threshold.
    single[-1] = True
    return thresholds[::-1], single[::-1]
