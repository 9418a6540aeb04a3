"""Resamples of every metric: a stratified bootstrap over the test images.

Good and defective images are drawn separately with replacement, so every resample has as many of
each as the test set. An image is drawn with all its pixels and ground truth regions. A resample is
therefore an integer weight per image, and its curves are weighted sums of the curves of single
images. These are counted once at a few thousand thresholds; all resamples are then one matrix
product.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from indad.evaluation.metrics import FPR_LIMIT, LOW_FPR_LIMIT
from indad.evaluation.sorted_scores import Piece, SortedScores, scores_of

#: Increased when the same scores would get other resamples or other intervals.
VERSION = 3
#: Maximum number of thresholds; with fewer distinct scores, every score is a threshold.
MOST_THRESHOLDS = 4096
#: Number of resamples whose curves are in memory at a time.
_ROWS = 64


class Images(Sized, Iterable[tuple[np.ndarray, np.ndarray]], Protocol):
    """Scores and regions of images, which can be read several times."""


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
        single: whether only one score is between a threshold and the next higher one, ``(T,)``.
    """

    fp: np.ndarray
    tp: np.ndarray
    overlap: np.ndarray
    single: np.ndarray

    @classmethod
    def from_scores(
        cls, scores: np.ndarray, regions: np.ndarray, most: int = MOST_THRESHOLDS
    ) -> Self:
        """Count every image's scores, as float32, in memory.

        Args:
            scores: ``(N, ...)``, higher is more anomalous.
            regions: the same shape: 0 for a negative, else the number of its region. A region is
                within one image.
            most: maximum number of thresholds.
        """
        count = len(scores)
        scores = np.asarray(scores, np.float32).reshape(count, -1)
        regions = regions.reshape(count, -1)
        ordered = SortedScores.from_arrays(scores, regions)
        return cls.from_images(list(zip(scores, regions, strict=True)), ordered, most)

    @classmethod
    def from_images(
        cls, images: Images, ordered: SortedScores, most: int = MOST_THRESHOLDS
    ) -> Self:
        """Count the scores of images that are read one after the other.

        Args:
            images: per image its scores and regions, as for `SortedScores`.
            ordered: the same scores, sorted.
            most: maximum number of thresholds.
        """
        thresholds, single = _thresholds(ordered, most)
        shape = (len(images), len(thresholds))
        fp, tp, overlap = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        ascending = thresholds[::-1]
        for i, (values, region) in enumerate(images):
            positive = region > 0
            fp[i] = _at_least(np.sort(values[~positive]), ascending)
            if positive.any():
                found, region = values[positive], region[positive]
                order = np.argsort(found)
                flagged = _at_least(found[order], ascending)
                shares = np.cumsum(1 / ordered.area[region[order[::-1]]])
                tp[i] = flagged
                overlap[i] = np.concatenate([[0], shares])[flagged]
        return cls(fp, tp, overlap, single)

    def metrics(self, weights: np.ndarray) -> np.ndarray:
        """Compute the pixel metrics of weighted images, in the order of ``PIXEL_METRICS``.

        Args:
            weights: ``(B, N)``.

        Returns:
            ``(5, B)``; NaN where a resample has no positive or no negative.
        """
        return self._in_blocks(len(weights), lambda rows: weights[rows])

    def left_out(self) -> np.ndarray:
        """Compute the metrics without each image in turn, ``(5, N)``."""
        count = len(self.fp)
        return self._in_blocks(
            count, lambda rows: 1 - np.eye(rows.stop - rows.start, count, rows.start)
        )

    def _in_blocks(self, count: int, weights: Callable[[slice], np.ndarray]) -> np.ndarray:
        rows = [slice(i, min(i + _ROWS, count)) for i in range(0, count, _ROWS)]
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [self._metrics(weights(each)) for each in rows]
        return np.concatenate(parts, axis=1) if parts else np.empty((5, 0))

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
        rate, share = fp / negatives, overlap / regions
        auroc = _area(rate, tp / positives, 1.0)
        overlaps = [_area(rate, share, limit) for limit in (FPR_LIMIT, LOW_FPR_LIMIT)]
        return np.stack([auroc, ap, f1, *overlaps])


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


