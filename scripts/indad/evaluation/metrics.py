"""Image and pixel metrics, exact: no threshold grid, tied scores merged, one sort for all.

Scores are sorted once (`indad.evaluation.sorted_scores`). All curves (ROC, precision-recall,
per-region overlap) need only the scores of anomalous pixels: between two of them only false
positives are added, along a straight line. A curve of many pixels consists of several parts, one
after the other, and an area is the sum of the areas of the parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy  # loads its parts when they are used, not when a workflow is planned

from indad.evaluation.sorted_scores import SortedScores, scores_of

#: The metrics in the order tables show them.
IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05")
#: Metrics that are computed only for data sets that ask for them, without an interval.
OPTIONAL_METRICS = ("spro_05", "seg_f1")
METRICS = IMAGE_METRICS + PIXEL_METRICS + OPTIONAL_METRICS
#: Metrics that tables show only for data sets that ask for them.
EXTRA_METRICS = ("aupro_05", *OPTIONAL_METRICS)

#: Largest false positive rate of AUPRO (Bergmann et al., arXiv:1911.02357), and the stricter one of
#: ``aupro_05`` (MVTec AD 2, arXiv:2503.21622).
FPR_LIMIT = 0.3
LOW_FPR_LIMIT = 0.05
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
        start: false positives, true positives and overlap where this part of a curve begins.
    """

    threshold: np.ndarray
    fp_before: np.ndarray
    fp: np.ndarray
    tp: np.ndarray
    overlap: np.ndarray
    positives: int
    negatives: int
    start: tuple[int, int, float] = (0, 0, 0.0)

    @classmethod
    def from_scores(cls, scores: np.ndarray, regions: np.ndarray) -> ScoreCurve:
        """Sort scores in memory, as float32, and count.

        Args:
            scores: any shape; higher is more anomalous.
            regions: integers of the same shape: 0 for a negative, 1 to R for a positive of that
                region.

        Raises:
            ValueError: the shapes differ, a score is not finite, or there are no positives or no
                negatives.
        """
        return next(curve_parts(SortedScores.from_arrays(scores, regions)))

    def auroc(self) -> float:
        """Area under the ROC curve; ties count half."""
        return self._area(self.tp / self.positives, self.start[1] / self.positives, 1.0)

    def average_precision(self) -> float:
        """Mean precision over recall, in steps (as scikit-learn's average_precision_score)."""
        gained = np.diff(self.tp, prepend=self.start[1])
        return float(np.sum(gained * (self.tp / (self.tp + self.fp))) / self.positives)

    def f1_max(self) -> tuple[float, float]:
        """Return the largest F1 over all thresholds, and the highest threshold that reaches it."""
        f1 = 2 * self.tp / (self.tp + self.fp + self.positives)
        best = int(f1.argmax())
        return float(f1[best]), float(self.threshold[best])

    def aupro(self, fpr_limit: float = FPR_LIMIT) -> float:
        """Area under the per-region overlap curve up to ``fpr_limit``, divided by it."""
        return self._area(self.overlap, self.start[2], fpr_limit)

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false and true positive rates from (0, 0) to (1, 1), each ``(P,)``."""
        start = self.start[1] / self.positives
        return self._against_false_positives(self.tp / self.positives, start)

    def region_overlap(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false positive rates and mean per-region overlaps, each ``(P,)``."""
        return self._against_false_positives(self.overlap, self.start[2])

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return recalls, ascending, and the precision at each, ``(S + 1,)``.

        Drawn as steps at the height of their right end, the area below them is
        ``average_precision``. The first point repeats the first precision at recall 0.
        """
        precision = self.tp / (self.tp + self.fp)
        recall = np.r_[self.start[1], self.tp] / self.positives
        return recall, np.r_[precision[0], precision]

    def _against_false_positives(
        self, y: np.ndarray, start: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of a curve: straight lines join them."""
        before = np.r_[start, y[:-1]]
        # Before a step the curve is flat; the step is a slope if negatives tie with it.
        x = np.r_[self.start[0], np.stack([self.fp_before, self.fp], axis=1).ravel()]
        heights = np.r_[start, np.stack([before, y], axis=1).ravel()]
        if self.tp[-1] == self.positives:  # the last part
            x, heights = np.r_[x, self.negatives], np.r_[heights, y[-1]]
        return x / self.negatives, heights

    def _area(self, y: np.ndarray, start: float, limit: float) -> float:
        """Integrate ``y`` over the false positive rate up to ``limit``, divided by ``limit``."""
        rate, heights = self._against_false_positives(y, start)
        inside = int(np.searchsorted(rate, limit, side="right"))
        if not inside:  # this part begins beyond the limit
            return 0.0
        if inside < len(rate):
            left, right = inside - 1, inside
            share = (limit - rate[left]) / (rate[right] - rate[left])
            end = heights[left] + share * (heights[right] - heights[left])
            rate = np.r_[rate[:inside], limit]
            heights = np.r_[heights[:inside], end]
        return float(np.trapezoid(heights, rate) / limit)


