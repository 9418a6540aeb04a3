"""The scores of all pixels in descending order, in pieces that fit in memory.

An external sort. Scores become integer keys, and blocks of them are sorted. If there is more than
one block, the sorted blocks (runs) are written to a temporary file. They are then split at a key
until the scores of each part fit in memory: a part of every run is read and sorted. With one block
nothing is written, and there is one piece.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np

#: Bytes of keys in a block. A negative takes 4, a positive 64: its curve is computed from it.
BLOCK = 256 << 20
_NEGATIVE, _POSITIVE = 4, 64
_LAST = 0xFFFFFFFF


class Piece(NamedTuple):
    """All scores between two keys. Keys ascend as the scores descend.

    Attributes:
        negative: ascending keys of negatives, uint32.
        positive: ``key << 32 | region`` of positives, ascending, uint64.
        negative_times: how often each element of ``negative`` occurs.
        positive_times: how often each element of ``positive`` occurs; None for once.
    """

    negative: np.ndarray
    positive: np.ndarray
    negative_times: int = 1
    positive_times: np.ndarray | None = None

    @property
    def negatives(self) -> int:
        """The number of negatives."""
        return len(self.negative) * self.negative_times

    @property
    def positive_keys(self) -> np.ndarray:
        """Keys of ``positive``, uint32."""
        return (self.positive >> np.uint64(32)).astype(np.uint32)

    def positives_upto(self, ends: np.ndarray) -> np.ndarray:
        """Return the numbers of positives among the first ``ends`` elements."""
        if self.positive_times is None:
            return ends
        return np.r_[0, np.cumsum(self.positive_times)][ends]

    def negatives_before(self, keys: np.ndarray, side: str) -> np.ndarray:
        """Return the numbers of negatives with smaller keys; ``side="right"``: or equal ones."""
        return np.searchsorted(self.negative, keys, side) * self.negative_times


class _Stored(NamedTuple):
    """A sorted array in the temporary file.

    Attributes:
        keys: the array, memory-mapped. It is only searched: pages read through it stay in memory.
        offset: its position in the file, in bytes.
        shift: number of bits below the key in each element.
    """

    keys: np.ndarray
    offset: int
    shift: int

    def between(self, low: int, high: int) -> range:
        """Return the indices of the keys from ``low`` to ``high``, both included."""
        kind = self.keys.dtype.type
        start = np.searchsorted(self.keys, kind(low << self.shift))
        stop = np.searchsorted(self.keys, kind((high + 1 << self.shift) - 1), "right")
        return range(int(start), int(stop))


class SortedScores:
    """Scores of pixels, sorted from the highest down, each with the number of its region.

    Attributes:
        area: number of pixels of each region, ``(R + 1,)``; 0 for region 0.
        positives, negatives: numbers of pixels.
    """

    def __init__(
        self,
        images: Iterable[tuple[np.ndarray, np.ndarray]],
        folder: Path | None = None,
        *,
        block: float = BLOCK,
    ) -> None:
        """Sort the scores of images.

        Args:
            images: per image its scores, compared as float32, and integers of the same shape: 0 for
                a negative, 1 to R for a positive of that region. A region is within one image.
            folder: where a temporary file may be created; by default that of the system.
            block: bytes of keys to hold at once.

        Raises:
            ValueError: the shapes differ, or a score is not finite.
        """
        self._folder, self._block = folder, block
        self._file: IO[bytes] | None = None
        self._only: list[tuple[np.ndarray, np.ndarray]] = []  # in memory, if it is the only run
        self._negative: list[_Stored] = []
        self._positive: list[_Stored] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._bytes = 0
        self.area = np.zeros(1, np.int64)
        self.positives = self.negatives = 0
        for scores, regions in images:
            if scores.shape != regions.shape:
                raise ValueError(
                    f"scores {scores.shape} and labels {regions.shape} differ in shape"
                )
            values = scores.astype(np.float32, copy=False).reshape(-1)
            if not np.isfinite(values).all():
                raise ValueError("scores must be finite")
            self._add(_keys_of(values), regions.reshape(-1))
        self._sort_block(last=True)

    @classmethod
    def from_arrays(cls, scores: np.ndarray, regions: np.ndarray) -> Self:
        """Sort scores of any shape in memory."""
        return cls([(np.asarray(scores), np.asarray(regions))], block=np.inf)

    def _add(self, keys: np.ndarray, regions: np.ndarray) -> None:
        at = np.flatnonzero(regions)
        found = regions[at].astype(np.uint64)
        packed = keys[at].astype(np.uint64) << np.uint64(32) | found
        negative = np.delete(keys, at) if len(at) else keys
        counts = np.bincount(found.astype(np.int64))
        size = max(len(counts), len(self.area))
        self.area = np.pad(self.area, (0, size - len(self.area)))
        self.area[: len(counts)] += counts
        self.positives += len(packed)
        self.negatives += len(negative)
        self._waiting.append((negative, packed))
        self._bytes += _NEGATIVE * len(negative) + _POSITIVE * len(packed)
        if self._bytes > self._block:
            self._sort_block()

    def _sort_block(self, last: bool = False) -> None:
        """Sort what is waiting as one run; write it to disk unless it is the only one."""
        if not self._waiting:
            return
        run = tuple(np.concatenate(each) for each in zip(*self._waiting, strict=True))
        self._waiting, self._bytes = [], 0
        for keys in run:
            keys.sort()
        if last and self._file is None:
            self._only = [run]
            return
        negative, positive = run
        self._negative.append(self._written(negative, 0))
        self._positive.append(self._written(positive, 32))

    def _written(self, keys: np.ndarray, shift: int) -> _Stored:
        """Write an array to the temporary file."""
        if self._file is None:
            # Without a name: it is gone when the process ends, however it ends.
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._file.seek(0, 2)
        offset = self._file.tell()
        keys.tofile(self._file)
        self._file.flush()
        if len(keys):  # an empty array cannot be mapped
            keys = np.memmap(self._file, keys.dtype, "r", offset, keys.shape).view(np.ndarray)
        return _Stored(keys, offset, shift)

    def pieces(self) -> Iterator[Piece]:
        """Yield all scores in pieces, the highest scores first; equal scores are in one piece."""
        if self._file is None:
            yield from (Piece(*run) for run in self._only)
        else:
            yield from self._between(0, _LAST)

    def _between(self, low: int, high: int) -> Iterator[Piece]:
        """Yield the scores with keys from ``low`` to ``high``, both included, in pieces."""
        negative, positive = (
            [(each, each.between(low, high)) for each in stored]
            for stored in (self._negative, self._positive)
        )
        negatives, positives = (
            sum(len(part) for _, part in parts) for parts in (negative, positive)
        )
        size = _NEGATIVE * negatives + _POSITIVE * positives
        if size > self._block and low < high:
            largest, part = max(negative + positive, key=lambda each: len(each[1]))
            middle = int(largest.keys[part[len(part) // 2]]) >> largest.shift
            middle = min(middle, high - 1)
            yield from self._between(low, middle)
            yield from self._between(middle + 1, high)
        elif size > self._block:
            yield self._tie(low, negatives, positive)
        elif size:
            yield Piece(self._sorted(negative), self._sorted(positive))

    def _sorted(self, parts: Iterable[tuple[_Stored, range]]) -> np.ndarray:
        """Read parts of stored arrays, and sort them as one."""
        keys = np.concatenate([self._read(*each) for each in parts])
        keys.sort()
        return keys

    def _read(self, stored: _Stored, part: range) -> np.ndarray:
        """Read a part of a stored array."""
        assert self._file is not None
        self._file.seek(stored.offset + part.start * stored.keys.itemsize)
        return np.fromfile(self._file, stored.keys.dtype, len(part))

    def _tie(self, key: int, negatives: int, positive: Iterable[tuple[_Stored, range]]) -> Piece:
        """Return a piece of one key with more scores than fit in memory: they are counted."""
        times = np.zeros(len(self.area), np.int64)
        for each in positive:
            region = (self._read(*each) & np.uint64(_LAST)).astype(np.int64)
            times += np.bincount(region, minlength=len(times))
        region = np.flatnonzero(times)
        return Piece(
            np.full(min(negatives, 1), key, np.uint32),
            np.uint64(key << 32) | region.astype(np.uint64),
            negatives,
            times[region],
        )

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """Return the keys of negatives by rank, ``(n,)``; rank 0 has the highest score."""
        keys = np.zeros(len(ranks), np.uint32)
        before = 0
        for piece in self.pieces():
            inside = (ranks >= before) & (ranks < before + piece.negatives)
            keys[inside] = piece.negative[(ranks[inside] - before) // piece.negative_times]
            before += piece.negatives
        return keys


def median(maps: Iterable[np.ndarray], folder: Path | None = None) -> float:
    """Return the median of the pixels of float32 maps; as ``np.median``, in bounded memory."""
    ordered = SortedScores(((each, np.zeros(each.shape, np.uint8)) for each in maps), folder)
    middle = np.array([(ordered.negatives - 1) // 2, ordered.negatives // 2])
    return float(scores_of(ordered.negatives_at(middle)).mean())


def _keys_of(scores: np.ndarray) -> np.ndarray:
    """Return uint32 keys that ascend as float32 scores descend."""
    # The bits of a float32, read as an integer, have the same order once the sign is handled.
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 + 0 is 0.0: the two tie
    negative = bits >> np.uint32(31) != 0
    return ~np.where(negative, ~bits, bits | np.uint32(1 << 31))


def scores_of(keys: np.ndarray) -> np.ndarray:
    """Return the float32 scores of keys."""
    bits = ~keys
    positive = bits >> np.uint32(31) != 0
    return np.where(positive, bits & np.uint32((1 << 31) - 1), ~bits).view(np.float32)
