"""What every method has in common: an estimator with fit, score, save and load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from indad import __version__
from indad.core import atomic, checksum
from indad.core.device import smaller
from indad.core.errors import ConfigError, StoreError
from indad.core.progress import Progress, ignore
from indad.features.source import FeatureSource, select_layers

# torch is imported where it is used: the workflow reads a method's parameters many times, and
# importing torch takes longer than planning all jobs.
if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 2
#: Images scored at once: enough to fill matrix products, few enough to hold all their layers.
SCORE_BATCH = 16
#: Bytes below which searching in smaller blocks saves nothing that a GPU lacks.
LEAST_MEMORY = 32 << 20


class Scores(NamedTuple):
    """Anomaly scores: higher is more anomalous.

    Attributes:
        image: float32 ``(N,)``.
        maps: float32 ``(N, H, W)`` at the input size.
    """

    image: np.ndarray
    maps: np.ndarray


class Detector(ABC):
    """An anomaly detector over backbone features.

    A method is a subclass in a module of its own. It names its keyword parameters in ``__init__``
    (with defaults, and ``check`` for what is allowed), and implements ``_fit``, ``_score``,
    ``_state`` and ``_restore``. Learned attributes end in an underscore. Parameters listed in
    ``score_parameters`` take effect only in scoring: experiments that differ in nothing else
    share one fitted model.
    """

    #: Name in the configuration and in model files.
    method: ClassVar[str]
    #: Raised when the algorithm changes, so that old models are fitted anew.
    version: ClassVar[int] = 1
    score_parameters: ClassVar[tuple[str, ...]] = ()
    #: Whether the model is a link to the training features rather than a copy.
    needs_gallery: ClassVar[bool] = False

    layers: Sequence[str] | None
    seed: int

    def __init__(self, **parameters: Any) -> None:
        """Keep ``parameters`` as attributes of the same names."""
        self._parameters = parameters
        for name, value in parameters.items():
            setattr(self, name, value)
        self.device = "cpu"
        #: Bytes a search may take beside the model and the features it compares.
        self.memory = 1 << 30
        #: What the features were made with; set by ``fit``'s caller, kept in the model file.
        self.provenance: dict[str, Any] = {}

    # -- parameters -------------------------------------------------------------------------

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's parameters and their values."""
        return dict(self._parameters)

    def check(self, name: str, allowed: str, ok: bool) -> None:
        """Refuse a parameter's value.

        Raises:
            ConfigError: naming the parameter, its value and what is allowed.
        """
        if not ok:
            raise ConfigError(f"{name}: must be {allowed}, got {self._parameters[name]!r}")

    @classmethod
    def shared_fit(cls, parameter_sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return score parameters the fit must know, so that one model serves all sets."""
        return {}

    @classmethod
    def scored_share(cls, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> float:
        """Return which share of a model fitted with ``fitted`` scoring with ``parameters`` uses."""
        return 1.0

    def check_features(self, made_with: Mapping[str, Any]) -> None:
        """Refuse features that were made with other settings than the training features.

        Raises:
            StoreError: naming each difference.
        """
        # Versions, device and the images themselves may differ: a model scores new images.
        names = set(self.provenance) - {"versions", "device", "manifest_sha256", "weights_source"}
        differences = [
            f"  - {name}: the model's are {self.provenance[name]!r}, these {made_with.get(name)!r}"
            for name in sorted(names)
            if made_with.get(name) != self.provenance[name]
        ]
        if differences:
            raise StoreError(
                "the features are not of the kind the model was fitted on; fit it again\n"
                + "\n".join(differences)
            )

    # -- fit and score ------------------------------------------------------------------------

    def fit(
        self, train: FeatureSource, *, device: str = "cpu", progress: Progress = ignore
    ) -> Self:
        """Learn what is normal from the features of good images.

        Raises:
            ConfigError: a wanted layer was not extracted.
            DeviceError: a GPU's memory does not suffice, even in smaller pieces.
        """
        import torch

        try:
            self.layers_ = select_layers(train, self.layers)
        except ValueError as error:
            raise ConfigError(f"layers: {error}") from None
        self.input_size_ = tuple(train.input_size)
        self.device = device
        with torch.inference_mode():
            while True:
                try:
                    self._fit(train, progress)
                    return self
                except torch.cuda.OutOfMemoryError:
                    self.memory = smaller(self.memory, "a fit within {} bytes", LEAST_MEMORY)

    def score(self, test: FeatureSource, *, progress: Progress = ignore) -> Scores:
        """Score images by their features. The result does not depend on the other images.

        Raises:
            DeviceError: a GPU's memory does not hold a single image's work.
        """
        import torch

        from indad.methods.anomaly_map import anomaly_maps

        count = len(test)
        images = np.empty(count, np.float32)
        maps = np.empty((count, *test.input_size), np.float32)
        with torch.inference_mode():
            batch, start = SCORE_BATCH, 0
            while start < count:
                part = slice(start, min(start + batch, count))
                try:
                    layers = {
                        name: torch.from_numpy(test.maps(name, part)).to(self.device)
                        for name in self.layers_
                    }
                    z = torch.from_numpy(test.embedding(part)).to(self.device)
                    image_scores, patch_maps = self._score(layers, z)
                    fine = anomaly_maps(patch_maps, test.input_size)
                    if image_scores is None:
                        image_scores = fine.amax(dim=(1, 2))
                    images[part] = image_scores.cpu().numpy()
                    maps[part] = fine.cpu().numpy()
                except torch.cuda.OutOfMemoryError:
                    batch = smaller(batch, "a batch of {} images")
                    continue
                start = part.stop
                progress(start, count)
        return Scores(images, maps)

    @abstractmethod
    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        """Set the learned attributes, as tensors on ``self.device``."""

    @abstractmethod
    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Score a batch.

        Args:
            layers: name to ``(B, C, h, w)`` for each of ``layers_``.
            z: pooled embeddings ``(B, D)``.

        Returns:
            Image scores ``(B,)``, or None for the maximum of the smoothed map, and the patch maps
            ``[(B, h, w), ...]`` to be upsampled, averaged and smoothed.
        """

    # -- save and load --------------------------------------------------------------------------

    @abstractmethod
    def _state(self) -> dict[str, torch.Tensor]:
        """Return the learned arrays."""

    @abstractmethod
    def _restore(self, state: dict[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        """Set the learned attributes from ``_state``'s arrays."""

    def header(self, path: Path) -> dict[str, Any]:
        """Describe the model: all that is needed to score a new image but the weights."""
        return {
            "schema_version": SCHEMA_VERSION,
            "indad": __version__,
            "method": self.method,
            "method_version": self.version,
            "parameters": self.parameters,
            "layers": list(self.layers_),
            "input_size": list(self.input_size_),
            "features": self.provenance,
        }

    def save(self, path: str | Path) -> None:
        """Write the fitted model as safetensors, sealed, its description in the header."""
        from safetensors.torch import save_file

        path = Path(path)
        state = {name: value.contiguous().cpu() for name, value in self._state().items()}
        with atomic.replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            header = checksum.with_placeholder(self.header(path))
            save_file(state, str(temporary), metadata={"indad": header})
            temporary.chmod(mode)  # safetensors lets nobody but the owner read
            checksum.write_safetensors_checksum(temporary)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        gallery: FeatureSource | None = None,
        device: str = "cpu",
        parameters: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a model that ``save`` wrote; its scores are bit-identical to the saved one's.

        Args:
            path: the model file.
            gallery: the training features, where ``needs_gallery``.
            device: where to score.
            parameters: other values for ``score_parameters``.

        Raises:
            StoreError: the file is missing, damaged, of another method or version.
            ConfigError: ``parameters`` has one that only a new fit could change.
        """
        from indad.methods import read_header

        header = read_header(path)
        return cls.from_file(path, header, gallery=gallery, device=device, parameters=parameters)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        header: Mapping[str, Any],
        *,
        gallery: FeatureSource | None = None,
        device: str = "cpu",
        parameters: Mapping[str, Any] | None = None,
    ) -> Self:
        """Do what `load` does, with the ``header`` that ``methods.read_header`` returned."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for key, wanted in (("method", cls.method), ("method_version", cls.version)):
            if header[key] != wanted:
                raise StoreError(
                    f"{path}: {key} is {header[key]!r}, this library reads {wanted!r}; delete "
                    "the model and fit it again"
                )
        for name, value in (parameters or {}).items():
            if name not in cls.score_parameters and header["parameters"].get(name) != value:
                raise ConfigError(
                    f"{name}: the model {path} was fitted with "
                    f"{header['parameters'].get(name)!r}, not {value!r}; fit it again"
                )
        try:
            detector = cls(**header["parameters"] | dict(parameters or {}))
        except TypeError as error:
            raise StoreError(f"{path}: not a model of this library ({error}); delete it") from None
        detector.layers_ = tuple(header["layers"])
        detector.input_size_ = tuple(header["input_size"])
        detector.provenance = header["features"]
        detector.device = device
        try:
            detector._restore(load_file(str(path), device=device), gallery)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise StoreError(f"{path}: damaged model ({error}); delete it") from None
        return detector