def curve_parts(scores: SortedScores, saturation: np.ndarray | None = None) -> Iterator[ScoreCurve]:
    """Yield the curve of sorted scores: one part for each piece with positives.

    Args:
        scores: the scores.
        saturation: number of flagged pixels from which a region counts as completely found, for
            each region number, ``(R + 1,)``; by default its area. ``overlap`` is then saturated.

    Raises:
        ValueError: there are no positives or no negatives.
    """
    if not scores.positives or not scores.negatives:
        missing = "negatives" if scores.positives else "positives"
        raise ValueError(f"undefined: there are no {missing}")
    full = scores.area.astype(float) if saturation is None else saturation
    with np.errstate(divide="ignore"):
        weight = 1 / (np.count_nonzero(scores.area) * full)
    found = np.zeros(len(full), np.int64)  # flagged pixels of each region in earlier pieces
    passed, start = 0, (0, 0, 0.0)
    for piece in scores.pieces():
        if len(piece.positive):
            key, region = piece.positive_keys, piece.positive.astype(np.uint32)  # the lower half
            first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
            times = piece.positive_times
            gained = weight[region]
            if saturation is not None:
                gained *= _below_saturation(region, times, found, saturation)
            elif times is not None:
                gained *= times
            # A tie may hold negatives beside the positives.
            before, upto = (piece.negatives_before(key[first], side) for side in ("left", "right"))
            part = ScoreCurve(
                threshold=scores_of(key[first]).astype(float),
                fp_before=passed + before,
                fp=passed + upto,
                tp=start[1] + piece.positives_upto(np.r_[first[1:], len(key)]),
                overlap=start[2] + np.cumsum(np.add.reduceat(gained, first)),
                positives=scores.positives,
                negatives=scores.negatives,
                start=start,
            )
            yield part
            start = (int(part.fp[-1]), int(part.tp[-1]), float(part.overlap[-1]))
        passed += piece.negatives


def _below_saturation(
    region: np.ndarray, times: np.ndarray | None, found: np.ndarray, saturation: np.ndarray
) -> np.ndarray:
    """Return how many pixels of each element count, and add its pixels to ``found``."""
    import pandas as pd  # prediction uses this module, and does without pandas

    times = np.ones(len(region), int) if times is None else times
    upto = found[region] + pd.Series(times).groupby(region).cumsum().to_numpy()
    np.add.at(found, region, times)
    limit = saturation[region]
    return np.minimum(upto, limit) - np.minimum(upto - times, limit)


class LabelledMaps:
    """Anomaly maps with the numbers of the ground truth regions of their pixels.

    Args:
        maps: float32 ``(H, W)`` of each image; images may differ in size.
        masks: of the same images, 0 or 1.
        chosen: indices of the images to use; all of them by default.
    """

    def __init__(
        self,
        maps: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        chosen: Iterable[int] | None = None,
    ) -> None:
        self._maps, self._masks = maps, masks
        self._chosen = range(len(maps)) if chosen is None else [int(each) for each in chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the map and the regions of each image, numbered across all images from 1 on."""
        count = 0
        for i in self._chosen:
            mask = self._masks[i]
            numbered = np.zeros(mask.shape, np.int32)
            if mask.any():
                found = scipy.ndimage.label(mask, _EIGHT_CONNECTED, output=numbered)
                numbered[numbered > 0] += count
                count += found
            yield self._maps[i], numbered


def regions(masks: np.ndarray) -> np.ndarray:
    """Number the 8-connected regions of masks ``(N, H, W)`` across all images, 0 is background."""
    return np.stack([numbered for _, numbered in LabelledMaps(masks, masks)])


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
    curve = ScoreCurve.from_scores(scores, _check_labels(labels))
    values = (curve.auroc(), curve.average_precision(), curve.f1_max()[0])
    return dict(zip(IMAGE_METRICS, values, strict=True))


def pixel_metrics(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], *, folder: Path | None = None
) -> dict[str, float]:
    """Compute AUROC, average precision, F1-max and AUPRO of anomaly maps.

    AUPRO: mean flagged share of all 8-connected ground truth regions, as a function of the false
    positive rate over the normal pixels of all images, integrated up to ``FPR_LIMIT`` and divided
    by it (Bergmann et al., arXiv:1911.02357, section 5.1). ``aupro_05``: up to ``LOW_FPR_LIMIT``.

    Args:
        maps: float32 ``(H, W)`` of each image, higher is more anomalous.
        masks: ``(H, W)`` of each image, 0 or 1.
        folder: as for ``SortedScores``.

    Raises:
        ValueError: as ``ScoreCurve.from_scores``, or a mask value is neither 0 nor 1.
    """
    for mask in masks:
        _check_labels(mask)
    return pixel_values(SortedScores(LabelledMaps(maps, masks), folder))


def pixel_values(scores: SortedScores) -> dict[str, float]:
    """Compute the metrics of sorted pixels, as ``pixel_metrics``."""
    parts = [
        (
            part.auroc(), part.average_precision(), part.f1_max()[0],
            part.aupro(), part.aupro(LOW_FPR_LIMIT),
        )
        for part in curve_parts(scores)
    ]  # fmt: skip
    auroc, ap, f1, *overlaps = zip(*parts, strict=True)
    values = (sum(auroc), sum(ap), max(f1), *map(sum, overlaps))
    return dict(zip(PIXEL_METRICS, values, strict=True))
