"""Upsample and smooth the patch distances of a coarse grid to an anomaly map at the input size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from indad.data.images import Geometry

if TYPE_CHECKING:
    import torch

#: Standard deviation of the smoothing in pixels, and radius of the kernel in standard deviations:
#: the values in the code of all three papers.
SIGMA = 4.0
TRUNCATE = 4.0
#: Rows of an image that are processed together.
STRIP_ROWS = 256


@lru_cache(maxsize=64)
def _operator(coarse: int, fine: int) -> np.ndarray:
    """Return the matrix ``(fine, coarse)`` that upsamples and smooths along one axis.

    Bilinear upsampling (half-pixel centres, as torch's ``align_corners=False``) and Gaussian
    smoothing with reflected borders are both linear and separable, so that the fine map of a coarse
    one M is ``A M B^T`` with one such matrix per axis. The smoothing is applied to the columns of
    the upsampling matrix by SciPy, in float64, which fixes the border rule.
    """
    position = (np.arange(fine) + 0.5) * coarse / fine - 0.5
    position = np.clip(position, 0, coarse - 1)
    lower = np.minimum(np.floor(position).astype(int), max(coarse - 2, 0))
    upper = np.minimum(lower + 1, coarse - 1)
    weight = position - lower
    matrix = np.zeros((fine, coarse))
    np.add.at(matrix, (np.arange(fine), lower), 1 - weight)
    np.add.at(matrix, (np.arange(fine), upper), weight)
    matrix = gaussian_filter1d(matrix, SIGMA, axis=0, mode="reflect", truncate=TRUNCATE)
    matrix.setflags(write=False)
    return matrix


def anomaly_maps(patch_maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Upsample the patch map of each layer, average over the layers, and smooth.

    The Gaussian has a standard deviation of 4 pixels and a radius of 16, and the image is mirrored
    about its edges (``mode="reflect"`` of ``scipy.ndimage``).

    Args:
        patch_maps: one ``(N, h, w)`` tensor per layer, at least one; the grids may differ.
        size: ``(H, W)`` of the result in pixels.

    Returns:
        ``(N, H, W)`` on the inputs' device.
    """
    import torch

    total = 0
    for maps in patch_maps:
        rows, columns = (
            torch.tensor(_operator(coarse, fine)).to(maps)
            for coarse, fine in zip(maps.shape[1:], size, strict=True)
        )
        total += rows @ maps @ columns.T
    return total / len(patch_maps)


def on_image(
    values: np.ndarray, geometry: Geometry, height: int, width: int, outside: float = np.nan
) -> np.ndarray:
    """Resize an anomaly map ``(h, w)`` to the image's own size.

    Args:
        values: float32, at the model's input size.
        geometry: the model's resize and crop.
        height: of the image in pixels.
        width: of the image in pixels.
        outside: value of the pixels outside the crop.

    Returns:
        float32 ``(height, width)``.
    """
    top, left, bottom, right = geometry.window(height, width)
    whole = np.full((height, width), outside, np.float32)
    seen = whole[top:bottom, left:right]
    for rows, part in strips(Image.fromarray(np.float32(values)), bottom - top, right - left):
        seen[rows] = np.asarray(part)
    return whole


def strips(image: Image.Image, height: int, width: int) -> Iterator[tuple[slice, Image.Image]]:
    """Resize an image bilinearly, and yield the result in strips of rows.

    A whole image of a hundred megapixels takes longer, since the memory has to be allocated.
    """
    scale = image.height / height
    for top in range(0, height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, height))
        box = (0, rows.start * scale, image.width, min(rows.stop * scale, image.height))
        size = (width, rows.stop - rows.start)
        yield rows, image.resize(size, Image.Resampling.BILINEAR, box)
