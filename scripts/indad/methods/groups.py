"""Lower bounds on distances, by which an exact nearest-neighbour search skips groups of vectors.

For orthonormal axes, let ``x_m`` be the coordinates of a vector x on m of them and ``x_r`` the rest
of x. With ``x' = (x_m, |x_r|)`` the triangle inequality gives a lower bound on a squared distance::

    |q - b|^2 = |q_m - b_m|^2 + |q_r - b_r|^2 >= |q_m - b_m|^2 + (|q_r| - |b_r|)^2 = |q' - b'|^2

It costs a product over m + 2 columns instead of D + 1, and is close to the distance if the m axes
hold most of the variance. It is the bound of Hwang, Han and Ahn ("A fast nearest neighbor search
algorithm by nonlinear embedding", CVPR 2012) for principal axes. The vectors are put in groups of
near ones by the splits of a k-d tree (Friedman, Bentley and Finkel, ACM TOMS 1977), since near
vectors are skipped together.

Rounding does not lose the nearest vector. With u = 2^-24, the entries of q' and b', which are
computed in float64, have errors of at most ``2 u |q|`` and ``2 u |b|``, and a product over n
columns one of ``n u (|q|^2 / 2 + |b|^2)``. So half a squared distance is above its bound minus
``(m + 10) u (|q|^2 + |b|^2)``, and below the result of the full product plus
``(1.5 D + 2) u (|q|^2 + |b|^2)``. A group is skipped only if its bounds are greater than the
distance found by more than twice the sum of both.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

#: Share of the variance that the axes hold. More axes skip more groups, but their bounds cost more.
VARIANCE = 0.85
#: Least and largest number of axes, which are never more than a quarter of the dimensions. One axis
#: may hold most of the variance because of a few outliers.
LEAST_AXES, MOST_AXES = 8, 64
#: Number of vectors, evenly spaced, that the axes are computed from.
SAMPLE = 2048
#: Largest number of vectors in a group.
MEMBERS = 256
#: Queries and vectors whose bounds are computed at once: few enough for the cache of one core.
BLOCK = (512, 1024)
#: Rounding errors are relative to ``EPS`` = 2 u, and absolute below ``TINY``.
EPS, TINY = torch.finfo(torch.float32).eps, torch.finfo(torch.float32).tiny


def principal_axes(centred: Tensor) -> Tensor | None:
    """Return as many principal axes as hold ``VARIANCE`` of the variance, within limits.

    They come from a subspace iteration with a fixed start. They need not be exact: bounds are valid
    on any orthonormal axes.

    Args:
        centred: ``(n, D)`` float32, on a CPU.

    Returns:
        ``(D, m)`` float64, orthonormal; None if they hold less than half of the variance, so that
        bounds would skip few groups.
    """
    most = min(MOST_AXES, centred.shape[1] // 4)
    if most == 0:
        return None
    sample = centred[:: math.ceil(len(centred) / SAMPLE)].double()
    start = torch.Generator().manual_seed(0)
    axes = torch.randn(centred.shape[1], most, generator=start, dtype=torch.float64)
    for _ in range(3):
        axes = torch.linalg.qr(sample.T @ (sample @ axes))[0]
    coordinates = sample @ axes
    variance, turn = torch.linalg.eigh(coordinates.T @ coordinates)
    share = variance.flip(0).cumsum(0) / sample.square().sum()
    if not share[-1] >= 0.5:  # NaN if all vectors are the same
        return None
    count = max(LEAST_AXES, 1 + int((share < VARIANCE).sum()))
    return axes @ turn.flip(1)[:, :count]


def project(factor: Tensor, axes: Tensor) -> Tensor:
    """Return ``x'`` and a last column of ones.

    Args:
        factor: ``(n, D + 1)``: centred vectors, and a last column that is not used.
        axes: ``(D, m)``.

    Returns:
        ``(n, m + 2)`` float32: coordinates, length of the rest, 1.
    """
    out = factor.new_ones(len(factor), axes.shape[1] + 2)
    for some, part in zip(factor.split(256), out.split(256), strict=True):
        vectors = some[:, :-1].double()
        inside = vectors @ axes
        rest = torch.linalg.vecdot(vectors, vectors) - torch.linalg.vecdot(inside, inside)
        part[:, :-2], part[:, -2] = inside, rest.clamp_(min=0).sqrt_()
    return out


def near_groups(points: Tensor) -> Tensor:
    """Split points into groups of near ones, at the median of the axis of the largest variance.

    Args:
        points: ``(n, d)``.

    Returns:
        ``(G, members)`` ascending indices; groups have the same size, so that a few points
        are in them twice.
    """
    levels = max(0, math.ceil(math.log2(len(points) / MEMBERS)))
    members = math.ceil(len(points) / 2**levels)
    order = torch.arange(members << levels) % len(points)
    for level in range(levels):
        order = order.view(1 << level, -1)
        split = points[order]
        widest = split.var(dim=1).argmax(dim=1)[:, None, None].expand(-1, split.shape[1], 1)
        order = order.gather(1, split.gather(2, widest)[..., 0].argsort(dim=1, stable=True))
    return order.reshape(-1, members).sort(dim=1)[0]


class Groups:
    """Vectors in groups of near ones, with lower bounds on their distances to queries.

    Args:
        factor: ``(n or more, D + 1)``, the second factor of `neighbors.augmented_bank`.
        count: n; the rows after it are not used.
        axes: ``(D, m)``, as of `principal_axes`.
    """

    def __init__(self, factor: Tensor, count: int, axes: Tensor) -> None:
        self._axes = axes
        low = project(factor[:count], axes)
        self._ids = near_groups(low[:, :-1])
        squares = low[:, :-1].square().sum(dim=1)
        low[:, -1] = squares / 2 - self._slack * squares
        # The factor holds the negative vectors. The length of the rest is never negative.
        low[:, -2].neg_()
        self._low = low[self._ids.flatten()]
        self._members = factor[self._ids]

    @property
    def _slack(self) -> float:
        return EPS * (self._axes.shape[1] + 10)

    @property
    def _numbers(self) -> int:
        """Float32 numbers that a search allocates for each query, at most."""
        groups, members, columns = self._members.shape
        return 3 * columns + members + self._low.shape[1] + 8 * groups

    def nearest(self, queries: Tensor, most: int) -> Tensor:
        """Return the index of the nearest vector of each query, ``(M,)`` int64.

        The queries are shared out among as many Python threads as torch uses, and each operation
        runs in one: in threads of torch, the many short operations would wait for each other.

        Args:
            queries: ``(M, D + 1)``, the first factor of `neighbors.augmented`.
            most: bytes that the search may allocate.
        """
        threads = torch.get_num_threads()
        rows = min(most // 4 // self._numbers, len(queries)) // threads
        parts = queries.split(max(1, rows))
        if threads == 1 or len(parts) == 1:
            return torch.cat([self._nearest(part) for part in parts])
        try:
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                return torch.cat(list(pool.map(self._nearest, parts)))
        finally:
            torch.set_num_threads(threads)  # new threads inherit the number that was set last

    @torch.no_grad()
    def _nearest(self, queries: Tensor) -> Tensor:
        low = project(queries, self._axes)
        best = queries.new_full((len(queries),), torch.inf)
        index = torch.zeros(len(queries), dtype=torch.int64)
        lowest = self._lowest(low)
        group, rows = lowest.argmin(dim=1).sort(stable=True)
        self._compare(queries, group, rows, best, index)
        lowest[rows, group] = torch.inf
        group, rows = (self._limit(low, best) >= lowest.T).nonzero(as_tuple=True)
        self._compare(queries, group, rows, best, index)
        return index

    def _lowest(self, low: Tensor) -> Tensor:
        """Return the lowest bound in each group: ``(M, G)``."""
        groups, members = self._ids.shape
        out = low.new_empty(len(low), groups)
        at_once = max(1, BLOCK[1] // members)
        buffer = low.new_empty(min(BLOCK[0], len(low)) * at_once * members)
        for part, result in zip(low.split(BLOCK[0]), out.split(BLOCK[0]), strict=True):
            for start in range(0, groups, at_once):
                bank = self._low[start * members : (start + at_once) * members]
                block = buffer[: len(part) * len(bank)].view(len(part), len(bank))
                torch.mm(part, bank.T, out=block)
                result[:, start : start + at_once] = block.unflatten(1, (-1, members)).amin(dim=2)
        return out

    def _limit(self, low: Tensor, best: Tensor) -> Tensor:
        """Return ``best`` plus the rounding errors: a group with a higher bound is skipped."""
        squares = low[:, :-1].square().sum(dim=1)
        # |b|^2 <= 2 |q|^2 + 2 |q - b|^2, and |q - b|^2 = |q|^2 + 2 best.
        errors = EPS * (5 * squares + 4 * best) + 4 * TINY
        return best + (1.5 * self._members.shape[2] + 2) * errors + self._slack * squares

    def _compare(
        self, queries: Tensor, groups: Tensor, rows: Tensor, best: Tensor, index: Tensor
    ) -> None:
        """Lower ``best`` and set ``index`` at ``rows`` by all members of ``groups``, ascending.

        Of equal minima the lowest index is set.
        """
        for some, near in zip(rows.split(len(queries)), groups.split(len(queries)), strict=True):
            vectors = queries.index_select(0, some)
            block = queries.new_empty(len(some), self._ids.shape[1])
            start = 0
            # Two operations for each group: more would take longer than a product of few queries.
            for group, count in torch.stack(near.unique_consecutive(return_counts=True)).T.tolist():
                part = slice(start, start + count)
                torch.mm(vectors[part], self._members[group].T, out=block[part])
                start += count
            value = block.amin(dim=1)
            lower = best.scatter_reduce(0, some, value, "amin")
            lowest = (value == lower[some]).nonzero()[:, 0]
            found = self._ids[near[lowest], block[lowest].argmin(dim=1)]
            index.masked_fill_(lower < best, self._ids.numel())  # above all indices
            index.scatter_reduce_(0, some[lowest], found, "amin")
            best.copy_(lower)
