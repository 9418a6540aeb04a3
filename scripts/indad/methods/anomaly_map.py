"""From patch distances on a coarse grid to a smooth anomaly map at the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

if TYPE_CHECKING:
    import torch

#: Standard deviation in pixels of the smoothing, and where the kernel is cut, in standard
#: deviations: the values of all three papers' codes.
SIGMA = 4.0
TRUNCATE = 4.0


@lru_cache(maxsize=64)
def _operator(coarse: int, fine: int, sigma: float) -> np.ndarray:
    """Return the matrix ``(fine, coarse)`` that upsamples and smooths along one axis.

    Bilinear upsampling (half-pixel centres, as ``align_corners=False``) and Gaussian smoothing
    with reflected borders are both linear and separable, so that a map is ``A M B^T``. Built in
    float64 by applying each step to the identity: SciPy stays the one home of the border rule.
    """
    position = (np.arange(fine) + 0.5) * coarse / fine - 0.5
    position = np.clip(position, 0, coarse - 1)
    lower = np.minimum(np.floor(position).astype(int), max(coarse - 2, 0))
    upper = np.minimum(lower + 1, coarse - 1)
    weight = position - lower
    matrix = np.zeros((fine, coarse))
    np.add.at(matrix, (np.arange(fine), lower), 1 - weight)
    np.add.at(matrix, (np.arange(fine), upper), weight)
    if sigma > 0:
        matrix = gaussian_filter1d(matrix, sigma, axis=0, mode="reflect", truncate=TRUNCATE)
    matrix.setflags(write=False)
    return matrix


def anomaly_maps(
    patch_maps: Sequence[torch.Tensor], size: tuple[int, int], *, sigma: float = SIGMA
) -> torch.Tensor:
    """Upsample each layer's patch map, average over layers, smooth.

    Args:
        patch_maps: one ``(N, h, w)`` tensor per layer; the grids may differ.
        size: ``(H, W)`` of the result in pixels.
        sigma: standard deviation of the Gaussian in pixels; radius ``4 sigma``, borders mirrored
            about the edge of the image (``scipy.ndimage``'s "reflect").

    Returns:
        ``(N, H, W)`` on the inputs' device.
    """
    import torch

    total: torch.Tensor | None = None
    for maps in patch_maps:
        rows, columns = (
            torch.from_numpy(_operator(coarse, fine, sigma).copy()).to(maps)
            for coarse, fine in zip(maps.shape[1:], size, strict=True)
        )
        fine_maps = rows @ maps @ columns.T
        total = fine_maps if total is None else total.add_(fine_maps)
    if total is None:
        raise ValueError("no patch map given")
    return total.div_(len(patch_maps))
