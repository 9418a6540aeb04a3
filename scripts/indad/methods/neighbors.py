"""Exact nearest-neighbour search by matrix products, in bounded memory.

In a large bank on a CPU, lower bounds skip most of the products (`groups`).

The order of the distances follows from ``|x - y|^2 = |x|^2 - 2 (x y - |y|^2 / 2)``, computed for
one block of queries and bank vectors at a time; ``|x|^2`` does not change the order of a query's
distances and is left out. The distances of the nearest vectors are then computed from the
differences, without cancellation.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from indad.methods.groups import MOST_AXES, Groups, principal_axes

#: Columns over which a block's minimum is taken first. On a CPU a ``min`` with its index costs as
#: much as a product over 128 dimensions. ``amin`` is vectorised and eight times as fast; the index
#: is then searched for only in the group that has the minimum.
GROUP = 128
#: Largest block of distances, (queries, bank vectors): small enough for a CPU's cache, large enough
#: to keep a GPU busy.
CPU_BLOCK = (1024, 2048)
CUDA_BLOCK = (8192, 16384)
#: Least vectors, and least queries, for which forming groups takes less time than it saves.
LARGE_BANK, MANY_QUERIES = 4096, 3000


def block_shape(device: torch.device, memory: int, dimensions: int) -> tuple[int, int]:
    """Return the numbers of queries and bank vectors to compare at once on ``device``.

    The block of distances and each of its two factors take at most an eighth of ``memory`` bytes
    (float32), unless one query and one group of bank vectors already take more.

    Returns:
        ``(rows, columns)``; ``columns`` is a multiple of ``GROUP``.
    """
    rows, columns = CPU_BLOCK if device.type == "cpu" else CUDA_BLOCK
    numbers = memory // 8 // 4
    factor = numbers // (dimensions + 1)
    columns = min(columns, factor, math.isqrt(2 * numbers))
    columns = max(GROUP, columns // GROUP * GROUP)
    return max(1, min(rows, factor, numbers // columns)), columns


def augmented(vectors: Tensor, mean: Tensor) -> Tensor:
    """Return the first factor of the product of `augmented_bank`.

    Args:
        vectors: ``(n, D)``.
        mean: ``(D,)``, subtracted.

    Returns:
        ``(n, D + 1)``: the centred vectors, and a last column of ones.
    """
    out = vectors.new_empty(len(vectors), vectors.shape[1] + 1)
    torch.sub(vectors, mean, out=out[:, :-1])
    out[:, -1] = 1
    return out


def augmented_bank(vectors: Tensor, mean: Tensor, multiple: int = 1) -> Tensor:
    """Return the second factor: ``augmented(x) @ augmented_bank(y).T`` is ``|y|^2 / 2 - x y``.

    Args:
        vectors: ``(n, D)``.
        mean: ``(D,)``, subtracted: smaller norms lose fewer digits by cancellation.
        multiple: rows that are infinitely far from all queries are added, up to a multiple of it.

    Returns:
        ``(n or more, D + 1)``: the negative centred vectors, and a last column of half their
        squared norms.
    """
    length = math.ceil(len(vectors) / multiple) * multiple
    out = vectors.new_zeros(length, vectors.shape[1] + 1)
    centred = out[: len(vectors), :-1]
    torch.sub(mean, vectors, out=centred)
    out[: len(vectors), -1] = centred.square().sum(dim=1) / 2
    out[len(vectors) :, -1] = torch.inf
    return out


class Bank:
    """Vectors to search in, prepared once for many searches.

    Args:
        vectors: ``(G, D)`` float32, at least one; not copied.
        memory: bytes that the bank and a search may allocate besides vectors, queries and results.
            A centred copy of the vectors is kept when it fits in half of them, and their groups
            when both fit.

    Raises:
        ValueError: ``vectors`` is not a float32 matrix, is empty, or has values that are not finite
            or whose squares are not.
    """

    @torch.no_grad()
    def __init__(self, vectors: Tensor, memory: int = 1 << 30) -> None:
        check_vectors(vectors, "bank")
        if vectors.numel() == 0:
            raise ValueError(f"bank: no vectors to search in, shape {tuple(vectors.shape)}")
        self.vectors = vectors
        self.memory = memory
        self._mean = vectors.mean(dim=0)
        self._rows, self._columns = block_shape(vectors.device, memory, vectors.shape[1])
        self._factor: Tensor | None = None
        if 4 * (len(vectors) + GROUP) * (vectors.shape[1] + 1) <= memory // 2:
            self._factor = augmented_bank(vectors, self._mean, GROUP)
        self._groups: Groups | None = None
        numbers = len(vectors) * (2 * vectors.shape[1] + 4 * MOST_AXES)
        fits = self._factor is not None and 4 * numbers <= memory // 2
        self._groupable = fits and len(vectors) >= LARGE_BANK and vectors.device.type == "cpu"
        self._searched = 0

    @torch.no_grad()
    def nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest bank vector of each query.

        Float32 products decide which one is nearest. With q the query, b a bank vector, both minus
        the bank's mean, the rounding error of a squared distance is at most
        ``(1.5 D + 3) eps (|q|^2 + |b|^2)``, eps = 2^-23, and much less on average. Of bank vectors
        whose squared distances differ by less than twice that, any may be returned; of exactly
        equal ones it is the lowest index. The distance to the returned vector is computed from the
        difference, without this error.

        Args:
            queries: ``(M, D)`` float32 on the bank's device.

        Returns:
            ``(M,)`` Euclidean distances and ``(M,)`` int64 indices into the bank.

        Raises:
            ValueError: the queries' shape or type does not fit the bank, or their values are not
                finite.
        """
        self._check_queries(queries)
        index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        self._form_groups(len(queries))
        if self._groups is not None:
            many = max(1, self.memory // 8 // 4 // (queries.shape[1] + 1))
            for some, found in zip(queries.split(many), index.split(many), strict=True):
                found.copy_(self._groups.nearest(augmented(some, self._mean), self.memory // 4))
        else:
            best = queries.new_full((len(queries),), torch.inf)
            for rows, start, block in self._blocks(queries):
                better, column = _improve(best[rows], block)
                _put(index[rows], better, start + column)
        return self._distances(queries, index[:, None])[:, 0], index

    @torch.no_grad()
    def k_nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Find the ``k`` nearest bank vectors of each query, nearest first.

        Args:
            queries: ``(M, D)`` float32 on the bank's device.
            k: number of neighbours, from 1 to G.

        Returns:
            ``(M, k)`` Euclidean distances, ascending, and ``(M, k)`` int64 indices into the bank;
            of equal distances the lower index comes first.

        Raises:
            ValueError: as `nearest`, or ``k`` is below 1 or above G.
        """
        if not 1 <= k <= len(self.vectors):
            raise ValueError(f"k: {k} neighbours asked for, but the bank has {len(self.vectors)}")
        self._check_queries(queries)
        best = queries.new_full((len(queries), k), torch.inf)
        index = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
        for rows, start, block in self._blocks(queries):
            value, column = block.topk(min(k, block.shape[1]), dim=1, largest=False)
            value = torch.cat([best[rows], value], dim=1)
            column = torch.cat([index[rows], column + start], dim=1)
            best[rows], kept = value.topk(k, dim=1, largest=False)
            index[rows] = column.gather(1, kept)
        index = index.sort(dim=1)[0]
        distance, order = self._distances(queries, index).sort(dim=1, stable=True)
        return distance, index.gather(1, order)

    def _form_groups(self, queries: int) -> None:
        """Form the groups once, if enough queries were searched for."""
        self._searched += queries
        if self._groupable and self._searched >= MANY_QUERIES and self._factor is not None:
            self._groupable, count = False, len(self.vectors)
            axes = principal_axes(self._factor[:count, :-1])
            if axes is not None:
                self._groups = Groups(self._factor, count, axes)

    def _check_queries(self, queries: Tensor) -> None:
        check_vectors(queries, "queries")
        if queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"queries have {queries.shape[1]} dimensions, the bank {self.vectors.shape[1]}"
            )

    def _blocks(self, queries: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
        """Yield ``(query rows, first bank index, block)``; a row's blocks come in bank order.

        A block holds half the squared distances minus half the queries' squared norms. The next
        block overwrites it. Columns past the end of the bank are infinite.
        """
        dimensions = self.vectors.shape[1]
        buffer = queries.new_empty(self._rows * self._columns)
        # As many queries at once as fit: without a centred copy, each round reads the whole bank.
        many = max(self._rows, self.memory // 8 // 4 // (dimensions + 1))
        for first in range(0, len(queries), many):
            factor = augmented(queries[first : first + many], self._mean)
            for start in range(0, len(self.vectors), self._columns):
                bank = self._bank_factor(start)
                for row, part in enumerate(factor.split(self._rows)):
                    block = buffer[: len(part) * len(bank)].view(len(part), len(bank))
                    torch.mm(part, bank.T, out=block)
                    begin = first + row * self._rows
                    yield slice(begin, begin + len(part)), start, block

    def _bank_factor(self, start: int) -> Tensor:
        """Return the bank's factor of the block at ``start``, padded to whole groups."""
        if self._factor is not None:
            return self._factor[start : start + self._columns]
        return augmented_bank(self.vectors[start : start + self._columns], self._mean, GROUP)

    def _distances(self, queries: Tensor, index: Tensor) -> Tensor:
        """Return the distances ``(M, k)`` to the bank vectors ``index (M, k)``."""
        distance = queries.new_empty(index.shape)
        # Up to three arrays of this size exist at once: gathered, subtracted, squared.
        rows = max(1, self.memory // 16 // (4 * queries.shape[1] * index.shape[1]))
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            difference = self.vectors[index[part]].sub_(queries[part, None])
            distance[part] = difference.square_().sum(dim=2).sqrt_()
        return distance


def _improve(best: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Lower ``best (m,)`` in place to the minima of ``block (m, columns)``.

    Returns:
        The rows that improved, as `_put` takes them, and the column of each one's minimum.
    """
    if _waits_for_indices(block):
        value, column = block.min(dim=1)
        better = value < best
        torch.minimum(best, value, out=best)
        return better, column
    groups = block.unflatten(1, (-1, GROUP))
    lowest = groups.amin(dim=2)
    value = lowest.amin(dim=1)
    # Later blocks improve fewer and fewer queries, and only those need the index.
    better = (value < best).nonzero()[:, 0]
    group = lowest[better].argmin(dim=1)
    best[better] = value[better]
    return better, group * GROUP + groups[better, group].argmin(dim=1)


def _waits_for_indices(block: Tensor) -> bool:
    """Return whether a list of rows makes the program wait for the device, as on a GPU.

    With masks instead, an H100 takes half the time in SPADE's galleries and in small banks.
    """
    return block.is_cuda


def _put(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """Set rows of ``target`` in place.

    Args:
        target: ``(m, ...)``.
        rows: indices with a value for each; or a mask ``(m,)`` with values for all rows.
        values: ``(len(rows), ...)``.
    """
    if rows.dtype == torch.bool:
        mask = rows.view(-1, *[1] * (target.ndim - 1))
        target.copy_(torch.where(mask, values, target))
    else:
        target[rows] = values


class Gallery:
    """Images to search in, where each query image is compared with some of them only.

    An image's vectors are read and prepared once for all query images that are compared with it.
    The images do not have to fit in memory together.

    Args:
        read: ``read(i)`` returns the vectors of image ``i``, float32 ``(P, D)``.
        keep: whether to keep the prepared images in memory for later searches.
        memory: bytes that a search may allocate besides queries, results and kept images.

    Raises:
        ValueError: as `Bank`.
    """

    @torch.no_grad()
    def __init__(self, read: Callable[[int], Tensor], *, keep: bool, memory: int = 1 << 30) -> None:
        self._read, self._keep = read, keep
        self._kept: dict[int, Tensor] = {}
        first = read(0)
        check_vectors(first, "image 0")
        # Any centre would do. This one does not depend on the queries, so that the distances of a
        # query do not depend on the others.
        self._mean = first.mean(dim=0)
        self._rows, self._columns = block_shape(first.device, memory, first.shape[1])

    def _factor(self, image: int) -> Tensor:
        if image in self._kept:
            return self._kept[image]
        vectors = self._read(image)
        check_vectors(vectors, f"image {image}")
        factor = augmented_bank(vectors, self._mean, GROUP)
        if self._keep:
            self._kept[image] = factor
        return factor

    @torch.no_grad()
    def nearest(self, queries: Tensor, among: Sequence[Sequence[int]]) -> Tensor:
        """Find the distance of each query to the nearest vector of some images.

        Args:
            queries: ``(B, Q, D)`` float32: the vectors of B query images.
            among: for each query image, the indices of the images to search in, at least one.

        Returns:
            ``(B, Q)`` Euclidean distances, as exact as those of `Bank.nearest`.

        Raises:
            ValueError: the queries, or an image, are not finite float32 vectors.
        """
        count, each, _ = queries.shape
        check_vectors(queries.flatten(0, 1), "queries")
        factors = augmented(queries.flatten(0, 1), self._mean)
        best = queries.new_full((count * each,), torch.inf)
        # The nearest vectors, not their indices: the image they belong to may not be kept.
        winners = torch.empty_like(factors)
        buffer = queries.new_empty(self._rows * self._columns)
        for image in sorted(set().union(*among)):
            bank = self._factor(image)
            parts = [
                slice(start, min(start + self._rows, (i + 1) * each))
                for i, images in enumerate(among)
                if image in images
                for start in range(i * each, (i + 1) * each, self._rows)
            ]
            for columns in bank.split(self._columns):
                for rows in parts:
                    size = rows.stop - rows.start
                    block = buffer[: size * len(columns)].view(size, len(columns))
                    torch.mm(factors[rows], columns.T, out=block)
                    better, column = _improve(best[rows], block)
                    _put(winners[rows], better, columns[column])
        # The bank's factor has the centred vectors negated: the sum is the difference.
        difference = factors[:, :-1].add_(winners[:, :-1])
        return difference.square_().sum(dim=1).sqrt_().view(count, each)


def check_vectors(vectors: Tensor, name: str) -> None:
    """Raise a ValueError unless ``vectors`` is a float32 matrix of finite values."""
    if vectors.ndim != 2 or vectors.dtype != torch.float32:
        shape, dtype = tuple(vectors.shape), vectors.dtype
        raise ValueError(f"{name}: expected a float32 matrix, got {dtype} of shape {shape}")
    # One pass without a copy: any NaN or infinity makes the norm NaN or infinite.
    if not torch.linalg.vector_norm(vectors).isfinite():
        raise ValueError(f"{name}: values that are NaN, infinite or too large to square")
