"""The features of N images as a method reads them, from memory or from disk."""

import bisect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from indad.data.images import Size


class FeatureSource(Protocol):
    """Feature maps of ``len(source)`` images, read in parts.

    Images of one size follow each other.

    Attributes:
        layers: names of the layers, in the configured order.
        input_size: ``(H, W)`` of the images of the features, the size of the anomaly maps; None if
            the images differ in size.
        starts: index of the first image of each size.
        path: the file of the features, or None for features in memory.
        identity: a fingerprint of the content, by which a model recognises its gallery.
    """

    layers: tuple[str, ...]
    input_size: Size | None
    starts: Sequence[int]
    path: str | None
    identity: str

    def __len__(self) -> int: ...

    def size_of(self, image: int) -> Size:
        """Return ``(H, W)`` of an image."""
        ...

    def shape(self, layer: str, image: int = 0) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer of an image."""
        ...

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)`` of some images of one size, some rows of the grid."""
        ...

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return the pooled image embedding z, float32 ``(n, D)``."""
        ...


class OneSize:
    """The features of images of one size: what features in memory and on disk share.

    Args:
        layers: their names.
        maps: layer name to ``(N, C, h, w)``, arrays or datasets of a file.
        embedding: ``(N, D)``, likewise.
        input_size: ``(H, W)`` in pixels of the images.
    """

    starts = (0,)

    def __init__(
        self, layers: Sequence[str], maps: Mapping[str, Any], embedding: Any, input_size: Size
    ) -> None:
        self.layers, self.input_size = tuple(layers), input_size
        self._maps, self._embedding = maps, embedding

    def __len__(self) -> int:
        return len(self._embedding)

    def size_of(self, image: int) -> Size:
        """Return ``(H, W)`` of an image."""
        return self.input_size

    def shape(self, layer: str, image: int = 0) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer."""
        _, channels, height, width = self._maps[layer].shape
        return channels, height, width

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)``."""
        return self._maps[layer][images, :, rows].astype(np.float32, copy=False)

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return float32 ``(n, D)``."""
        return self._embedding[images]


class ArrayFeatures(OneSize):
    """Features held in memory.

    Args:
        maps: layer name to ``(N, C, h, w)``.
        embedding: ``(N, D)``; by default the mean over the positions of the last layer.
        input_size: ``(H, W)`` in pixels of the images.
    """

    path, identity = None, "memory"

    def __init__(
        self,
        maps: Mapping[str, np.ndarray],
        *,
        input_size: Size,
        embedding: np.ndarray | None = None,
    ) -> None:
        if len({len(layer) for layer in maps.values()}) != 1:
            raise ValueError("every layer must hold the same number of images, and at least one")
        arrays = {name: np.asarray(value, np.float32) for name, value in maps.items()}
        last = arrays[next(reversed(arrays))]
        pooled = last.mean(axis=(2, 3)) if embedding is None else np.asarray(embedding, np.float32)
        super().__init__(list(maps), arrays, pooled, input_size)


class Subset:
    """Some images of another feature source.

    Args:
        source: the features.
        images: ascending indices into them, each once.
    """

    def __init__(self, source: FeatureSource, images: Sequence[int]) -> None:
        self.layers = source.layers
        self.path, self.identity = source.path, source.identity
        self.images = [int(image) for image in images]
        sizes = [source.size_of(image) for image in self.images]
        self.starts = [i for i, size in enumerate(sizes) if not i or size != sizes[i - 1]]
        self.input_size = sizes[0] if len(self.starts) == 1 else None
        self._source = source

    def __len__(self) -> int:
        return len(self.images)

    def size_of(self, image: int) -> Size:
        """Return ``(H, W)`` of an image."""
        return self._source.size_of(self.images[image])

    def shape(self, layer: str, image: int = 0) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer of an image."""
        return self._source.shape(layer, self.images[image])

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)`` of images of one size."""
        parts = [self._source.maps(layer, slice(i, i + 1), rows) for i in self.images[images]]
        return np.concatenate(parts)

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return float32 ``(n, D)``."""
        return self._source.embedding()[self.images[images]]


class SeveralSizes:
    """The features of images of several sizes.

    Args:
        parts: features of the images of each size.
    """

    input_size = None

    def __init__(self, parts: Sequence[FeatureSource]) -> None:
        first = parts[0]
        self.layers, self.path, self.identity = first.layers, first.path, first.identity
        self._parts = parts
        *self.starts, self._count = np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        return self._count

    def _at(self, image: int) -> tuple[FeatureSource, int]:
        """Return the part that has an image, and the index of the part's first image."""
        number = bisect.bisect_right(self.starts, image) - 1
        return self._parts[number], self.starts[number]

    def size_of(self, image: int) -> Size:
        """Return ``(H, W)`` of an image."""
        return self._at(image)[0].size_of(0)

    def shape(self, layer: str, image: int = 0) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer of an image."""
        return self._at(image)[0].shape(layer)

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)`` of images of one size."""
        first, last, _ = images.indices(len(self))
        part, start = self._at(first)
        if last - start > len(part):
            raise ValueError(f"images {first} to {last - 1} differ in size")
        return part.maps(layer, slice(first - start, last - start), rows)

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return float32 ``(n, D)``."""
        return np.concatenate([part.embedding() for part in self._parts])[images]


def chunks_of(source: FeatureSource, size: int, images: slice = slice(None)) -> list[slice]:
    """Cut images of a source into slices of at most ``size`` images of one size."""
    first, last, _ = images.indices(len(source))
    edges = [first, *(start for start in source.starts if first < start < last), last]
    return [
        slice(start + part.start, start + part.stop)
        for start, end in pairwise(edges)
        for part in chunks(end - start, size)
    ]


def chunks(count: int, size: int) -> list[slice]:
    """Cut ``range(count)`` into slices of at most ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
