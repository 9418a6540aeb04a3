"""Score new images with a fitted model: what ``indad.load_model`` returns.

The model file says how its features were made. Images go through the same preprocessing, backbone
and arithmetic as in the workflow, so that an image gets the score that ``scores.csv`` has for it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from indad import methods
from indad.core.device import smaller
from indad.core.errors import ConfigError, DataError, StoreError, WeightsError
from indad.data.images import Geometry, decode, prepare
from indad.evaluation import calibration
from indad.evaluation.calibration import Calibration, Threshold
from indad.features.settings import EXTRACT_VERSION
from indad.features.source import ArrayFeatures, FeatureSource
from indad.features.store import FeatureStore
from indad.features.weights import PACKAGE, RANDOM, weights_sha256_of
from indad.methods.base import SCORE_BATCH, Detector

if TYPE_CHECKING:
    from indad.features.backbone import Backbone

#: What can be scored: a path, an array ``(H, W, 3)`` or ``(H, W)`` of uint8, a PIL image.
Photo = str | os.PathLike[str] | np.ndarray | Image.Image
#: Images decoded at once, beside the backbone.
READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Result:
    """What a model says of one image.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        score: the image's anomaly score; higher is more anomalous.
        map: float32 ``(H, W)`` at the model's input size: the anomaly map of the resized, cropped
            image, as in the workflow's ``maps.h5``.
        threshold: scores above it are anomalous; None where none is known.
        anomalous: whether ``score`` is above ``threshold``; None without one.
        seconds: its share of the time that its batch took, from decoding to score.
    """

    image: str | None
    score: float
    map: np.ndarray
    threshold: float | None
    anomalous: bool | None
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An image that could not be scored.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        error: what is wrong with it.
    """

    image: str | None
    error: DataError


