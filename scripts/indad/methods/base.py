"""What all methods have in common: an estimator with fit, score and save."""

from __future__ import annotations

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from indad.core.device import Batches, smaller
from indad.core.errors import ConfigError, StoreError
from indad.core.progress import Progress, ignore
from indad.features.source import FeatureSource
from indad.methods import model_file

# torch is imported where it is used: planning a workflow reads the parameters of methods, and
# importing torch takes longer than the whole planning.
if TYPE_CHECKING:
    import torch

#: Images scored at once: enough to fill matrix products, few enough to hold all their layers.
SCORE_BATCH = 16
#: Default for the bytes that a search may allocate, besides the model and the features it compares.
MEMORY = 1 << 30
#: Bytes below which smaller blocks of a search do not help a GPU that is out of memory.
LEAST_MEMORY = 32 << 20
#: How memory-bank methods compare features.
DISTANCES = ("euclidean", "cosine")
#: Settings in which the features of new images may differ from the training features.
MAY_DIFFER = frozenset({"versions", "device", "manifest_sha256", "weights_source"})


class Scores(NamedTuple):
    """Anomaly scores: higher is more anomalous.

    Attributes:
        image: float32 ``(N,)``.
        maps: float32 ``(H, W)`` of each image at the input size; an array ``(N, H, W)`` of images
            of one size.
    """

    image: np.ndarray
    maps: Sequence[np.ndarray]

    def of(self, images: Sequence[int]) -> Scores:
        """Return the scores of some images."""
        return Scores(self.image[list(images)], [self.maps[image] for image in images])


