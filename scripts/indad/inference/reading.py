"""From a photo, as a file or in memory, to the pixels that the backbone gets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from indad.core.errors import DataError
from indad.data.images import Geometry, decode, prepare

#: What can be scored: a path, a uint8 array ``(H, W, 3)`` or ``(H, W)``, a PIL image.
Photo = str | os.PathLike[str] | np.ndarray | Image.Image


def photo_name(photo: Photo) -> str | None:
    """Return the path of a photo, or None for pixels in memory."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def open_photo(photo: Photo) -> Image.Image:
    """Return a photo as a PIL image, upright.

    Raises:
        DataError: the file is missing or damaged, or the array is not an image.
    """
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        shape = photo.shape
        if photo.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
            raise DataError(
                f"an array of type {photo.dtype} and shape {shape} is not an image; give uint8 of "
                "shape (H, W, 3), in the order red, green, blue, or (H, W)"
            )
        if 0 in shape:
            raise DataError(f"an array of shape {shape} has no pixels")
        return Image.fromarray(photo)
    return decode(Path(photo))


class PhotoReader:
    """Reads photos with a model's resize and crop.

    Args:
        geometry: the resize and crop.
        input_size: the expected ``(H, W)`` of the result.
    """

    def __init__(self, geometry: Geometry, input_size: tuple[int, int]) -> None:
        self.geometry, self.input_size = geometry, input_size

    def read(self, photo: Photo) -> np.ndarray:
        """Return a photo as the backbone gets it: uint8 ``(H, W, 3)``.

        Raises:
            DataError: as `open_photo`, or the photo has another shape than those the model was
                fitted on and there is no crop.
        """
        name = photo_name(photo) or "an image in memory"
        try:
            pixels = prepare(open_photo(photo), self.geometry)
        except ValueError as error:
            raise DataError(f"{name}: {error}") from None
        if pixels.shape[:2] != self.input_size:
            (height, width), (rows, columns) = self.input_size, pixels.shape[:2]
            raise DataError(
                f"{name}: {columns} x {rows} pixels after the resize, but the model was fitted on "
                f"{width} x {height}, without a crop: only images of the same shape can be scored"
            )
        return pixels
