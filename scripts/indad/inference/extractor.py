"""Features of new images, made in the same way as the features a model was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from indad.core.device import smaller
from indad.features.source import ArrayFeatures

if TYPE_CHECKING:
    from indad.features.backbone import Backbone


class Extractor:
    """Runs a backbone on images in memory.

    Args:
        backbone: the backbone of the model's features, on ``device``.
        made_with: the settings of the model's features.
        device: ``cpu`` or ``cuda``.
        batch_size: images that the backbone gets at once. It is halved when a GPU's memory is too
            small for them.
    """

    def __init__(
        self, backbone: Backbone, made_with: Mapping[str, Any], device: str, batch_size: int
    ) -> None:
        from indad.features.extract import Preprocessing

        self.backbone, self.made_with, self.batch_size = backbone, made_with, batch_size
        self._normalise = Preprocessing(made_with["mean"], made_with["std"], device)

    def __call__(self, pixels: np.ndarray) -> ArrayFeatures:
        """Return the features of images, uint8 ``(N, H, W, 3)``.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        import torch

        parts, start = [], 0
        while start < len(pixels):
            images = pixels[start : start + self.batch_size]
            try:
                parts.append(self._features(images))
            except torch.cuda.OutOfMemoryError:
                self.batch_size = smaller(self.batch_size, "a batch of {} images")
                continue
            start += len(images)
        maps, embeddings = zip(*parts, strict=True)
        return ArrayFeatures(
            {name: np.concatenate([each[name] for each in maps]) for name in maps[0]},
            input_size=pixels.shape[1:3],
            embedding=np.concatenate(embeddings),
        )

    def _features(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the layer maps and embeddings of one batch."""
        from indad.features.extract import features_of

        made = self.made_with
        maps, z = features_of(
            self.backbone, self._normalise(images), made["layers"], made["embedding"]
        )
        # Rounded to the type of the stored features, which may be float16.
        arrays = {name: value.cpu().numpy().astype(made["dtype"]) for name, value in maps.items()}
        return arrays, z.cpu().numpy()
