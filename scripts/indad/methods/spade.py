"""SPADE: semantic pyramid anomaly detection (Cohen and Hoshen, arXiv:2005.02357)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indad.core.errors import StoreError
from indad.core.progress import Progress, ignore
from indad.features.source import FeatureSource
from indad.methods.base import DISTANCES, Detector, one_of, true_or_false, whole_number

if TYPE_CHECKING:
    import torch

    from indad.methods.neighbors import Gallery


class SPADE(Detector):
    """Distance to the nearest images, then to the nearest feature of those images.

    Image score of an image with pooled embedding ``z`` (section 3.2, equation 2), where
    ``N(z)`` are the ``k_image`` nearest training embeddings::

        s = 1 / k_image * sum over z_n in N(z) of |z - z_n|^2

    Pixel score (section 3.3, with kappa = 1): the gallery ``G`` of an image holds the features at
    *all* positions of its ``k_pixel`` nearest training images. For the feature ``f_p`` at
    position p of a layer::

        s_p = min over g in G of |f_p - g|^2

    The maps ``(h, w)`` of the layers are upsampled to the input size, averaged over the layers and
    smoothed (Gaussian, sigma 4 pixels).

    The model holds the training embeddings ``(N, D)`` and the path of the feature store of the
    training images, not a copy of their features.

    Departures from the paper: ``k_image`` is 5 by default (see below); the distances are computed
    for each layer and averaged, where the paper concatenates the layers' features; sigma is the
    same number of pixels for every input size.

    Args:
        layers: layers of the pixel score; all extracted ones by default.
        k_image: neighbours of the image score. The paper's text says 50, but its image AUROC is
            reached only with 3 to 5.
        k_pixel: images in the gallery of the pixel score (paper: 50).
        squared: whether pixel scores are squared Euclidean distances (as in the paper), or
            distances.
        distance: ``euclidean``; or ``cosine``, half the squared distance of normalised features.
        image_score: ``neighbours``, as above; or ``max``, the maximum of the map.
        shots: number of training images to use, drawn by ``seed``; all of them by default.
        seed: draws the images; otherwise SPADE is deterministic.

    Examples:
        >>> import numpy as np
        >>> from indad.features.source import ArrayFeatures
        >>> rng = np.random.default_rng(0)
        >>> good = rng.random((9, 3, 4, 4))
        >>> train = ArrayFeatures({"layer1": good[:8]}, input_size=(16, 16))
        >>> test = ArrayFeatures({"layer1": [good[8], good[8] + 1]}, input_size=(16, 16))
        >>> detector = SPADE(k_image=3, k_pixel=4).fit(train)
        >>> scores = detector.score(test)
        >>> scores.image.round(2)
        array([0.02, 3.14], dtype=float32)
        >>> scores.maps.shape
        (2, 16, 16)
        >>> scores.maps.mean(axis=(1, 2)).round(2)
        array([0.03, 1.8 ], dtype=float32)
    """

    method = "spade"
    score_parameters = ("k_image", "k_pixel", "squared", "distance", "image_score")
    needs_gallery = True
    fit_computes = False

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        k_image: int = 5,
        k_pixel: int = 50,
        squared: bool = True,
        distance: str = "euclidean",
        image_score: str = "neighbours",
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, shots=shots, seed=seed)
        self.k_image = whole_number("k_image", k_image, 1)
        self.k_pixel = whole_number("k_pixel", k_pixel, 1)
        self.squared = true_or_false("squared", squared)
        self.distance = one_of("distance", distance, DISTANCES)
        self.image_score = one_of("image_score", image_score, ("neighbours", "max"))

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        self.gallery_, self.z_ = train, train.embedding()
        self._galleries: dict[str, Gallery] = {}

    def _gallery(self, layer: str) -> Gallery:
        """Return the features of the training images at all positions of a layer, to search in."""
        import torch

        from indad.methods.neighbors import Gallery

        def read(image: int) -> torch.Tensor:
            maps = torch.from_numpy(self.gallery_.maps(layer, slice(image, image + 1)))
            return self._compared(maps.to(self.device_)[0].flatten(1).T)

        if layer not in self._galleries:
            # Kept in memory if all layers fit, otherwise read again for every batch of images.
            numbers = sum(
                math.prod(self.gallery_.shape(name, image))
                for name in self.layers_
                for image in range(len(self.gallery_))
            )
            keep = 4 * numbers <= self.memory_
            self._galleries[layer] = Gallery(read, keep=keep, memory=self.memory_)
        return self._galleries[layer]

    def _compared(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors ``(..., D)`` whose Euclidean distances are searched."""
        from torch.nn.functional import normalize

        return normalize(vectors, dim=-1) if self.distance == "cosine" else vectors

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        import torch

        from indad.methods.neighbors import Bank

        neighbours = min(max(self.k_image, self.k_pixel), len(self.z_))
        bank = Bank(self._compared(torch.from_numpy(self.z_).to(self.device_)), self.memory_)
        distance, index = bank.k_nearest(self._compared(z), neighbours)
        galleries = index[:, : self.k_pixel].tolist()
        patch_maps = []
        for name, maps in layers.items():
            queries = self._compared(maps.flatten(2).transpose(1, 2))
            found = self._gallery(name).nearest(queries, galleries).view(len(maps), *maps.shape[2:])
            if self.distance == "cosine":
                found = found.square() / 2
            elif self.squared:
                found = found.square()
            patch_maps.append(found)
        if self.image_score == "max":
            return None, patch_maps
        image_scores = distance[:, : self.k_image].square().mean(dim=1)
        return (image_scores / 2 if self.distance == "cosine" else image_scores), patch_maps

    def _header(self, path: Path) -> dict[str, Any]:
        """Return the header, with the gallery's path relative to the model file's folder."""
        gallery = self.gallery_
        link = None if gallery.path is None else os.path.relpath(gallery.path, path.parent)
        return super()._header(path) | {"gallery": {"path": link, "identity": gallery.identity}}

    def _state(self) -> dict[str, np.ndarray]:
        return {"z": self.z_}

    def _restore(self, state: Mapping[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        if gallery is None:
            raise StoreError(
                "a SPADE model needs the feature store of its training images: pass that store's "
                "train split as 'gallery'"
            )
        self._fit(self.draw(gallery), ignore)
        if not np.array_equal(self.z_, state["z"].cpu()):
            raise StoreError(
                f"the gallery {gallery.path or '(in memory)'} is not the one this SPADE model was "
                "fitted on: its embeddings differ; fit the model again"
            )
