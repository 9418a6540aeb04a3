"""The extractors of a configuration: a backbone, its layers, and the size of the images it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from indad.core.errors import ConfigError, IndadError
from indad.core.names import path_problem
from indad.data.images import Geometry
from indad.features import weights
from indad.pipeline.dataset import Dataset

#: Resize and crop of the papers: those of an extractor, unless the configuration gives others.
USUAL_SIZE = {"resize": 256, "crop": 224}


@dataclass(frozen=True)
class Extractor:
    """A backbone, the layers whose output is stored, and the size of the images it gets.

    Attributes:
        name: as in the configuration.
        settings: all settings, defaults filled in.
        own_size: whether its configuration has ``resize`` or ``crop``.
    """

    name: str
    settings: Mapping[str, Any]
    own_size: bool = False

    @classmethod
    def from_config(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Fill in the defaults that depend on other settings.

        Raises:
            ConfigError: the crop is larger than the resized image.
        """
        complete = {"weights": None, **USUAL_SIZE, **settings}
        complete["embedding"] = complete.get("embedding") or complete["layers"][-1]
        crop, resize = complete["crop"], complete["resize"]
        if isinstance(crop, int) and isinstance(resize, int) and crop > resize:
            raise ConfigError(
                f"extractors.{name}.crop: {crop} is larger than resize, {resize}; it must be at "
                "most that, or null for no crop"
            )
        return cls(name, complete, not USUAL_SIZE.keys().isdisjoint(settings))

    def on(self, dataset: Dataset) -> Self:
        """Return the extractor with the data set's ``resize``, unless it has a size of its own."""
        if self.own_size or dataset.resize is None:
            return self
        return replace(self, settings={**self.settings, "resize": dataset.resize, "crop": None})

    @property
    def backbone(self) -> str:
        """The name of the network in timm."""
        return self.settings["backbone"]

    @property
    def weights(self) -> str | None:
        """Where the weights come from; None for timm's pretrained ones."""
        return self.settings["weights"]

    @property
    def geometry(self) -> Geometry:
        """Resize and crop of the images."""
        return Geometry.from_config(self.settings["resize"], self.settings["crop"])

    def weights_file(self, results: Path) -> Path | None:
        """Return the file of weights whose change changes the features.

        Returns:
            The downloaded file for timm's pretrained weights, or the configured file; None for
            weights that are random or come with an installed package.

        Raises:
            ConfigError: the configured file does not exist, or its path cannot be used.
        """
        if self.weights is None:
            return results / "weights" / f"{self.backbone}.safetensors"
        try:
            path = weights.resolve_weights_file(self.weights)
        except IndadError as error:
            raise ConfigError(f"extractors.{self.name}.weights: {error}") from None
        if self.weights.startswith(weights.PACKAGE):
            return None
        if problem := path_problem(str(path)):
            raise ConfigError(f"extractors.{self.name}.weights: {problem}")
        return path