class Detector(ABC):
    """An anomaly detector over backbone features, in the manner of a scikit-learn estimator.

    A method is a subclass in its own module. Its constructor takes hyper-parameters by keyword,
    each with a default, checks them and stores them under their names. The subclass implements
    ``_fit``, ``_score``, ``_state`` and ``_restore``. Attributes that ``fit`` sets end in an
    underscore:

    Attributes:
        layers_: names of the layers in use.
        input_size_: ``(H, W)`` in pixels of the images that the training features come from; ``()``
            if they differ in size.
        made_with_: the settings that the training features were made with.
        device_: where the model is, ``cpu`` or ``cuda``.
        memory_: bytes that a search may allocate.
    """

    #: Name in the configuration and in model files.
    method: ClassVar[str]
    #: To be raised when the algorithm changes, so that older models are fitted again.
    version: ClassVar[int] = 1
    #: Parameters that take effect only in scoring. Experiments that differ in no others share one
    #: fitted model.
    score_parameters: ClassVar[tuple[str, ...]] = ()
    #: Whether the model refers to the stored training features instead of holding a copy.
    needs_gallery: ClassVar[bool] = False
    #: Whether fitting computes anything. A fit that only reads features needs no torch and no GPU.
    fit_computes: ClassVar[bool] = True
    #: Whether all images, of training and new ones, must have one size.
    needs_one_size: ClassVar[bool] = False

    def __init__(self, *, layers: Sequence[str] | None, shots: int | None, seed: int) -> None:
        """Check and store the parameters that all methods have.

        Raises:
            ConfigError: a value is not allowed.
        """
        if layers is not None:
            names = isinstance(layers, (list, tuple)) and all(isinstance(n, str) for n in layers)
            if not (names and layers and len(set(layers)) == len(layers)):
                raise ConfigError(
                    "layers: must be a list of layer names, each once, or null for all layers, "
                    f"got {layers!r}"
                )
        self.layers = layers
        self.shots = None if shots is None else whole_number("shots", shots, 1)
        self.seed = whole_number("seed", seed, 0)

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's parameters and their values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def facts(self) -> dict[str, float]:
        """What the run-time table shows of the fitted model, by the names of its columns."""
        return {}

    @classmethod
    def fit_parameters(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the parameters that decide the fit."""
        return {name: each for name, each in parameters.items() if name not in cls.score_parameters}

    @classmethod
    def shared_fit(cls, parameter_sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the score parameters to fit with, so that one model serves all sets."""
        return {}

    @classmethod
    def scored_share(cls, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> float:
        """Return which share of a model fitted with ``fitted`` scoring with ``parameters`` uses."""
        return 1.0

    # -- fit and score ------------------------------------------------------------------------

    def fit(
        self,
        train: FeatureSource,
        *,
        device: str = "cpu",
        memory: int = MEMORY,
        made_with: Mapping[str, Any] | None = None,
        progress: Progress = ignore,
    ) -> Self:
        """Fit the model to the features of good images.

        Args:
            train: features of the training images.
            device: where to compute and to keep the model, ``cpu`` or ``cuda``.
            memory: bytes that a search may allocate, besides the model and the features it
                compares. It changes results by rounding only.
            made_with: the settings that the features were made with, to be saved with the model.
            progress: called with the steps done and the number of steps.

        Raises:
            ConfigError: a layer in ``layers`` was not extracted, or a parameter does not fit the
                features.
            DeviceError: the GPU's memory is too small, even for smaller blocks.
        """
        few = self._prepare(train, device, memory, made_with)
        if self.fit_computes:
            self._compute(lambda: self._fit(few, progress))
        else:
            self._fit(few, progress)
        return self

    def _prepare(
        self, train: FeatureSource, device: str, memory: int, made_with: Mapping[str, Any] | None
    ) -> FeatureSource:
        """Set what the features and the device decide; return the training images in use."""
        self.layers_ = tuple(self.layers or train.layers)
        missing = [layer for layer in self.layers_ if layer not in train.layers]
        if missing:
            raise ConfigError(
                f"layers: layers {', '.join(missing)} are not among the extracted ones "
                f"({', '.join(train.layers)})"
            )
        if self.needs_one_size and train.input_size is None:
            raise ConfigError(
                f"{self.method}: the images differ in size; set 'resize: [height, width]'"
            )
        self.input_size_ = tuple(train.input_size or ())
        self.made_with_ = dict(made_with or {})
        self.device_, self.memory_ = device, memory
        return self.draw(train)

    def _compute(self, work: Callable[[], None]) -> None:
        """Run ``work``; if a GPU is out of memory, again with smaller blocks of the search."""
        import torch

        with torch.inference_mode():
            while True:
                try:
                    return work()
                except torch.cuda.OutOfMemoryError:
                    self.memory_ = smaller(self.memory_, "a fit within {} bytes", LEAST_MEMORY)

    def draw(self, train: FeatureSource) -> FeatureSource:
        """Return the training images in use; those of fewer shots are among those of more."""
        if self.shots is None or self.shots >= len(train):
            return train
        drawn = np.random.default_rng(self.seed).permutation(len(train))[: self.shots]
        return train.subset(np.sort(drawn))

    def score(self, test: FeatureSource, *, progress: Progress = ignore) -> Scores:
        """Score images by their features. The result does not depend on the other images.

        Args:
            test: features of the images.
            progress: called with the images done and the number of images.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        batches = [scores for _, scores in self.score_batches(test, progress=progress)]
        images = np.concatenate([each.image for each in batches])
        maps = [each.maps for each in batches]
        if test.input_size is None:
            return Scores(images, [single for batch in maps for single in batch])
        return Scores(images, np.concatenate(maps))

    def score_batches(
        self, test: FeatureSource, *, progress: Progress = ignore
    ) -> Iterator[tuple[slice, Scores]]:
        """Yield the scores of one batch of images of one size after the other, as `score`."""
        import torch

        batches = Batches(SCORE_BATCH)
        ends = [*test.starts[1:], len(test)]
        with torch.inference_mode():
            for start, end in zip(test.starts, ends, strict=True):

                def score(at: slice, start: int = start) -> Scores:
                    return self._score_images(test, slice(start + at.start, start + at.stop))

                for part, scores in batches.run(end - start, score):
                    yield slice(start + part.start, start + part.stop), scores
                    progress(start + part.stop, len(test))

    def _score_images(self, test: FeatureSource, part: slice) -> Scores:
        import torch

        from indad.methods.anomaly_map import anomaly_maps

        z = torch.from_numpy(test.embedding(part)).to(self.device_)
        image_scores, patch_maps = self._score(self._read_layers(test, part), z)
        maps = anomaly_maps(patch_maps, test.size_of(part.start))
        if image_scores is None:
            image_scores = maps.amax(dim=(1, 2))
        return Scores(image_scores.cpu().numpy(), maps.cpu().numpy())

    def _read_layers(self, source: FeatureSource, images: slice) -> dict[str, torch.Tensor]:
        """Return the maps ``(n, C, h, w)`` of each of ``layers_`` on the detector's device."""
        import torch

        return {
            name: torch.from_numpy(source.maps(name, images)).to(self.device_)
            for name in self.layers_
        }

    def check_features(self, made_with: Mapping[str, Any]) -> None:
        """Check that features were made with the settings of the training features.

        Raises:
            StoreError: naming each difference.
        """
        differences = [
            f"  - {name}: the model's are {value!r}, these {made_with.get(name)!r}"
            for name, value in sorted(self.made_with_.items())
            if name not in MAY_DIFFER and made_with.get(name) != value
        ]
        if differences:
            raise StoreError(
                "the features were made with other settings than those the model was fitted on; "
                "fit it again\n" + "\n".join(differences)
            )

    @abstractmethod
    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        """Set the learned attributes, as tensors on ``device_`` if the fit computes."""

    @abstractmethod
    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Score a batch.

        Args:
            layers: name to ``(B, C, h, w)`` for each of ``layers_``.
            z: pooled embeddings ``(B, D)``.

        Returns:
            Image scores ``(B,)``, or None for the maximum of the smoothed map; and the patch maps
            ``[(B, h, w), ...]``, which the caller upsamples, averages and smooths.
        """

    # -- the model file -----------------------------------------------------------------------

    def save(self, path: str | Path, *, train_sha256: Sequence[str] = ()) -> None:
        """Write the fitted model as a safetensors file; ``indad.methods.load`` reads it.

        Args:
            path: the model file.
            train_sha256: of the training images' files. They are recorded, so that the images can
                be recognised: a threshold must not be chosen from their scores.
        """
        path = Path(path)
        header = self._header(path) | {"train_sha256": list(train_sha256)}
        model_file.write(path, header, self._state())

    def _header(self, path: Path) -> dict[str, Any]:
        """Return the header of the model file that is written at ``path``."""
        return {
            "method": self.method,
            "method_version": self.version,
            "parameters": self.parameters,
            "layers": list(self.layers_),
            "input_size": list(self.input_size_),
            "features": self.made_with_,
        }

    def restore(
        self,
        header: Mapping[str, Any],
        state: Mapping[str, torch.Tensor],
        *,
        gallery: FeatureSource | None,
        device: str,
        memory: int,
    ) -> None:
        """Become the fitted detector of a model file (see ``indad.methods.load``)."""
        self.layers_ = tuple(header["layers"])
        self.input_size_ = tuple(header["input_size"])
        self.made_with_ = dict(header["features"])
        self.device_, self.memory_ = device, memory
        self._restore(state, gallery)

    @abstractmethod
    def _state(self) -> Mapping[str, torch.Tensor | np.ndarray]:
        """Return the learned arrays."""

    @abstractmethod
    def _restore(self, state: Mapping[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        """Set the learned attributes from the arrays of ``_state``."""


def whole_number(name: str, value: int, least: int) -> int:
    """Return a parameter's value; a ConfigError unless it is an integer of at least ``least``."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name}: must be a whole number of at least {least}, got {value!r}")
    return value


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return a parameter's value; a ConfigError unless it is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")
    return value


def positive(name: str, value: float, most: float = math.inf) -> float:
    """Return a parameter's value; a ConfigError unless it is finite, above 0, at most ``most``."""
    if type(value) not in (int, float) or not 0 < value <= most or math.isinf(value):
        limit = "" if math.isinf(most) else f", at most {most:g}"
        raise ConfigError(f"{name}: must be a number above 0{limit}, got {value!r}")
    return value


def top_share(image_score: str) -> float | None:
    """Return the share of the patches in the image score; None for the maximum."""
    if image_score == "max":
        return None
    found = re.fullmatch(r"top(\d+(?:\.\d+)?)%", str(image_score))
    if not found or not 0 < float(found[1]) <= 100:
        raise ConfigError(
            f"image_score: must be 'max' or 'topP%' with P above 0 and at most 100, such as "
            f"'top1%', got {image_score!r}"
        )
    return float(found[1]) / 100


def true_or_false(name: str, value: bool) -> bool:
    """Return a parameter's value; a ConfigError unless it is a bool."""
    if type(value) is not bool:
        raise ConfigError(f"{name}: must be true or false, got {value!r}")
    return value
