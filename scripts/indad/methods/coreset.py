"""Coresets by greedy k-centre: exact farthest-first traversal, in few passes over the points.

PatchCore reduces its memory bank by farthest-first traversal (Roth et al., arXiv:2106.08265,
algorithm 1; Gonzalez 1985; Sener and Savarese, arXiv:1708.00489): pick the point farthest from
those picked before. Two techniques make it fast without changing the order. Both use that the
distance of a point to the picks can only shrink, so that a distance computed earlier is an upper
bound.

* Batches: the bounds of the points with the largest ones are made exact. Among these points, the
  next picks follow from their mutual distances, as long as the farthest of them is at least as far
  as the largest bound of all other points.
* Lazy updates: a point whose bound is below the distance of the current pick cannot be the next
  pick. It is compared with the picks since its last update only when the distance of the picks has
  shrunk to its bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indad.core.progress import Progress, ignore
from indad.methods.neighbors import augmented, augmented_bank, block_shape, check_vectors

#: Squared distances up to this many float32 roundings of a point's squared norm (about the mean)
#: count as 0: the products cannot distinguish such points from equal ones.
ROUNDINGS = 16


class Coreset(NamedTuple):
    """Points that were picked, with the covering radius of each prefix.

    Attributes:
        indices: ``(count,)`` int64, the points in the order of picking, on the points' device. Each
            prefix is the greedy coreset of that size.
        radii: ``(count,)`` float32. Entry n - 1 is the covering radius of the first n picks: the
            largest Euclidean distance of any point to the nearest of them, up to the rounding of
            the products; 0 if all points are picks or duplicates of picks.
    """

    indices: Tensor
    radii: Tensor


def random_projection(dim_in: int, dim_out: int, seed: int) -> Tensor:
    """Draw a Gaussian random projection that preserves squared distances on average.

    Johnson and Lindenstrauss 1984. Drawn by NumPy, so that it is the same on every platform.

    Args:
        dim_in: dimensions of the points.
        dim_out: dimensions of the projected points.
        seed: of the generator.

    Returns:
        ``(dim_in, dim_out)`` float32 on the CPU, entries from N(0, 1 / dim_out).
    """
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
    progress: Progress = ignore,
) -> Coreset:
    """Pick ``count`` points, each the farthest from those picked before it.

    Distances come from float32 products of the centred points. Points at equal distance, up to
    rounding, may come in either order. When all points left are duplicates of picks (up to the
    rounding of the products), they follow in the order of their indices.

    Args:
        points: ``(N, D)`` float32.
        count: number of picks, from 1 to N.
        start: index of the first pick.
        candidates: number of points to choose among between updates; it changes the speed only.
        memory: bytes for blocks of distances, in addition to about 50 bytes per point,
            ``4 count (D + 1)`` for the picks and ``10 candidates^2``.
        progress: called with the picks done and ``count`` after every batch.

    Raises:
        ValueError: ``points`` is not a float32 matrix or not finite, or ``count`` or ``start`` is
            out of range.
    """
    check_vectors(points, "points")
    if not 1 <= count <= len(points):
        raise ValueError(f"count: {count} asked for, but there are {len(points)} points")
    if not 0 <= start < len(points):
        raise ValueError(f"start: {start} is not an index of {len(points)} points")
    search = _Search(points, count, memory)
    search.add(torch.tensor([start], device=points.device))
    search.update(torch.arange(len(points), device=points.device))
    # Number of the largest bounds to make exact for a batch. Most of them shrink below the bounds
    # of the other points; the width is adjusted so that about `candidates` points remain.
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
        progress(search.picked, count)
    search.squares[count] = search.farthest(width)
    return Coreset(search.indices, search.squares[1:].sqrt())


class _Search:
    """The state of a traversal: the bound of each point, and the picks.

    Attributes:
        bound: ``(N,)`` upper bounds on the squared distance to the picks; -1 for a pick.
        seen: ``(N,)`` number of picks that each bound takes into account.
        picked: number of picks.
        squares: ``(count + 1,)`` squared distance of each pick to those before it, which is the
            squared covering radius of those; the first entry has no meaning.
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
        self.squares = torch.zeros(count + 1)

    def add(self, indices: Tensor, squares: Tensor | float = 0.0) -> None:
        """Append picks, with their squared distances to the picks before them."""
        new = slice(self.picked, self.picked + len(indices))
        self.indices[new] = indices
        self.squares[new] = squares
        self.factor[new] = augmented_bank(self.points[indices], self.mean)
        self.bound[indices] = -1
        self.picked = new.stop

    def squared(self, rows: Tensor, half: Tensor) -> Tensor:
        """Complete products of ``augmented`` factors to squared distances, in place.

        Args:
            rows: the points in the rows of ``half``.
            half: half the squared distances minus half the squared norms of the rows.
        """
        norms = self.norms[rows].view(-1, *[1] * (half.ndim - 1))
        square = half.mul_(2).add_(norms)
        rounding = ROUNDINGS * torch.finfo(square.dtype).eps * norms
        return square.masked_fill_(square <= rounding, 0)

    def update(self, rows: Tensor) -> None:
        """Make the bounds of ``rows`` exact: compare each point with the picks it has not seen."""
        rows = rows[self.seen[rows] < self.picked].sort()[0]
        if not len(rows):
            return
        # Sorted by the number of picks seen, so that the rows of a block need the same picks, then
        # by index, so that memory is read in order.
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
        """Return the points that can be picked next, and the largest bound of all others.

        Args:
            width: number of the largest bounds to make exact.
        """
        bounds, rows = self.bound.topk(width)
        floor = float(bounds[-1]) if width < len(self.bound) else -1.0
        self.update(rows)
        return rows[self.bound[rows] >= max(floor, 0)], floor

    def choose(self, near: Tensor, floor: float, candidates: int) -> int:
        """Pick among ``near`` as long as the farthest is at least at ``floor``.

        Args:
            near: points with exact bounds.
            floor: the largest bound of all other points.
            candidates: largest number of points to choose among.

        Returns:
            The number of picks: at least one, unless all points left are duplicates of picks.
        """
        bound = self.bound[near]
        if len(near) > candidates:
            bound, order = bound.topk(candidates + 1)
            floor = float(bound[-1])
            bound, near = bound[:-1], near[order[:-1]]
        vectors = self.points[near]
        half = augmented(vectors, self.mean) @ augmented_bank(vectors, self.mean).T
        # Row i: the distances of all points to point i. The diagonal of -1 marks a point as picked.
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
        picks = torch.tensor(chosen, dtype=torch.int64, device=near.device)
        self.add(near[picks], torch.tensor(squares))
        return len(chosen)

    def farthest(self, width: int) -> float:
        """Return the largest squared distance of a point to the picks; 0 if all are picked."""
        total = len(self.bound)
        near, _ = self.front(min(width, total))
        while not len(near) and width < total:
            width *= 2
            near, _ = self.front(min(width, total))
        return float(self.bound[near].max()) if len(near) else 0.0

    def fill(self) -> None:
        """Pick the points with the lowest indices left, all of them duplicates of picks."""
        self.add((self.bound >= 0).nonzero()[: self.count - self.picked, 0])
