"""MVTec AD 2's SegF1: F1 of pixels at a threshold that is chosen without defective images.

Heckler-Kram et al., arXiv:2503.21622. The threshold is the mean of the map values of good images
plus three standard deviations. The authors take the good validation images; here they are the good
test images, because a validation split is not read.
"""

import math
from collections.abc import Iterable

import numpy as np

from indad.evaluation.scores import UNSEEN

#: Standard deviations above the mean of good images.
DEVIATIONS = 3.0


def threshold(maps: Iterable[np.ndarray]) -> np.float32:
    """Return the mean of the values of maps plus three standard deviations; NaN without values.

    Pixels outside the crop (`scores.UNSEEN`) are left out.

    Args:
        maps: float32 ``(H, W)`` of good images.
    """
    count, mean, squares = 0, 0.0, 0.0
    for each in maps:
        values = each[each > UNSEEN].astype(float)
        if not len(values):
            continue
        # The mean and the sum of squared deviations of two sets together (Chan et al., 1979).
        shift, total = values.mean() - mean, count + len(values)
        squares += values.var() * len(values) + shift**2 * count * len(values) / total
        mean += shift * len(values) / total
        count = total
    deviation = math.sqrt(squares / count) if count else math.nan
    return np.float32(mean + DEVIATIONS * deviation)


def f1(images: Iterable[tuple[np.ndarray, np.ndarray]], at: np.float32) -> float:
    """Compute the F1 of the pixels of all images; a pixel is flagged if its value is above ``at``.

    Args:
        images: per image its map, float32 ``(H, W)``, and its mask, bool ``(H, W)``.
        at: the threshold.

    Returns:
        NaN if ``at`` is NaN, or if no pixel is defective or flagged.
    """
    flagged = defective = both = 0
    for values, mask in images:
        above = values > at
        flagged += np.count_nonzero(above)
        defective += np.count_nonzero(mask)
        both += np.count_nonzero(above & mask)
    if np.isnan(at) or not flagged + defective:
        return math.nan
    return 2 * both / (flagged + defective)
