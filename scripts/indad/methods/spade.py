"""SPADE: semantic pyramid anomaly detection (Cohen and Hoshen, arXiv:2005.02357)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indad.core.errors import StoreError
from indad.core.progress import Progress
from indad.features.source import FeatureSource
from indad.methods.base import Detector

if TYPE_CHECKING:
    import torch

    from indad.methods.neighbors import Gallery


class SPADE(Detector):
    """K nearest images, then the nearest feature among all positions of those images.

    Image score: mean squared Euclidean distance of the pooled embedding z to its ``k_image``
    nearest training images (section 3.2, equation 2). Pixel score: the gallery of a test image is
    the features at *all* positions of its ``k_pixel`` nearest training images; each position's
    score is the Euclidean distance to the nearest gallery feature (section 3.3, kappa = 1), per
    layer, upsampled, averaged over layers and smoothed.

    The model is a link to the feature store of the training images, not a copy.

    Args:
        layers: layers of the pixel score; all extracted ones when left out.
        k_image: neighbours of the image score. The paper's text says 50; its image AUROC is only
            reached with 3 to 5.
        k_pixel: images in the gallery of the pixel score (paper: 50).
        seed: unused, SPADE is deterministic.
    """

    method = "spade"
    score_parameters = ("k_image", "k_pixel")
    needs_gallery = True

    k_image: int
    k_pixel: int

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        k_image: int = 5,
        k_pixel: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, k_image=k_image, k_pixel=k_pixel, seed=seed)
        for name in ("k_image", "k_pixel"):
            value = self._parameters[name]
            self.check(name, "a whole number of at least 1", isinstance(value, int) and value >= 1)

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        import torch

        self.gallery_ = train
        self.z_ = torch.from_numpy(train.embedding()).to(self.device)
        self._galleries: dict[str, Gallery] = {}

    def _gallery(self, layer: str) -> Gallery:
        """Return the training images' features at all positions of a layer, to search among."""
        import torch

        from indad.methods.neighbors import Gallery

        def read(image: int) -> torch.Tensor:
            maps = torch.from_numpy(self.gallery_.maps(layer, slice(image, image + 1)))
            return maps.to(self.device)[0].flatten(1).T

        if layer not in self._galleries:
            # Kept in memory if all layers fit, else read anew for every batch of test images.
            numbers = sum(math.prod(self.gallery_.shape(name)) for name in self.layers_)
            keep = 4 * len(self.gallery_) * numbers <= self.memory
            self._galleries[layer] = Gallery(read, keep=keep, memory=self.memory)
        return self._galleries[layer]

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:

        from indad.methods.neighbors import k_nearest

        count = len(self.z_)
        neighbours = min(max(self.k_image, self.k_pixel), count)
        distance, index = k_nearest(z, self.z_, neighbours, memory=self.memory)
        image_scores = distance[:, : self.k_image].square().mean(dim=1)
        galleries = index[:, : self.k_pixel].tolist()
        patch_maps = [
            self._gallery(name)
            .nearest(maps.flatten(2).transpose(1, 2), galleries)
            .view(len(maps), *maps.shape[2:])
            for name, maps in layers.items()
        ]
        return image_scores, patch_maps

    def header(self, path: Path) -> dict[str, Any]:
        """Describe the model, with the link to its gallery relative to the model file."""
        gallery = self.gallery_
        link = None if gallery.path is None else os.path.relpath(gallery.path, path.parent)
        return super().header(path) | {"gallery": {"path": link, "identity": gallery.identity}}

    def _state(self) -> dict[str, torch.Tensor]:
        return {"z": self.z_}

    def _restore(self, state: dict[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        if gallery is None:
            raise StoreError(
                "a SPADE model is a link to the feature store of its training images: pass that "
                "store's train split as 'gallery'"
            )
        self._fit(gallery, lambda done, total: None)
        if not self.z_.equal(state["z"]):
            raise StoreError(
                f"the gallery {gallery.path or '(in memory)'} is not the one this SPADE model was "
                "fitted on: its embeddings differ; fit the model again"
            )
