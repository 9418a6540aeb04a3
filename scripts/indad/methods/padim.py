"""PaDiM: patch distribution modeling (Defard et al., arXiv:2011.08785)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from indad.core.errors import ConfigError
from indad.core.progress import Progress
from indad.features.source import FeatureSource, chunks
from indad.methods.base import Detector, positive, whole_number

if TYPE_CHECKING:
    import torch

#: Bytes of float64 features or covariances held at once. They set how many rows of the grid are
#: fitted together, and change no result.
BLOCK_BYTES = 96 << 20
#: Training images added to the covariances at once.
FIT_IMAGES = 32
#: Positions scored together, to bound the memory of the solve.
SCORE_POSITIONS = 512


class PaDiM(Detector):
    """A Gaussian per position, scored by the Mahalanobis distance.

    The layers are resized to the grid ``(h, w)`` of the first one (nearest neighbour, so that each
    deep feature covers its patch), concatenated, and reduced to ``dimensions`` = d channels drawn
    at random (section 3.1). From the features ``x_p1 ... x_pN`` of the N training images at
    position p (equation 1)::

        mu_p = 1 / N * sum over n of x_pn
        S_p  = 1 / (N - 1) * sum over n of (x_pn - mu_p)(x_pn - mu_p)^T + epsilon * I

    The score of an image's feature ``x_p`` is (equation 2)::

        s_p = sqrt((x_p - mu_p)^T S_p^-1 (x_p - mu_p))

    The map ``(h, w)`` is upsampled to the input size and smoothed (Gaussian, sigma 4 pixels). The
    image score is its maximum.

    No inverse is computed. With the Cholesky factorisation ``S_p = L L^T`` the score is
    ``|L^-1 (x_p - mu_p)|``. With few images for the dimensions, ``2 N <= d``, ``S_p`` is
    ``epsilon * I`` plus a matrix of low rank. With the centred features X ``(N, d)``, the Woodbury
    identity gives the exact inverse without a ``(d, d)`` matrix::

        S^-1 = (I - W^T W) / epsilon,   W = C^-1 X,   C C^T = X X^T + (N - 1) * epsilon * I

    In both cases the model holds at most ``d (d + 1) / 2`` numbers per position besides the mean
    (for odd d, half a row more), which is half of a covariance, and the memory of the fit does not
    grow with N.

    Departures from the paper: the factorisations above instead of an inverse, fitted in float64
    and stored in float32, which changes scores by rounding only; sigma is the same number of
    pixels for every input size.

    Args:
        layers: layers to use, the first gives the grid; all extracted ones by default.
        dimensions: channels kept (paper: 100 for ResNet-18, 550 for Wide ResNet-50).
        epsilon: regularisation of the covariance (paper: 0.01).
        shots: number of training images to use, drawn by ``seed``; all of them by default.
        seed: draws the channels and the images.

    Examples:
        >>> import numpy as np
        >>> from indad.features.source import ArrayFeatures
        >>> rng = np.random.default_rng(0)
        >>> good = rng.random((9, 3, 4, 4))
        >>> train = ArrayFeatures({"layer1": good[:8]}, input_size=(16, 16))
        >>> test = ArrayFeatures({"layer1": [good[8], good[8] + 1]}, input_size=(16, 16))
        >>> detector = PaDiM(dimensions=2).fit(train)
        >>> scores = detector.score(test)
        >>> scores.image.round(1)
        array([2. , 6.2], dtype=float32)
        >>> scores.maps.shape
        (2, 16, 16)
        >>> bool((scores.image == scores.maps.max(axis=(1, 2))).all())
        True
    """

    method = "padim"
    version = 2
    needs_one_size = True

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        dimensions: int = 550,
        epsilon: float = 0.01,
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, shots=shots, seed=seed)
        self.dimensions = whole_number("dimensions", dimensions, 1)
        self.epsilon = positive("epsilon", epsilon)

    def _select(self, train: FeatureSource) -> dict[str, np.ndarray]:
        """Draw the channels: layer name to ascending channel numbers within that layer."""
        sizes = [train.shape(layer)[0] for layer in self.layers_]
        if self.dimensions > sum(sizes):
            raise ConfigError(
                f"dimensions: {self.dimensions} asked for, but the layers "
                f"{', '.join(self.layers_)} have only {sum(sizes)} channels together"
            )
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.choice(sum(sizes), self.dimensions, replace=False))
        starts = np.cumsum([0, *sizes])
        return {
            layer: chosen[(chosen >= start) & (chosen < start + size)] - start
            for layer, start, size in zip(self.layers_, starts, sizes, strict=False)
        }

    def _rows(self, train: FeatureSource, rows: slice, images: slice) -> torch.Tensor:
        """Read the channels of some images on some rows: float64 ``(positions, n, d)``."""
        import torch

        _, height, width = train.shape(self.layers_[0])
        count = rows.stop - rows.start
        block = np.empty((count, width, images.stop - images.start, self.dimensions))
        filled = 0
        for layer, channels in self.channels_.items():
            _, coarse_height, coarse_width = train.shape(layer)
            # Nearest neighbour as torch's interpolate: floor(i * coarse / fine).
            source_rows = np.arange(rows.start, rows.stop) * coarse_height // height
            source_columns = np.arange(width) * coarse_width // width
            first, last = source_rows[0], source_rows[-1] + 1
            maps = train.maps(layer, images, slice(first, last))[:, channels]
            maps = maps[:, :, source_rows - first][..., source_columns]
            block[..., filled : filled + len(channels)] = maps.transpose(2, 3, 0, 1)
            filled += len(channels)
        positions = block.reshape(count * width, -1, self.dimensions)
        return torch.from_numpy(positions).to(self.device_)

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        import torch

        self.channels_ = self._select(train)
        _, height, width = train.shape(self.layers_[0])
        self.grid_ = (height, width)
        self.low_rank_ = 2 * len(train) <= self.dimensions
        fit = self._fit_low_rank if self.low_rank_ else self._fit_covariance
        d = self.dimensions
        shape = (len(train), d) if self.low_rank_ else (d + 1, (d + 1) // 2)
        self.mean_ = torch.empty(height * width, d, device=self.device_)
        self.factor_ = torch.empty(height * width, *shape, device=self.device_)
        row_bytes = 8 * width * d * min(len(train), d)
        for rows in chunks(height, max(1, BLOCK_BYTES // row_bytes)):
            at = slice(rows.start * width, rows.stop * width)
            mean, factor = fit(train, rows)
            self.mean_[at], self.factor_[at] = mean.float(), factor.float()
            progress(rows.stop, height)

    def _fit_low_rank(self, train: FeatureSource, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means ``(positions, d)`` and W ``(positions, n, d)`` of some rows."""
        import torch

        X = torch.cat([self._rows(train, rows, at) for at in chunks(len(train), FIT_IMAGES)], dim=1)
        mean = X.mean(dim=1)
        X -= mean[:, None]
        # The covariance of a single image is epsilon I.
        gram = X @ X.mT
        gram.diagonal(dim1=1, dim2=2).add_(max(len(train) - 1, 1) * self.epsilon)
        return mean, torch.linalg.solve_triangular(torch.linalg.cholesky(gram), X, upper=False)

    def _fit_covariance(
        self, train: FeatureSource, rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means ``(positions, d)`` and the packed Cholesky factors of some rows.

        Images are added in blocks, centred on the mean of the first block, so that no significant
        digits cancel in the sums of squares.
        """
        import torch

        first, *others = chunks(len(train), FIT_IMAGES)
        X = self._rows(train, rows, first)
        start = X.mean(dim=1, keepdim=True)
        X -= start
        total, squares = X.sum(dim=1), X.mT @ X
        for images in others:
            X = self._rows(train, rows, images).sub_(start)
            total += X.sum(dim=1)
            squares.baddbmm_(X.mT, X)
        mean = total / len(train)
        squares.baddbmm_(mean[:, :, None], total[:, None], alpha=-1).div_(max(len(train) - 1, 1))
        squares.diagonal(dim1=1, dim2=2).add_(self.epsilon)
        return mean + start[:, 0], _pack(torch.linalg.cholesky(squares))

    def embed(self, layers: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the drawn channels of a batch: ``(positions, d, B)``."""
        import torch
        from torch.nn.functional import interpolate

        parts = [
            interpolate(
                layers[name][:, torch.from_numpy(channels).to(self.device_)],
                size=self.grid_,
                mode="nearest",
            )
            for name, channels in self.channels_.items()
            if len(channels)  # a layer may have none of the drawn channels
        ]
        return torch.cat(parts, dim=1).flatten(2).permute(2, 1, 0)

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[None, list[torch.Tensor]]:
        import torch

        x = self.embed(layers)
        squared = torch.empty(x.shape[0], x.shape[2], device=self.device_)
        for at in chunks(len(x), SCORE_POSITIONS):
            # Contiguous: MKL rounds products of transposed matrices differently in twelve threads
            # than in two.
            delta = x[at].contiguous().sub_(self.mean_[at, :, None])
            if self.low_rank_:
                explained = (self.factor_[at] @ delta).square_().sum(dim=1)
                squared[at] = delta.square_().sum(dim=1).sub_(explained).div_(self.epsilon)
            else:
                squared[at] = _solve_packed(self.factor_[at], delta)
        distance = squared.clamp_(min=0).sqrt_()
        return None, [distance.T.reshape(-1, *self.grid_)]

    def _state(self) -> dict[str, torch.Tensor]:
        import torch

        return {
            "mean": self.mean_,
            "grid": torch.tensor(self.grid_),
            "factor": self.factor_,
            "low_rank": torch.tensor(self.low_rank_),
            **{f"channels.{name}": torch.from_numpy(c) for name, c in self.channels_.items()},
        }

    def _restore(self, state: Mapping[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        self.mean_, self.factor_ = state["mean"], state["factor"]
        height, width = state["grid"].tolist()
        self.grid_ = (height, width)
        self.channels_ = {layer: state[f"channels.{layer}"].cpu().numpy() for layer in self.layers_}
        self.low_rank_ = bool(state["low_rank"])


def _pack(factor: torch.Tensor) -> torch.Tensor:
    """Pack lower triangles ``(P, d, d)`` into ``(P, d + 1, ceil(d / 2))``, without their zeros.

    LAPACK's rectangular full packed format: a triangle consists of two smaller triangles and a
    square. One small triangle, transposed, fills the zeros above the other, and each can be solved
    in place.
    """
    size = factor.shape[-1]
    half = (size + 1) // 2
    packed = factor.new_empty(len(factor), size + 1, half)
    packed[:, 0] = 0
    packed[:, 1:] = factor[..., :half]
    packed[:, : size - half, : size - half] += factor[:, half:, half:].mT
    return packed


def _solve_packed(packed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ``|L^-1 x|^2`` as ``(P, B)``, for L packed by ``_pack`` and ``x (P, d, B)``."""
    from torch.linalg import solve_triangular

    half = packed.shape[2]
    rest = x.shape[1] - half
    # solve_triangular reads the lower triangle only; above it is the other, transposed triangle.
    upper = solve_triangular(packed[:, 1 : half + 1], x[:, :half], upper=False)
    below = x[:, half:] - packed[:, half + 1 :] @ upper
    lower = solve_triangular(packed[:, :rest, :rest].mT, below, upper=False)
    return upper.square_().sum(dim=1).add_(lower.square_().sum(dim=1))