class Model:
    """A fitted detector with its backbone, ready for images. Made by ``load_model``.

    Attributes:
        path: the model file.
        calibration: scores of images whose labels are known, or None.
        threshold: where good ends, or None where nothing is known of it. May be set.
        device: ``cpu`` or ``cuda``.
        batch_size: images the backbone sees at once; halved where a GPU's memory does not hold
            them.
        input_size: ``(H, W)`` of the maps.
    """

    def __init__(
        self,
        path: Path,
        detector: Detector,
        backbone: Backbone,
        made_with: Calibration | None,
        device: str,
        batch_size: int,
    ) -> None:
        from indad.features.extract import Preprocessing

        features = detector.provenance
        self.path, self.calibration, self.device = path, made_with, device
        self.batch_size = batch_size
        self.threshold: Threshold | None = None
        self.geometry = Geometry.from_config(
            features["resize"], None if features["crop"] == "none" else features["crop"]
        )
        self.input_size: tuple[int, int] = tuple(features["input_size"])
        self._detector, self._backbone = detector, backbone
        self._normalise = Preprocessing(features["mean"], features["std"], device)

    def predict(self, images: Photo | Sequence[Photo]) -> Result | list[Result]:
        """Score one image, or several.

        Args:
            images: a path, a uint8 array ``(H, W, 3)`` (RGB) or ``(H, W)``, a PIL image; or a list
                of those, or an array ``(N, H, W, 3)``.

        Returns:
            A ``Result``; a list of them in the order given for a list or a stack.

        Raises:
            DataError: an image is missing, damaged or of an unusable size or type.
            DeviceError: the GPU's memory does not hold a single image.
        """
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        results = []
        for result in self.stream(images if several else [images]):  # type: ignore[list-item]
            if isinstance(result, Failure):
                raise result.error
            results.append(result)
        return results if several else results[0]

    def stream(self, images: Iterable[Photo]) -> Iterator[Result | Failure]:
        """Score images one batch after the other, holding no more than two in memory.

        Yields:
            A ``Result`` for each image in the order given, or a ``Failure`` for one that cannot be
            used.

        Raises:
            DeviceError: the GPU's memory does not hold a single image.
        """
        # The searches of a method gain from more images than the backbone does.
        count = max(self.batch_size, SCORE_BATCH)
        with ThreadPoolExecutor(READERS) as pool:
            waiting: deque[list[tuple[Photo, Future[np.ndarray]]]] = deque()
            photos = iter(images)

            def read_ahead() -> None:
                if batch := list(islice(photos, count)):
                    waiting.append([(each, pool.submit(self._read, each)) for each in batch])

            started = time.perf_counter()
            read_ahead()
            while waiting:
                read_ahead()  # the next batch is decoded while this one is scored
                batch = waiting.popleft()
                yield from self._score(batch, started)
                started = time.perf_counter()

    def _read(self, photo: Photo) -> np.ndarray:
        """Return one image as the backbone sees it, uint8 ``(H, W, 3)``."""
        name = _name(photo) or "an image in memory"
        try:
            pixels = prepare(open_photo(photo), self.geometry)
        except ValueError as error:
            raise DataError(f"{name}: {error}") from None
        if pixels.shape[:2] != self.input_size:
            (height, width), (rows, columns) = self.input_size, pixels.shape[:2]
            raise DataError(
                f"{name}: {columns} x {rows} pixels after the resize, but the model was fitted on "
                f"{width} x {height}, without a crop: only images of the same shape can be scored"
            )
        return pixels

    def _score(
        self, batch: Sequence[tuple[Photo, Future[np.ndarray]]], started: float
    ) -> Iterator[Result | Failure]:
        pixels: list[np.ndarray] = []
        errors: dict[int, DataError] = {}
        for i, (_, future) in enumerate(batch):
            try:
                pixels.append(future.result())
            except DataError as error:
                errors[i] = error
        scores = self._detector.score(self._features(np.stack(pixels))) if pixels else None
        seconds = (time.perf_counter() - started) / len(batch)
        done = 0
        for i, (photo, _) in enumerate(batch):
            if i in errors:
                yield Failure(_name(photo), errors[i])
                continue
            assert scores is not None
            score, values = float(scores.image[done]), scores.maps[done]
            done += 1
            if not (np.isfinite(score) and np.isfinite(values).all()):
                yield Failure(_name(photo), DataError(f"{_name(photo)}: its score is not finite"))
                continue
            limit = None if self.threshold is None else self.threshold.score
            yield Result(
                _name(photo),
                score,
                values,
                limit,
                None if limit is None else score > limit,
                seconds,
            )

    def _features(self, pixels: np.ndarray) -> ArrayFeatures:
        """Run the backbone on uint8 ``(N, H, W, 3)``; features as a store would give them back."""
        import torch

        from indad.features.extract import features_of

        made = self._detector.provenance
        layers: dict[str, list[np.ndarray]] = {name: [] for name in made["layers"]}
        embeddings = []
        start = 0
        while start < len(pixels):
            part = slice(start, start + self.batch_size)
            try:
                images = self._normalise(pixels[part])
                maps, z = features_of(self._backbone, images, made["layers"], made["embedding"])
                # Stored features may have been rounded to float16; so must these be.
                arrays = {n: value.cpu().numpy().astype(made["dtype"]) for n, value in maps.items()}
                embedding = z.cpu().numpy()
            except torch.cuda.OutOfMemoryError:
                self.batch_size = smaller(self.batch_size, "a batch of {} images")
                continue
            for name, values in arrays.items():
                layers[name].append(values)
            embeddings.append(embedding)
            start = part.stop
        return ArrayFeatures(
            {name: np.concatenate(values) for name, values in layers.items()},
            input_size=self.input_size,
            embedding=np.concatenate(embeddings),
        )

    def calibrate(self, results: Iterable[Result], images: str = "images of yours") -> None:
        """Take the scores of other good images, results of this model, to choose thresholds from.

        The threshold becomes the default one, of ``FALSE_ALARMS``.

        Raises:
            ConfigError: there are none.
        """
        results = list(results)
        if not results:
            raise ConfigError("there are no good images to choose a threshold from")
        normal, good, defective = calibration.collect(
            np.array([result.score for result in results]),
            np.stack([result.map for result in results]),
            np.zeros(len(results), int),
        )
        header = methods.read_header(self.path, verify=False)
        self.calibration = Calibration(
            experiment="", dataset="", category="", seed=header["parameters"]["seed"],
            model=self.path.name, model_identity=calibration.identity(header),
            parameters={}, normal=normal, good=good, defective=defective, images=images,
        )  # fmt: skip
        self.threshold = self.calibration.at_false_alarms()

    def overlay(self, photo: Photo, result: Result) -> Image.Image:
        """Draw a result over its image, at the image's own size.

        Raises:
            DataError: the image cannot be read.
            ConfigError: the model's scale is not known.
        """
        from indad.inference.overlay import overlay

        scale = None if self.calibration is None else self.calibration.colour_range()
        if scale is None:
            raise ConfigError(
                "a heat map needs the colour scale of good images, which is in the calibration of "
                "the model's experiment; none is known here"
            )
        peak = None if self.threshold is None else self.threshold.peak
        return overlay(open_photo(photo), result.map, self.geometry, scale, peak)