def _thresholds(ordered: SortedScores, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose thresholds from the highest score to the lowest; return also which hold one score.

    One third are quantiles of the positives, one third quantiles of the regions, one sixth
    quantiles of the negatives up to the false positive rate limit of AUPRO, and one sixth have
    geometrically spaced ranks among the negatives, because a precision depends on the few negatives
    that score highest. If there are few positives, each of them is a threshold and the result is
    exact.
    """
    everything = _distinct(ordered, most, lambda piece: (piece.negative, piece.positive_keys))
    if len(everything) <= most:
        return scores_of(everything), np.ones(len(everything), bool)
    part = most // 6
    steps = np.linspace(0, 1, part)
    last = ordered.negatives - 1
    own = _distinct(ordered, 2 * part, lambda piece: (piece.positive_keys,))
    if len(own) > 2 * part:
        own = _positive_quantiles(ordered, steps)
    ranks = np.concatenate(
        [
            (steps * FPR_LIMIT * last).astype(int),
            (np.geomspace(1, last + 1, part) - 1).astype(int).clip(max=last),
            [last],
        ]
    )
    others = ordered.negatives_at(ranks)
    others = np.r_[others[:-1], everything[0], max(others[-1], own[-1])]
    own, others = scores_of(own), scores_of(others)
    distinct, times = np.unique(others, return_counts=True)
    # A second threshold just above the score of a positive isolates that score: ties of many images
    # are exact, and the remaining intervals have no bias. The same applies to a score of negatives
    # that was chosen several times, which is a tie of many.
    top = np.array(np.inf, others.dtype)
    above = np.nextafter(np.union1d(own, distinct[times > 2]), top)
    thresholds = np.unique(np.concatenate([own, distinct, above[above <= distinct[-1]]]))
    single = np.zeros(len(thresholds), bool)
    single[:-1] = thresholds[1:] == np.nextafter(thresholds[:-1], top)
    # Only the highest score is above the last threshold.
    single[-1] = True
    return thresholds[::-1], single[::-1]


def _distinct(
    ordered: SortedScores, most: int, keys: Callable[[Piece], tuple[np.ndarray, ...]]
) -> np.ndarray:
    """Return the distinct keys, ascending; only the first ones if there are more than ``most``."""
    found = np.empty(0, np.uint32)
    for piece in ordered.pieces():
        for each in keys(piece):
            new = each[np.r_[True, each[1:] != each[:-1]]] if len(each) else each
            found = np.union1d(found, new[: most + 1]).astype(np.uint32)
        if len(found) > most:
            break
    return found


def _positive_quantiles(ordered: SortedScores, steps: np.ndarray) -> np.ndarray:
    """Return keys of positives: quantiles of all positives and of the regions, one after other."""
    keys, chosen, before, share = [], [], 0, 0.0
    ranks = (steps * (ordered.positives - 1)).astype(int)
    regions = np.count_nonzero(ordered.area)
    for piece in ordered.pieces():
        if not len(piece.positive):
            continue
        key = piece.positive_keys
        times = np.ones(1, int) if piece.positive_times is None else piece.positive_times
        last = before + piece.positives_upto(np.arange(1, len(key) + 1))
        inside = ranks[(ranks >= before) & (ranks < last[-1])]
        keys.append(key[np.searchsorted(last, inside, "right")])
        shares = share + np.cumsum(times / ordered.area[piece.positive.astype(np.uint32)])
        inside = steps[(steps * regions > share) & (steps * regions <= shares[-1])]
        chosen.append(key[np.searchsorted(shares, inside * regions)])
        before, share, end = int(last[-1]), float(shares[-1]), key[-1:]
    return np.unique(np.concatenate([*keys, *chosen, end, keys[0][:1]]))
