"""The features of N images as a method reads them, from memory or from disk."""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from indad.data.images import Size


class Part(NamedTuple):
    """The features of images of one size: arrays, or datasets of a file.

    Attributes:
        maps: layer name to ``(N, C, h, w)``.
        embedding: pooled image embeddings, ``(N, D)``.
        size: ``(H, W)`` in pixels of the images.
    """

    maps: Mapping[str, Any]
    embedding: Any
    size: Size


class FeatureSource:
    """Feature maps of ``len(source)`` images, read in parts.

    Images of one size follow each other.

    Args:
        layers: their names, in the configured order.
        parts: the features of the images of each size.
        images: number of the part, and index in it, of each image in use; all by default.
        path: the file of the features, or None for features in memory.
        identity: a fingerprint of the content, by which a model recognises its gallery.

    Attributes:
        layers, images, path, identity: as given.
        input_size: ``(H, W)`` of the images of the features, the size of the anomaly maps; None if
            the images differ in size.
        starts: index of the first image of each size.
    """

    def __init__(
        self,
        layers: Sequence[str],
        parts: Sequence[Part],
        images: Sequence[tuple[int, int]] | None = None,
        *,
        path: str | None = None,
        identity: str = "memory",
    ) -> None:
        self.layers, self.path, self.identity = tuple(layers), path, identity
        self._parts = parts
        if images is None:
            images = [(n, i) for n, part in enumerate(parts) for i in range(len(part.embedding))]
        self.images = images
        numbers = [number for number, _ in images]
        self.starts = [i for i, n in enumerate(numbers) if not i or n != numbers[i - 1]]
        self.input_size = self.size_of(0) if len(self.starts) == 1 else None

    def subset(self, images: Sequence[int]) -> "FeatureSource":
        """Return the features of some images, given by their ascending indices."""
        chosen = [self.images[image] for image in images]
        return FeatureSource(
            self.layers, self._parts, chosen, path=self.path, identity=self.identity
        )

    def __len__(self) -> int:
        return len(self.images)

    def size_of(self, image: int) -> Size:
        """Return ``(H, W)`` of an image."""
        return self._parts[self.images[image][0]].size

    def shape(self, layer: str, image: int = 0) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer of an image."""
        return self._parts[self.images[image][0]].maps[layer].shape[1:]

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)`` of some images of one size, some rows of the grid."""
        (part, chosen), *others = self._by_part(images)
        if others:
            first, last, _ = images.indices(len(self))
            raise ValueError(f"images {first} to {last - 1} differ in size")
        stored, first, last = part.maps[layer], chosen[0], chosen[-1] + 1
        if last - first == len(chosen):
            values = stored[first:last, :, rows]
        else:
            values = np.stack([stored[image, :, rows] for image in chosen])
        return values.astype(np.float32, copy=False)

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return the pooled image embedding z, float32 ``(n, D)``."""
        found = []
        for part, chosen in self._by_part(images):
            first = chosen[0]
            found.append(part.embedding[first : chosen[-1] + 1][np.subtract(chosen, first)])
        return np.concatenate(found)

    def _by_part(self, images: slice) -> list[tuple[Part, list[int]]]:
        """Return the parts that have some images, and the images' indices in each."""
        by_part = groupby(self.images[images], itemgetter(0))
        return [(self._parts[number], [i for _, i in group]) for number, group in by_part]


class ArrayFeatures(FeatureSource):
    """Features of images of one size, held in memory.

    Args:
        maps: layer name to ``(N, C, h, w)``.
        embedding: ``(N, D)``; by default the mean over the positions of the last layer.
        input_size: ``(H, W)`` in pixels of the images.
    """

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
        super().__init__(list(maps), [Part(arrays, pooled, input_size)])


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
