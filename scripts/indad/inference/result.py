"""What scoring an image gives: its scores, and the regions above the threshold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from indad.core.errors import IndadError
from indad.data.images import Geometry, Size
from indad.methods.anomaly_map import on_image, strips


class FileState(NamedTuple):
    """Which state of a file was scored.

    Attributes:
        bytes: its size.
        modified: when it was modified, UTC, as ``2026-11-25T09:30:00.123456789Z``.
    """

    bytes: int
    modified: str


def file_state(status: os.stat_result) -> FileState:
    """Return the state of a file; its time is exact to the nanosecond."""
    seconds, fraction = divmod(status.st_mtime_ns, 10**9)
    time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return FileState(status.st_size, f"{time}.{fraction:09d}Z")


class Region(NamedTuple):
    """A connected region of the pixels above the threshold, in pixels of the image itself.

    Attributes:
        left, top, right, bottom: its bounding box, ``right`` and ``bottom`` exclusive.
        area: its number of pixels.
        peak: the highest value of the anomaly map in it.
    """

    left: int
    top: int
    right: int
    bottom: int
    area: int
    peak: float


@dataclass(frozen=True)
class Result:
    """The scores of one image.

    `map_full`, `mask` and `boxes` are at the image's own size, after its EXIF orientation. They are
    computed at each access.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        score: the image's anomaly score; higher is more anomalous.
        map: float32 ``(H, W)`` at the model's input size: the anomaly map of the resized and
            cropped image, as in the workflow's ``maps.h5``.
        threshold: scores above it are anomalous; None if there is no threshold.
        anomalous: whether ``score`` is above ``threshold``; None if there is no threshold.
        seconds: this image's share of the time of its batch, from decoding to the score.
        size: ``(height, width)`` of the image itself in pixels.
        pixel_threshold: map values above it are anomalous; None if there is no such threshold.
        state: which state of the file was scored; None for pixels in memory.
    """

    image: str | None
    score: float
    map: np.ndarray
    threshold: float | None
    anomalous: bool | None
    seconds: float
    size: Size
    pixel_threshold: float | None
    state: FileState | None
    geometry: Geometry = field(repr=False)

    @property
    def map_full(self) -> np.ndarray:
        """The anomaly map, float32 ``(height, width)``; NaN outside the centre crop."""
        return on_image(self.map, self.geometry, *self.size)

    @property
    def mask(self) -> np.ndarray | None:
        """The pixels above the threshold, bool ``(height, width)``; None without a threshold."""
        if self.pixel_threshold is None:
            return None
        top, left, bottom, right = self.geometry.window(*self.size)
        mask = np.zeros(self.size, bool)
        mask[top:bottom, left:right] = above_threshold(
            self.map, self.pixel_threshold, bottom - top, right - left
        )
        return mask

    @property
    def boxes(self) -> list[Region] | None:
        """The regions of `mask`, highest peak first; pixels that touch at a corner are connected.

        None without a threshold.
        """
        if self.pixel_threshold is None:
            return None
        values = self.map_full
        labels, _ = ndimage.label(values > self.pixel_threshold, np.ones((3, 3)))
        found = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = values[rows, columns][labels[rows, columns] == number]
            box = (columns.start, rows.start, columns.stop, rows.stop)
            found.append(Region(*box, inside.size, float(inside.max())))
        return sorted(found, key=lambda region: -region.peak)


@dataclass(frozen=True)
class Failure:
    """An image that could not be scored.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        error: what is wrong with it.
        state: which state of the file could not be scored, if it could be found.
    """

    image: str | None
    error: IndadError
    state: FileState | None = None


def above_threshold(values: np.ndarray, threshold: float, height: int, width: int) -> np.ndarray:
    """Return the pixels above a threshold, as `on_image` resizes them: bool, without its border."""
    above = np.empty((height, width), bool)
    for rows, part in strips(Image.fromarray(np.float32(values)), height, width):
        above[rows] = np.asarray(part) > threshold
    return above


def state_of(path: str | os.PathLike[str]) -> FileState | None:
    """Return the state of a file now; None if there is none."""
    try:
        return file_state(Path(path).stat())
    except OSError:
        return None
