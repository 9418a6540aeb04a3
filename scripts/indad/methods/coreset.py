"""Coresets by greedy k-centre: exact farthest-first traversal, in few passes over the points.

Farthest-first traversal (Gonzalez 1985; Sener and Savarese, arXiv:1708.00489) is what PatchCore
thins its memory bank with (Roth et al., arXiv:2106.08265, algorithm 1): always take the point
farthest from those taken so far. Two things make it fast and leave the order as it is. Both rest
on the fact that a point's distance to the chosen ones, once known, can only shrink and so remains
an upper bound.

* Batches: among the points of the largest bounds, made exact, go on choosing by their mutual
  distances alone, as long as the best of them is at least the largest bound outside.
* Laziness: a point whose bound is below what is being chosen cannot be next. It is compared with
  the picks it has missed only when the radius comes down to its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indad.methods.neighbors import augmented, augmented_bank, block_shape

#: Squared distances up to this many float32 roundings of a point's squared norm (about the mean)
#: count as 0: products tell equal points no better apart.
ROUNDINGS = 16


class GreedyOrder(NamedTuple):
    """A greedy order: each of its prefixes is the greedy coreset of that size.

    Attributes:
        indices: ``(count,)`` int64, the points in the order they were picked, on their device.
        distances: ``(count,)`` float32, each pick's Euclidean distance to the picks before it,
            which is the covering radius of these; the first is infinite. Never increases.
        covering_radius: largest distance of any point to its nearest pick, over all picks.
    """

    indices: Tensor
    distances: Tensor
    covering_radius: float


def random_projection(dim_in: int, dim_out: int, seed: int) -> Tensor:
    """Draw a Gaussian random projection that keeps squared distances on average.

    Johnson and Lindenstrauss 1984. Drawn by NumPy, so that it is the same on every platform.

    Returns:
        ``(dim_in, dim_out)`` float32 on the CPU, entries from N(0, 1 / dim_out).

    Raises:
        ValueError: when a dimension is below 1.
    """
    if min(dim_in, dim_out) < 1:
        raise ValueError(f"a projection needs dimensions of at least 1, got {dim_in} to {dim_out}")
    draws = np.random.default_rng(seed).standard_normal((dim_in, dim_out))
    return torch.from_numpy((draws / dim_out**0.5).astype(np.float32))


@torch.no_grad()
def greedy_k_center(
    points: Tensor,
    count: int,
    *,
    start: int,
    candidates: int = 1024,
    memory: int = 1 << 30,
    progress: Callable[[int, int], None] | None = None,
) -> GreedyOrder:
    """Pick ``count`` points, each the farthest from those picked before it.

    Distances are float32 products of the points less their mean. Points at equal distance, up to
    rounding, may come in either order. When every point left is a duplicate of a pick (closer than
    the products can tell), the lowest indices not yet picked follow, at distance 0.

    Args:
        points: ``(N, D)`` float32.
        count: how many to pick, from 1 to N.
        start: index of the first pick.
        candidates: how many points to choose among between updates; changes the speed only.
        memory: bytes for blocks of distances; about 50 bytes per point, ``4 count (D + 1)`` for
            the picks and ``10 candidates^2`` come on top.
        progress: called as ``progress(picked, count)`` after every batch.

    Returns:
        The order, the distance at each pick and the final covering radius, all in the points'
        units.

    Raises:
        ValueError: when ``points`` is no float32 matrix or not finite, or ``count``, ``start`` or
            ``candidates`` is out of range.
    """
    _check(points, count, start, candidates)
    search = _Search(points, count, memory)
    search.add(torch.tensor([start], device=points.device), [torch.inf])
    search.update(torch.arange(len(points), device=points.device))
    # How many of the largest bounds to make exact for a batch. Most of them shrink below the rest;
    # the number is steered so that about the candidates asked for stay.
    width = 4 * candidates
    while search.picked < count:
        width = min(max(width, candidates + 1), len(points))
        near, floor = search.front(width)
        if len(near) < candidates // 2:
            width *= 2
        elif len(near) > 2 * candidates:
            width //= 2
        if len(near) and not search.choose(near, floor, candidates):
            search.fill()
        if progress is not None:
            progress(search.picked, count)
    return search.result()


class _Search:
    """The state of a traversal: bounds on the points, and the picks.

    Attributes:
        bound: ``(N,)`` upper bounds on the squared distance to the picks; -1 for a pick.
        seen: ``(N,)`` how many picks are in the bound.
        picked: how many picks there are.
    """

    def __init__(self, points: Tensor, count: int, memory: int) -> None:
        self.points, self.count = points, count
        self.rows, self.columns = block_shape(points.device, memory, points.shape[1])
        self.buffer = points.new_empty(self.rows * self.columns)
        self.mean = points.mean(dim=0)
        self.norms = points.new_empty(len(points))
        for norms, part in zip(self.norms.split(self.rows), points.split(self.rows), strict=True):
            norms.copy_((part - self.mean).square().sum(dim=1))
        self.bound = torch.full_like(self.norms, torch.inf)
        self.seen = torch.zeros(len(points), dtype=torch.int32, device=points.device)
        self.picked = 0
        self.factor = points.new_empty(count, points.shape[1] + 1)
        self.indices = torch.empty(count, dtype=torch.int64, device=points.device)
        self.squares = np.empty(count, dtype=np.float32)

    def add(self, indices: Tensor, squares: list[float]) -> None:
        """Append picks and the squared distances they were made at."""
        new = slice(self.picked, self.picked + len(indices))
        self.indices[new] = indices
        self.squares[new] = squares
        self.factor[new] = augmented_bank(self.points[indices], self.mean)
        self.bound[indices] = -1
        self.picked = new.stop

    def squared(self, rows: Tensor, half: Tensor) -> Tensor:
        """Turn half squares, less the rows' half squared norms, into squared distances."""
        norms = self.norms[rows].view(-1, *[1] * (half.ndim - 1))
        square = half.mul_(2).add_(norms)
        nothing = ROUNDINGS * torch.finfo(square.dtype).eps * norms
        return square.masked_fill_(square <= nothing, 0)

    def update(self, rows: Tensor) -> None:
        """Make the bounds of ``rows`` exact: compare each with the picks it has not seen."""
        rows = rows[self.seen[rows] < self.picked].sort()[0]
        if not len(rows):
            return
        # By what they have seen, so that a block's rows have missed the same picks, and by index,
        # so that they are gathered from memory in order.
        seen, order = self.seen[rows].sort(stable=True)
        first = seen[:: self.rows].tolist()
        for done, part in zip(first, rows[order].split(self.rows), strict=True):
            factor = augmented(self.points[part], self.mean)
            half = self.bound.new_full((len(part),), torch.inf)
            for picks in self.factor[done : self.picked].split(self.columns):
                block = self.buffer[: len(part) * len(picks)].view(len(part), len(picks))
                torch.minimum(half, torch.mm(factor, picks.T, out=block).amin(dim=1), out=half)
            self.bound[part] = torch.minimum(self.bound[part], self.squared(part, half))
        self.seen[rows] = self.picked

    def front(self, width: int) -> tuple[Tensor, float]:
        """Return the points that can be next, bounds exact, and the largest bound outside."""
        bounds, rows = self.bound.topk(width)
        floor = float(bounds[-1]) if width < len(self.bound) else -1.0
        self.update(rows)
        return rows[self.bound[rows] >= max(floor, 0)], floor

    def choose(self, near: Tensor, floor: float, candidates: int) -> int:
        """Go on picking among ``near``, while the best is at least every bound outside.

        Returns:
            How many were picked: at least one, unless all points left are duplicates of picks.
        """
        bound = self.bound[near]
        if len(near) > candidates:
            bound, order = bound.topk(candidates + 1)
            floor = float(bound[-1])
            bound, near = bound[:-1], near[order[:-1]]
        vectors = self.points[near]
        half = augmented(vectors, self.mean) @ augmented_bank(vectors, self.mean).T
        # Row: the pick; column: the point it comes near. The diagonal marks a pick as taken.
        square = self.squared(near, half).fill_diagonal_(-1).T.contiguous().cpu().numpy()
        best = bound.cpu().numpy()
        chosen: list[int] = []
        squares: list[float] = []
        while self.picked + len(chosen) < self.count:
            candidate = best.argmax()
            value = best[candidate]
            if value < floor or value <= 0:
                break
            chosen.append(int(candidate))
            squares.append(float(value))
            np.minimum(best, square[candidate], out=best)
        self.add(near[torch.tensor(chosen, dtype=torch.int64, device=near.device)], squares)
        return len(chosen)

    def fill(self) -> None:
        """Pick the lowest indices left, all of them duplicates of picks."""
        left = (self.bound >= 0).nonzero()[: self.count - self.picked, 0]
        self.add(left, [0.0] * len(left))

    def covering_radius(self) -> float:
        """Return the largest distance of any point to the picks."""
        width = min(self.rows, len(self.points))
        near = self.indices[:0]
        while self.picked < len(self.points) and not len(near):
            near, _ = self.front(width)
        return float(self.bound[near].max().sqrt()) if len(near) else 0.0

    def result(self) -> GreedyOrder:
        """Return the order; rounding between two batches must not let a distance grow."""
        distances = np.sqrt(np.minimum.accumulate(self.squares))
        on_device = torch.from_numpy(distances).to(self.indices.device)
        return GreedyOrder(self.indices, on_device, self.covering_radius())


def _check(points: Tensor, count: int, start: int, candidates: int) -> None:
    if points.ndim != 2 or points.dtype != torch.float32:
        shape, dtype = tuple(points.shape), points.dtype
        raise ValueError(f"points: expected a float32 matrix, got {dtype} of shape {shape}")
    if not 1 <= count <= len(points):
        raise ValueError(f"count: {count} asked for, but there are {len(points)} points")
    if not 0 <= start < len(points):
        raise ValueError(f"start: {start} is not the index of one of {len(points)} points")
    if candidates < 1:
        raise ValueError(f"candidates: expected at least 1, got {candidates}")
    if not torch.linalg.vector_norm(points).isfinite():
        raise ValueError("points: values that are NaN, infinite or too large to square")
