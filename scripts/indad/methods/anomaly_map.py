"""Upsample and smooth the patch distances of a coarse grid to an anomaly map at the input size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

if TYPE_CHECKING:
    import torch

#: Standard deviation of the smoothing in pixels, and radius of the kernel in standard deviations:
#: the values in the code of all three papers.
SIGMA = 4.0
TRUNCATE = 4.0


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
