"""Image and pixel metrics, exact: no threshold grid, tied scores merged, one sort for all.

Scores are sorted once. All curves (ROC, precision-recall, per-region overlap) need only the scores
of anomalous pixels: between two of them only false positives are added, along a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts when they are used, not when a workflow is planned

#: The metrics in the order tables show them.
IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")
METRICS = IMAGE_METRICS + PIXEL_METRICS

#: Largest false positive rate of AUPRO (Bergmann et al., arXiv:1911.02357).
FPR_LIMIT = 0.3
_EIGHT_CONNECTED = np.ones((3, 3), int)


@dataclass(frozen=True)
class ScoreCurve:
    """Counts at every distinct score that a positive has, from the highest score down.

    Attributes:
        threshold: the score of each step, float64 ``(S,)``; scores of at least that are flagged.
        fp_before: false positives with a higher score, ``(S,)``.
        fp: false positives at the threshold, ``(S,)``.
        tp: true positives at the threshold, ``(S,)``.
        overlap: mean per-region overlap at the threshold, ``(S,)``.
        positives: number of positives.
        negatives: number of negatives.
    """

    threshold: np.ndarray
    fp_before: np.ndarray
    fp: np.ndarray
    tp: np.ndarray
    overlap: np.ndarray
    positives: int
    negatives: int

    @classmethod
    def from_scores(cls, scores: np.ndarray, regions: np.ndarray) -> ScoreCurve:
        """Sort scores and count.

        Args:
            scores: any shape; higher is more anomalous.
            regions: integers of the same shape: 0 for a negative, 1 to R for a positive of that
                region.

        Raises:
            ValueError: the shapes differ, a score is not finite, or there are no positives or no
                negatives.
        """
        scores, regions = np.asarray(scores), np.asarray(regions)
        if scores.shape != regions.shape:
            raise ValueError(f"scores {scores.shape} and labels {regions.shape} differ in shape")
        scores, regions = scores.reshape(-1), regions.reshape(-1)
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")
        keys, values = _descending_keys(scores)
        packed = keys.astype(np.uint64)
        packed <<= np.uint64(32)
        packed |= regions.astype(np.uint64)
        packed.sort()

        region = packed.astype(np.uint32)  # the lower half
        at = np.flatnonzero(region)
        negatives = len(packed) - len(at)
        if not len(at) or not negatives:
            missing = "negatives" if len(at) else "positives"
            raise ValueError(f"undefined: there are no {missing}")
        region = region[at]
        key = (packed[at] >> np.uint64(32)).astype(np.uint32)
        first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        step = key[first].astype(np.uint64)
        tp = np.r_[first[1:], len(at)]
        tp_before = np.r_[0, tp[:-1]]
        # A tie may hold negatives beside the positives: count all scores above it and up to it.
        above = np.searchsorted(packed, step << np.uint64(32))
        upto = np.searchsorted(packed, (step + np.uint64(1)) << np.uint64(32))
        upto[step == np.iinfo(np.uint32).max] = len(packed)
        area = np.bincount(region)
        with np.errstate(divide="ignore"):
            weight = 1 / (np.count_nonzero(area) * area.astype(float))
        return cls(
            threshold=values(step.astype(np.uint32)),
            fp_before=above - tp_before,
            fp=upto - tp,
            tp=tp,
            overlap=np.cumsum(np.add.reduceat(weight[region], first)),
            positives=len(at),
            negatives=negatives,
        )

    def auroc(self) -> float:
        """Area under the ROC curve; ties count half."""
        return self._area(self.tp / self.positives, 1.0)

    def average_precision(self) -> float:
        """Mean precision over recall, in steps (as scikit-learn's average_precision_score)."""
        gained = np.diff(self.tp, prepend=0)
        return float(np.sum(gained * (self.tp / (self.tp + self.fp))) / self.positives)

    def f1_max(self) -> tuple[float, float]:
        """Return the largest F1 over all thresholds, and the highest threshold that reaches it."""
        f1 = 2 * self.tp / (self.tp + self.fp + self.positives)
        best = int(f1.argmax())
        return float(f1[best]), float(self.threshold[best])

    def aupro(self, fpr_limit: float = FPR_LIMIT) -> float:
        """Area under the per-region overlap curve up to ``fpr_limit``, divided by it."""
        return self._area(self.overlap, fpr_limit)

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false and true positive rates from (0, 0) to (1, 1), each ``(P,)``."""
        return self._against_false_positives(self.tp / self.positives)

    def region_overlap(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false positive rates and mean per-region overlaps, each ``(P,)``."""
        return self._against_false_positives(self.overlap)

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return recalls, ascending, and the precision at each, ``(S + 1,)``.

        Drawn as steps at the height of their right end, the area below them is
        ``average_precision``. The first point repeats the first precision at recall 0.
        """
        precision = self.tp / (self.tp + self.fp)
        return np.r_[0.0, self.tp / self.positives], np.r_[precision[0], precision]

    def _against_false_positives(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of a curve: straight lines join them."""
        before = np.r_[0.0, y[:-1]]
        # Before a step the curve is flat; the step is a slope if negatives tie with it.
        x = np.r_[0, np.stack([self.fp_before, self.fp], axis=1).ravel(), self.negatives]
        heights = np.r_[0.0, np.stack([before, y], axis=1).ravel(), y[-1]]
        return x / self.negatives, heights

    def _area(self, y: np.ndarray, limit: float) -> float:
        """Integrate ``y`` over the false positive rate from 0 to ``limit``, over ``limit``."""
        rate, heights = self._against_false_positives(y)
        inside = int(np.searchsorted(rate, limit, side="right"))
        if inside < len(rate):
            left, right = inside - 1, inside
            share = (limit - rate[left]) / (rate[right] - rate[left])
            end = heights[left] + share * (heights[right] - heights[left])
            rate = np.r_[rate[:inside], limit]
            heights = np.r_[heights[:inside], end]
        return float(np.trapezoid(heights, rate) / limit)


def _descending_keys(scores: np.ndarray):
    """Map scores to uint32 that ascend as the scores descend; return also the inverse function.

    The bits of a float32, read as an integer, have the same order once the sign is handled. Other
    types are mapped by rank.
    """
    if scores.dtype == np.float32:
        bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 + 0 is 0.0: the two tie
        negative = bits >> np.uint32(31) != 0
        keys = ~np.where(negative, ~bits, bits | np.uint32(1 << 31))

        def values(key: np.ndarray) -> np.ndarray:
            key = ~key
            positive = key >> np.uint32(31) != 0
            back = np.where(positive, key & np.uint32((1 << 31) - 1), ~key)
            return back.view(np.float32).astype(float)

        return keys, values
    distinct, rank = np.unique(-scores.astype(float), return_inverse=True)
    return rank.astype(np.uint32), lambda key: -distinct[key]


def regions(masks: np.ndarray) -> np.ndarray:
    """Number the 8-connected regions of masks ``(N, H, W)`` across all images, 0 is background."""
    numbered = np.zeros(masks.shape, np.int32)
    count = 0
    for image, mask in zip(numbered, masks, strict=True):
        if mask.any():
            found = scipy.ndimage.label(mask, _EIGHT_CONNECTED, output=image)
            image[image > 0] += count
            count += found
    return numbered


def _check_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (anomalous)")
    return labels.astype(np.uint32)


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Compute AUROC, average precision and F1-max of image scores.

    Args:
        labels: ``(N,)``, 0 good or 1 anomalous.
        scores: ``(N,)``, higher is more anomalous.

    Raises:
        ValueError: as ``ScoreCurve.from_scores``, or a label is neither 0 nor 1.
    """
    curve = ScoreCurve.from_scores(np.asarray(scores), _check_labels(labels))
    values = (curve.auroc(), curve.average_precision(), curve.f1_max()[0])
    return dict(zip(IMAGE_METRICS, values, strict=True))


def pixel_metrics(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Compute AUROC, average precision, F1-max and AUPRO of anomaly maps.

    AUPRO: mean flagged share of all 8-connected ground truth regions, as a function of the false
    positive rate over the normal pixels of all images, integrated up to ``FPR_LIMIT`` and divided
    by it (Bergmann et al., arXiv:1911.02357, section 5.1).

    Args:
        maps: ``(N, H, W)``, higher is more anomalous.
        masks: ``(N, H, W)``, 0 or 1.

    Raises:
        ValueError: as ``ScoreCurve.from_scores``, or a mask value is neither 0 nor 1.
    """
    numbered = regions(_check_labels(masks))
    curve = ScoreCurve.from_scores(np.asarray(maps), numbered)
    values = (curve.auroc(), curve.average_precision(), curve.f1_max()[0], curve.aupro())
    return dict(zip(PIXEL_METRICS, values, strict=True))
