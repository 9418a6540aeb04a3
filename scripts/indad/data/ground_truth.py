"""The ground truth of a category's test images."""

from __future__ import annotations

import numpy as np


class GroundTruth:
    """What is known of the test images.

    Attributes:
        image, defect: names, ``(N,)``.
        label: 0 good, 1 defective, ``(N,)``.
        has_mask: whether a defective image has a mask, ``(N,)``; True for good images, whose mask
            is known to be empty.
        mask: bool ``(N, H, W)``, True on defects.
    """

    def __init__(
        self,
        image: np.ndarray,
        label: np.ndarray,
        defect: np.ndarray,
        has_mask: np.ndarray,
        mask: np.ndarray,
    ) -> None:
        self.image, self.label, self.defect = image, label, defect
        self.has_mask, self.mask = has_mask, mask
