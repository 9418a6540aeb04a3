"""What scoring an image gives: a result, or a failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indad.core.errors import DataError


@dataclass(frozen=True)
class Result:
    """The scores of one image.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        score: the image's anomaly score; higher is more anomalous.
        map: float32 ``(H, W)`` at the model's input size: the anomaly map of the resized and
            cropped image, as in the workflow's ``maps.h5``.
        threshold: scores above it are anomalous; None if there is no threshold.
        anomalous: whether ``score`` is above ``threshold``; None if there is no threshold.
        seconds: this image's share of the time of its batch, from decoding to the score.
    """

    image: str | None
    score: float
    map: np.ndarray
    threshold: float | None
    anomalous: bool | None
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An image that could not be scored.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        error: what is wrong with it.
    """

    image: str | None
    error: DataError