def _name(photo: Photo) -> str | None:
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def open_photo(photo: Photo) -> Image.Image:
    """Return an image as PIL has it, upright.

    Raises:
        DataError: the file is missing or damaged, or the array is no picture.
    """
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        shape = photo.shape
        if photo.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
            raise DataError(
                f"an array of type {photo.dtype} and shape {shape} is no image; give uint8 of "
                "shape (H, W, 3), in the order red, green, blue, or (H, W)"
            )
        if 0 in shape:
            raise DataError(f"an array of shape {shape} has no pixels")
        return Image.fromarray(photo)
    return decode(Path(photo))


def load_model(
    path: str | os.PathLike[str],
    *,
    experiment: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    device: str = "auto",
    batch_size: int | str = "auto",
) -> Model:
    """Load a fitted model and its backbone, to score images with.

    ::

        model = load_model("results/models/mvtec/bottle/padim-r18/seed0.safetensors")
        result = model.predict("photo.png")
        result.score, result.map, result.anomalous

    The threshold is the one of ``calibration.FALSE_ALARMS`` where the model's calibration is found:
    in the results folder the model lies in, or beside the model in a file whose name ends in
    ``calibration.json``. Torch's TF32 switches are set as they were for the training features.

    Args:
        path: a model file; or the folder of an experiment's scores, which names its model.
        experiment: which experiment's scoring parameters to take, where several share the model.
            Left out, the model's own, or those of its only experiment.
        weights: the backbone's weights file, where it is no longer where the model's features were
            made. Its SHA-256 must be the same.
        features: SPADE's feature store, where it is no longer where the model says.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        batch_size: images the backbone sees at once, or ``auto``.

    Raises:
        StoreError: the model, its calibration or its gallery is missing, damaged, or of another
            version.
        WeightsError: the weights are missing, or not those the model was fitted with.
        DeviceError: ``cuda`` is demanded and there is none.
        ConfigError: the model has no such experiment.
    """
    model, chosen = choose(path, experiment)
    header = methods.read_header(model, verify=False)
    made = header.get("features")
    if not isinstance(made, Mapping) or "backbone" not in made:
        raise StoreError(
            f"{model}: does not say what its features were made with, so that no image can be "
            "scored with it; fit it with the workflow"
        )
    if made["extract_version"] != EXTRACT_VERSION:
        raise StoreError(
            f"{model}: fitted on features of version {made['extract_version']}, this library makes "
            f"version {EXTRACT_VERSION}; run the workflow again"
        )

    from indad.features.extract import AUTO_BATCH

    place = _device(device, made)
    detector = methods.load(
        model,
        gallery=_gallery(model, header, features),
        device=place,
        parameters=None if chosen is None else chosen.parameters,
    )
    size = AUTO_BATCH[place] if isinstance(batch_size, str) else batch_size
    loaded = Model(model, detector, _backbone(model, made, weights, place), chosen, place, size)
    if chosen is not None and chosen.good.scores:
        loaded.threshold = chosen.at_false_alarms()
    return loaded


