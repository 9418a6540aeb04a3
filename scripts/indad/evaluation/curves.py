"""Points of the ROC, precision-recall and PRO curves: exact, and thinned for drawing."""

from __future__ import annotations

import numpy as np

from indad.evaluation.metrics import ScoreCurve

#: Maximum distance of a thinned curve from the exact one, in x and y: a third of a pixel.
TOLERANCE = 1e-3


def roc(curve: ScoreCurve) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates from (0, 0) to (1, 1), each ``(P,)``.

    The area below the straight lines between them is ``curve.auroc()``.
    """
    return _against_false_positives(curve, curve.tp / curve.positives)


def region_overlap(curve: ScoreCurve) -> tuple[np.ndarray, np.ndarray]:
    """Return false positive rates and mean per-region overlaps (Bergmann et al., 1911.02357)."""
    return _against_false_positives(curve, curve.overlap)


def precision_recall(curve: ScoreCurve) -> tuple[np.ndarray, np.ndarray]:
    """Return recalls, ascending, and the precision at each, ``(S + 1,)``.

    Drawn as steps at the height of their right end, the area below them is
    ``curve.average_precision()``. The first point repeats the first precision at recall 0.
    """
    precision = curve.tp / (curve.tp + curve.fp)
    return np.r_[0.0, curve.tp / curve.positives], np.r_[precision[0], precision]


def _against_false_positives(curve: ScoreCurve, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before = np.r_[0.0, y[:-1]]
    x = np.r_[0, np.stack([curve.fp_before, curve.fp], axis=1).ravel(), curve.negatives]
    heights = np.r_[0.0, np.stack([before, y], axis=1).ravel(), y[-1]]
    return x / curve.negatives, heights


def thin(
    x: np.ndarray, y: np.ndarray, tolerance: float = TOLERANCE
) -> tuple[np.ndarray, np.ndarray]:
    """Remove points of a curve without a visible change.

    The curve is divided where ``x`` or ``y`` has changed by ``tolerance``, and the ends of each
    piece are kept. A million points become a few thousand.
    """
    if len(x) < 1 / tolerance:
        return x, y
    piece = np.floor(x / tolerance) + 2 / tolerance * np.floor(y / tolerance)
    start = np.flatnonzero(np.r_[True, piece[1:] != piece[:-1]])
    end = np.r_[start[1:] - 1, len(x) - 1]
    keep = np.unique(np.concatenate([start, end]))
    return x[keep], y[keep]
