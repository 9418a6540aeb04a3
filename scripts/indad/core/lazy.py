"""Sequences whose items are read or computed each time they are used."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class LazySequence(Sequence[Item]):
    """A sequence that holds no items.

    Args:
        count: number of items.
        read: returns the item with a number from 0 to ``count - 1``.
    """

    def __init__(self, count: int, read: Callable[[int], Item]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Item:  # type: ignore[override]
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._read(int(number))