def find(path: str | os.PathLike[str]) -> tuple[Path, list[Calibration]]:
    """Return the model file that ``path`` means, and the calibrations of that very model.

    Raises:
        StoreError: there is no such model, or a calibration is damaged.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / calibration.NAME).is_file():
            raise StoreError(
                f"{path}: a folder without {calibration.NAME}; give a model file "
                "(run.py list names them) or the folder of an experiment's scores"
            )
        path /= calibration.NAME
    if path.suffix == ".json":
        one = calibration.read(path)
        model = Path(os.path.normpath(path.parent / one.model))
        if calibration.identity(methods.read_header(model, verify=False)) != one.model_identity:
            raise StoreError(
                f"{path}: {model} was fitted anew since these scores were made; run the workflow "
                "again"
            )
        return model, [one]
    fingerprint = calibration.identity(methods.read_header(path, verify=False))
    found = {}
    for file in _calibration_files(path.absolute()):
        one = calibration.read(file)
        if one.model_identity == fingerprint:
            found.setdefault(one.experiment, one)
    return path, list(found.values())


def _calibration_files(model: Path) -> list[Path]:
    """List where the calibrations of a model can lie: beside it, and in its results folder."""
    beside = sorted(model.parent.glob(f"*{calibration.NAME}"))
    *_, models, dataset, category, _ = ["", "", "", *model.parent.parts]
    if models != "models":
        return beside
    scores = model.parents[4] / "scores" / dataset / category
    return beside + sorted(scores.glob(f"*/{model.stem}/{calibration.NAME}"))


def choose(
    path: str | os.PathLike[str], experiment: str | None = None
) -> tuple[Path, Calibration | None]:
    """Return the model file that ``path`` means and the calibration of the experiment to use.

    Raises:
        StoreError: there is no such model, or a calibration is damaged.
        ConfigError: the model has no such experiment, or several and none is named.
    """
    model, calibrations = find(path)
    names = ", ".join(each.experiment for each in calibrations) or "none is known"
    if experiment is not None:
        for each in calibrations:
            if each.experiment == experiment:
                return model, each
        raise ConfigError(f"experiment {experiment!r}: not among those of {model}: {names}")
    if len(calibrations) < 2:
        return model, calibrations[0] if calibrations else None
    own = methods.read_header(model, verify=False)["parameters"]
    same = [each for each in calibrations if each.parameters.items() <= own.items()]
    if not same:
        raise ConfigError(f"{model}: several experiments share this model; choose one of {names}")
    return model, same[0]


def _device(device: str, made: Mapping[str, Any]) -> str:
    import torch

    from indad.core.device import use_device

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: must be auto, cpu or cuda, got {device!r}")
    settings = {"device": device, "tf32": bool(made.get("tf32"))}
    return use_device(settings, torch.get_num_threads())


def _gallery(
    model: Path, header: Mapping[str, Any], features: str | os.PathLike[str] | None
) -> FeatureSource | None:
    """Open the feature store that a model links to, if it does."""
    if not methods.method_class(header["method"]).needs_gallery:
        return None
    link = header["gallery"]["path"]
    if features is None and link is None:
        raise StoreError(f"{model}: was fitted on features in memory; name their feature store")
    path = Path(features) if features else Path(os.path.normpath(model.parent / link))
    try:
        store = FeatureStore(path)
    except StoreError as error:
        raise StoreError(
            f"{error}. The model {model} is a link to this feature store: where the model is "
            "copied to, name the store (--features FILE)"
        ) from None
    if store.identity != header["gallery"]["identity"]:
        raise StoreError(
            f"{path}: not the feature store that {model} was fitted on; run the workflow again, or "
            "name the right one (--features FILE)"
        )
    return store.split("train")


def _backbone(
    model: Path, made: Mapping[str, Any], weights: str | os.PathLike[str] | None, device: str
) -> Backbone:
    """Load the backbone the model's features were made with."""
    from indad.features.extract import open_backbone

    expected, made_of = made["weights_sha256"], made["weights"]
    named = os.fspath(weights) if weights is not None else made_of
    is_file = made_of not in ("timm", RANDOM) and not made_of.startswith(PACKAGE)
    if weights is not None and not is_file:
        raise WeightsError(
            f"{model}: fitted with {made['weights_source']}, which is no file to compare {named} "
            "with; leave the weights out: they are taken from there again"
        )
    if named == "timm":
        named = None
    # A relative path was meant from where the workflow ran; the source says where that led.
    led_to = Path(made["weights_source"].removeprefix("file "))
    if weights is None and is_file and led_to.is_absolute() and not Path(named).exists():
        named = str(led_to)
    try:
        # Of a file, compared before it is read; of others, the hash is of the tensors.
        actual = weights_sha256_of(named)
    except WeightsError as error:
        hint = "; where it lies elsewhere now, name it (--weights FILE)" if is_file else ""
        raise WeightsError(
            f"{error}. The model {model} was fitted with {made['weights_source']}, sha256 "
            f"{expected}{hint}"
        ) from None
    if actual not in (None, expected):
        raise WeightsError(
            f"weights {named}: not those that {model} was fitted with: their sha256 is {actual}, "
            f"the model's {expected}"
        )
    backbone = open_backbone(
        {
            "backbone": made["backbone"],
            "layers": made["layers"],
            "embedding": made["embedding"],
            "precision": made["precision"],
            "weights": named,
        },
        device,
    )
    if backbone.weights_sha256 != expected:
        versions = made.get("versions", {})
        raise WeightsError(
            f"{model}: {backbone.weights_source} of {made['backbone']} are not those it was fitted "
            f"with: the sha256 of their tensors is {backbone.weights_sha256}, the model's "
            f"{expected}. It was made with torch {versions.get('torch', '?')} and timm "
            f"{versions.get('timm', '?')}; install those, or run the workflow again"
        )
    return backbone
