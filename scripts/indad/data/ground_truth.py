"""The ground truth of a category's test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Labels and masks of the test images.

    Attributes:
        image: names, ``(N,)``.
        label: 0 good, 1 defective, ``(N,)``.
        defect: names, ``(N,)``.
        has_mask: whether the mask is known, ``(N,)``: False for a defective image without a mask
            file; True for good images, whose mask is empty.
        mask: bool ``(H, W)`` of each image, True on defects.
    """

    image: np.ndarray
    label: np.ndarray
    defect: np.ndarray
    has_mask: np.ndarray
    mask: Sequence[np.ndarray]
