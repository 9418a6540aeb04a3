"""The three methods as the papers describe them, slowly and in float64: the expected values."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def bilinear(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample ``(..., h, w)`` with half-pixel centres, pixel by pixel."""
    *rest, h, w = images.shape
    out = np.empty((*rest, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            a, b = y - y0, x - x0
            upper = (1 - b) * images[..., y0, x0] + b * images[..., y0, x1]
            lower = (1 - b) * images[..., y1, x0] + b * images[..., y1, x1]
            out[..., i, j] = (1 - a) * upper + a * lower
    return out


def smooth(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, 4, mode="reflect", truncate=4.0)


def spade(train, test, layers, k_image, k_pixel, power=2):
    """Image scores and maps; ``train`` and ``test`` are ArrayFeatures."""
    images, maps = [], []
    gallery_z, test_z = train.embedding().astype(float), test.embedding().astype(float)
    for t in range(len(test)):
        squared = ((gallery_z - test_z[t]) ** 2).sum(axis=1)
        order = np.argsort(squared)
        images.append(np.mean(squared[order[:k_image]]))
        layer_maps = []
        for layer in layers:
            gallery = np.moveaxis(train.maps(layer)[order[:k_pixel]].astype(float), 1, 3)
            query = test.maps(layer)[t].astype(float)
            low = np.empty(query.shape[1:])
            for i in range(low.shape[0]):
                for j in range(low.shape[1]):
                    distance = np.sqrt(((gallery - query[:, i, j]) ** 2).sum(axis=3)).min()
                    low[i, j] = distance**power
            layer_maps.append(bilinear(low, test.input_size))
        maps.append(smooth(np.mean(layer_maps, axis=0)))
    return np.array(images), np.array(maps)


def padim(train, test, layers, channels, epsilon=0.01):
    """Image scores and maps; ``channels`` are numbers in the concatenation of the layers."""
    _, h, w = train.shape(layers[0])

    def embed(source):
        parts = []
        for layer in layers:
            maps = source.maps(layer).astype(float)
            rows = [i * maps.shape[2] // h for i in range(h)]
            columns = [j * maps.shape[3] // w for j in range(w)]
            parts.append(maps[:, :, rows][:, :, :, columns])
        return np.concatenate(parts, axis=1)[:, channels]

    learned, queries = embed(train), embed(test)
    low = np.empty((len(test), h, w))
    for i in range(h):
        for j in range(w):
            x = learned[:, :, i, j]
            mean = x.mean(axis=0)
            covariance = np.atleast_2d(np.cov(x, rowvar=False)) + epsilon * np.eye(x.shape[1])
            inverse = np.linalg.inv(covariance)
            for t in range(len(test)):
                d = queries[t, :, i, j] - mean
                low[t, i, j] = np.sqrt(d @ inverse @ d)
    maps = np.array([smooth(each) for each in bilinear(low, test.input_size)])
    return maps.max(axis=(1, 2)), maps


def neighbourhood(maps: np.ndarray, i: int, j: int) -> np.ndarray:
    """The zero-padded 3x3 neighbourhood of ``(C, h, w)`` at a position: ``(C, 9)``."""
    padded = np.pad(maps.astype(float), ((0, 0), (1, 1), (1, 1)))
    return padded[:, i : i + 3, j : j + 3].reshape(len(maps), 9)


def adaptive_pool(values: np.ndarray, size: int) -> np.ndarray:
    """Average ``(n, ...)`` to ``(size, ...)``, over the ranges of torch's adaptive pooling."""
    n = len(values)
    return np.array(
        [values[i * n // size : -(-(i + 1) * n // size)].mean(axis=0) for i in range(size)]
    )


def patch_embedding(source, layers, kind, size=1024):
    """Embeddings ``(N, h, w, D)``, resizing the unfolded neighbourhoods as the authors do."""
    _, h, w = source.shape(layers[0])
    result = []
    for n in range(len(source)):
        per_layer = []
        for layer in layers:
            maps = source.maps(layer)[n]
            c, lh, lw = maps.shape
            unfolded = np.empty((c * 9, lh, lw))
            for i in range(lh):
                for j in range(lw):
                    unfolded[:, i, j] = neighbourhood(maps, i, j).reshape(-1)
            per_layer.append(bilinear(unfolded, (h, w)))
        if kind == "official":
            image = adaptive_pool(np.concatenate([adaptive_pool(v, size) for v in per_layer]), size)
        else:
            image = np.concatenate([v.reshape(-1, 9, h, w).mean(axis=1) for v in per_layer])
        result.append(np.moveaxis(image, 0, 2))
    return np.array(result)


def patchcore_scores(bank, queries, size, neighbours=1, power=2):
    """Image scores and maps of query embeddings ``(N, h, w, D)`` against a bank."""
    images, maps = [], []
    for query in queries:
        h, w, _ = query.shape
        low, match = np.empty((h, w)), np.empty((h, w), dtype=int)
        for i in range(h):
            for j in range(w):
                distances = np.sqrt(((bank - query[i, j]) ** 2).sum(axis=1))
                match[i, j], low[i, j] = distances.argmin(), distances.min()
        i, j = np.unravel_index(low.argmax(), low.shape)
        score = low[i, j]
        if neighbours > 1:
            star = bank[match[i, j]]
            near = np.argsort(((bank - star) ** 2).sum(axis=1))[:neighbours]
            spread = np.exp(np.sqrt(((bank[near] - query[i, j]) ** 2).sum(axis=1))).sum()
            score = (1 - np.exp(score) / spread) * score
        images.append(score)
        maps.append(smooth(bilinear(low**power, size)))
    return np.array(images), np.array(maps)
