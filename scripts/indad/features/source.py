"""The features of N images as a method reads them, from memory or from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from indad.data.images import Size


class FeatureSource(Protocol):
    """Feature maps of ``len(source)`` images, read in parts.

    Attributes:
        layers: names of the layers, in the configured order.
        input_size: ``(H, W)`` of the images of the features, the size of the anomaly maps.
        path: the file of the features, or None for features in memory.
        identity: a fingerprint of the content, by which a model recognises its gallery.
    """

    layers: tuple[str, ...]
    input_size: Size
    path: str | None
    identity: str

    def __len__(self) -> int: ...

    def shape(self, layer: str) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer."""
        ...

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)`` of some images and some rows of the grid."""
        ...

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return the pooled image embedding z, float32 ``(n, D)``."""
        ...


class ArrayFeatures:
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
        self.layers = tuple(maps)
        self.input_size = input_size
        self._maps = {name: np.asarray(value, np.float32) for name, value in maps.items()}
        last = self._maps[self.layers[-1]]
        self._embedding = (
            last.mean(axis=(2, 3)) if embedding is None else np.asarray(embedding, np.float32)
        )

    def __len__(self) -> int:
        return len(self._embedding)

    def shape(self, layer: str) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer."""
        _, channels, height, width = self._maps[layer].shape
        return channels, height, width

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)``."""
        return self._maps[layer][images, :, rows]

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return float32 ``(n, D)``."""
        return self._embedding[images]


class Subset:
    """Some images of another feature source.

    Args:
        source: the features.
        images: ascending indices into them, each once.
    """

    def __init__(self, source: FeatureSource, images: Sequence[int]) -> None:
        self.layers, self.input_size = source.layers, source.input_size
        self.path, self.identity = source.path, source.identity
        self.images = [int(image) for image in images]
        self._source = source

    def __len__(self) -> int:
        return len(self.images)

    def shape(self, layer: str) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of a layer."""
        return self._source.shape(layer)

    def maps(
        self, layer: str, images: slice = slice(None), rows: slice = slice(None)
    ) -> np.ndarray:
        """Return float32 ``(n, C, rows, w)``."""
        parts = [self._source.maps(layer, slice(i, i + 1), rows) for i in self.images[images]]
        return np.concatenate(parts)

    def embedding(self, images: slice = slice(None)) -> np.ndarray:
        """Return float32 ``(n, D)``."""
        return self._source.embedding()[self.images[images]]


def chunks(count: int, size: int) -> list[slice]:
    """Cut ``range(count)`` into slices of at most ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
