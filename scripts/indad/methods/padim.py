"""PaDiM: patch distribution modeling (Defard et al., arXiv:2011.08785)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from indad.errors import ConfigError
from indad.features import FeatureSource, chunks
from indad.methods.base import Detector
from indad.progress import Progress

if TYPE_CHECKING:
    import torch

#: Bytes of float64 training features held at once: it sets how many rows of the grid are fitted
#: together, never the result.
BLOCK_BYTES = 256 << 20
#: Positions scored together, which bounds the scratch memory of the solve.
SCORE_POSITIONS = 512


class PaDiM(Detector):
    """A Gaussian per position of the first layer's grid, scored by Mahalanobis distance.

    The layers are brought to the first one's grid (nearest, so that each deep feature covers its
    patch) and concatenated, and a random subset of ``dimensions`` channels is kept (section 3.1).
    Per position: mean and covariance over the training images plus ``epsilon`` I (equation 1), and
    the Mahalanobis distance of equation 2. Image score: the maximum of the smoothed map.

    With at least as many images as dimensions the covariance's Cholesky factor L is kept and the
    distance is ``|L^-1 (x - mu)|``. With fewer, the covariance is a low-rank matrix plus
    ``epsilon`` I, and by the Woodbury identity, with X the centred features (n, d)::

        S^-1 = (I - W^T W) / epsilon,   W = C^-1 X,   C C^T = X X^T + (n - 1) epsilon I

    which is exact, needs no d x d matrix, and is n x d numbers a position. An inverse is never
    formed.

    Args:
        layers: layers to use; all extracted ones when left out. The first gives the grid.
        dimensions: channels kept (paper: 100 for ResNet-18, 550 for Wide ResNet-50).
        epsilon: regularisation of the covariance (paper: 0.01).
        seed: chooses the channels.
    """

    method = "padim"

    dimensions: int
    epsilon: float

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        dimensions: int = 550,
        epsilon: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, dimensions=dimensions, epsilon=epsilon, seed=seed)
        self.check(
            "dimensions",
            "a whole number of at least 1",
            isinstance(dimensions, int) and dimensions >= 1,
        )
        self.check("epsilon", "a number above 0", isinstance(epsilon, (int, float)) and epsilon > 0)

    def _select(self, train: FeatureSource) -> dict[str, np.ndarray]:
        """Draw the channels: layer name to sorted channel numbers within that layer."""
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

    def _rows(self, train: FeatureSource, rows: slice) -> np.ndarray:
        """Read all images' selected features on some rows: float64 ``(positions, N, d)``."""
        _, height, width = train.shape(self.layers_[0])
        count = rows.stop - rows.start
        block = np.empty((count, width, len(train), self.dimensions))
        filled = 0
        for layer, channels in self.channels_.items():
            _, coarse_height, coarse_width = train.shape(layer)
            # Nearest neighbour as torch's interpolate: floor(i * coarse / fine).
            source_rows = np.arange(rows.start, rows.stop) * coarse_height // height
            source_columns = np.arange(width) * coarse_width // width
            first, last = source_rows[0], source_rows[-1] + 1
            for part in chunks(len(train), 16):
                maps = train.maps(layer, part, slice(first, last))[:, channels]
                maps = maps[:, :, source_rows - first][..., source_columns]
                block[:, :, part, filled : filled + len(channels)] = maps.transpose(2, 3, 0, 1)
            filled += len(channels)
        return block.reshape(count * width, len(train), self.dimensions)

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        import torch

        self.channels_ = self._select(train)
        _, height, width = train.shape(self.layers_[0])
        self.grid_ = (height, width)
        self.low_rank_ = len(train) < self.dimensions
        rank = min(len(train), self.dimensions)
        self.mean_ = torch.empty(height * width, self.dimensions, device=self.device)
        self.factor_ = torch.empty(height * width, rank, self.dimensions, device=self.device)

        row_bytes = 8 * width * len(train) * self.dimensions
        for rows in chunks(height, max(1, BLOCK_BYTES // row_bytes)):
            X = torch.from_numpy(self._rows(train, rows)).to(self.device)
            at = slice(rows.start * width, rows.stop * width)
            mean = X.mean(dim=1)
            self.mean_[at] = mean.float()
            self.factor_[at] = self._factor(X.sub_(mean[:, None])).float()
            progress(rows.stop, height)

    def _factor(self, X: torch.Tensor) -> torch.Tensor:
        """Factorise the covariance of centred features ``X (positions, N, d)``."""
        import torch

        # One image has no spread: its covariance is epsilon I alone.
        scale = max(X.shape[1] - 1, 1)
        if self.low_rank_:
            gram = X @ X.mT
            gram.diagonal(dim1=1, dim2=2).add_(scale * self.epsilon)
            factor = torch.linalg.cholesky(gram)
            return torch.linalg.solve_triangular(factor, X, upper=False)
        covariance = (X.mT @ X).div_(scale)
        covariance.diagonal(dim1=1, dim2=2).add_(self.epsilon)
        return torch.linalg.cholesky(covariance)

    def _embed(self, layers: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the selected features of a batch, ``(positions, d, B)``."""
        import torch
        from torch.nn.functional import interpolate

        parts = [
            interpolate(
                layers[name][:, torch.from_numpy(channels).to(self.device)],
                size=self.grid_,
                mode="nearest",
            )
            for name, channels in self.channels_.items()
        ]
        return torch.cat(parts, dim=1).flatten(2).permute(2, 1, 0)

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[None, list[torch.Tensor]]:
        import torch

        x = self._embed(layers)
        squared = torch.empty(x.shape[0], x.shape[2], device=self.device)
        for at in chunks(len(x), SCORE_POSITIONS):
            delta = x[at] - self.mean_[at, :, None]
            if self.low_rank_:
                explained = (self.factor_[at] @ delta).square_().sum(dim=1)
                squared[at] = delta.square_().sum(dim=1).sub_(explained).div_(self.epsilon)
            else:
                whitened = torch.linalg.solve_triangular(self.factor_[at], delta, upper=False)
                squared[at] = whitened.square_().sum(dim=1)
        distance = squared.clamp_(min=0).sqrt_()
        return None, [distance.T.reshape(-1, *self.grid_)]

    def _state(self) -> dict[str, torch.Tensor]:
        import torch

        state = {
            "mean": self.mean_,
            "grid": torch.tensor(self.grid_),
            "factor": self.factor_,
            **{f"channels.{name}": torch.from_numpy(c) for name, c in self.channels_.items()},
        }
        if not self.low_rank_:  # half of a triangle is zeros: keep the other half
            rows, columns = np.tril_indices(self.dimensions)
            state["factor"] = self.factor_[:, rows, columns]
        return state

    def _restore(self, state: dict[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        import torch

        self.mean_ = state["mean"]
        height, width = state["grid"].tolist()
        self.grid_ = (height, width)
        self.channels_ = {layer: state[f"channels.{layer}"].cpu().numpy() for layer in self.layers_}
        self.low_rank_ = state["factor"].ndim == 3
        self.factor_ = state["factor"]
        if not self.low_rank_:
            shape = (len(self.mean_), self.dimensions, self.dimensions)
            self.factor_ = torch.zeros(shape, device=self.device)
            rows, columns = np.tril_indices(self.dimensions)
            self.factor_[:, rows, columns] = state["factor"]
