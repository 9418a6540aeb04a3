"""Score new images with a fitted detector and its backbone.

The model file records how its features were made. Images are preprocessed, run through the
backbone and scored as in the workflow, so that an image gets the score that ``scores.csv`` has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from indad import methods
from indad.core.device import Batches
from indad.core.errors import ConfigError, DataError
from indad.data.images import Geometry, prepare
from indad.evaluation import calibration as calibrations
from indad.evaluation.calibration import Calibration, Threshold
from indad.features.source import ArrayFeatures
from indad.inference.photos import Photo, open_photo, photo_name
from indad.methods.base import SCORE_BATCH, Detector

if TYPE_CHECKING:
    from indad.features.backbone import Backbone

#: Threads that decode images while the backbone runs.
READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Result:
    """The scores of one image.

    Attributes:
        image: the path as it was given, or None for pixels in memory.
        score: the image's anomaly score; higher is more anomalous.
        map: float32 ``(H, W)`` at the model's input size: the anomaly map of the resized and
            cropped image, as in the workflow's ``maps.h5``.
        threshold: scores above it are anomalous; None if there is no threshold.
        anomalous: whether ``score`` is above ``threshold``; None if there is no threshold.
        seconds: this image's share of the time of its batch, from decoding to the score.
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


class Extractor:
    """Makes features of images in memory in the same way as those a model was fitted on.

    Args:
        backbone: the backbone of the model's features, on ``device``.
        made_with: the settings of the model's features.
        device: ``cpu`` or ``cuda``.
        batch_size: images that the backbone gets at once.

    Attributes:
        batches: their size, which is halved when a GPU's memory is too small for them.
    """

    def __init__(
        self, backbone: Backbone, made_with: Mapping[str, Any], device: str, batch_size: int
    ) -> None:
        from indad.features.extract import Network

        self.made_with, self.batches = made_with, Batches(batch_size)
        self._network = Network(backbone, made_with, device)

    def __call__(self, pixels: np.ndarray) -> ArrayFeatures:
        """Return the features of images, uint8 ``(N, H, W, 3)``.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        made, parts = self.made_with, []
        for _, (maps, z) in self.batches.run(len(pixels), lambda at: self._network(pixels[at])):
            # Rounded to the type of the stored features, which may be float16.
            arrays = [maps[name].cpu().numpy().astype(made["dtype"]) for name in made["layers"]]
            parts.append((*arrays, z.cpu().numpy()))
        *layers, embedding = (np.concatenate(each) for each in zip(*parts, strict=True))
        return ArrayFeatures(
            dict(zip(made["layers"], layers, strict=True)),
            input_size=pixels.shape[1:3],
            embedding=embedding,
        )


class Model:
    """A fitted model, ready to score images. ``load_model`` makes it.

    Attributes:
        path: the model file.
        calibration: scores of images whose labels are known, or None.
        threshold: scores above it are anomalous; None for no verdicts. It may be set.
        device: ``cpu`` or ``cuda``.
        geometry: the resize and crop of the images.
        input_size: ``(H, W)`` of the maps.
    """

    def __init__(
        self,
        path: Path,
        detector: Detector,
        extractor: Extractor,
        calibration: Calibration | None = None,
    ) -> None:
        made_with = detector.made_with_
        crop = made_with["crop"]
        self.path, self.device = path, detector.device_
        self.geometry = Geometry.from_config(made_with["resize"], None if crop == "none" else crop)
        self.input_size = tuple(made_with["input_size"])
        self.calibration = calibration
        self.threshold: Threshold | None = None
        if calibration is not None and calibration.good.scores:
            self.threshold = calibration.at_false_alarms()
        self._detector, self._extractor = detector, extractor

    @property
    def batch_size(self) -> int:
        """Images that the backbone gets at once."""
        return self._extractor.batches.size

    def predict(self, images: Photo | Sequence[Photo]) -> Result | list[Result]:
        """Score one image, or several.

        Args:
            images: a path, a uint8 array ``(H, W, 3)`` (RGB) or ``(H, W)``, a PIL image; or a list
                of those, or an array ``(N, H, W, 3)``.

        Returns:
            A `Result`; for a list or an array ``(N, H, W, 3)`` a list of them, in the same order.

        Raises:
            DataError: an image is missing, damaged or of an unusable size or type.
            DeviceError: the GPU's memory is too small for a single image.
        """
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        results = []
        for result in self.stream(images if several else [images]):  # type: ignore[list-item]
            if isinstance(result, Failure):
                raise result.error
            results.append(result)
        return results if several else results[0]

    def stream(self, images: Iterable[Photo]) -> Iterator[Result | Failure]:
        """Score images batch by batch, with at most two batches in memory.

        Yields:
            A `Result` for each image, in the order given, or a `Failure` for one that cannot be
            scored.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        # The searches of a method gain from larger batches than the backbone does.
        count = max(self.batch_size, SCORE_BATCH)
        photos = iter(images)
        with ThreadPoolExecutor(READERS) as pool:

            def next_batch() -> list[tuple[Photo, Future[np.ndarray | DataError]]]:
                return [(photo, pool.submit(self._read, photo)) for photo in islice(photos, count)]

            started = time.perf_counter()
            ahead = next_batch()
            while batch := ahead:
                ahead = next_batch()  # decoded while this batch is scored
                names = [photo_name(photo) for photo, _ in batch]
                yield from self._score(names, [future.result() for _, future in batch], started)
                started = time.perf_counter()

    def _read(self, photo: Photo) -> np.ndarray | DataError:
        """Return a photo as the backbone gets it, uint8 ``(H, W, 3)``, or what is wrong with it."""
        name = photo_name(photo) or "an image in memory"
        try:
            pixels = prepare(open_photo(photo), self.geometry)
        except DataError as error:
            return error
        except ValueError as error:
            return DataError(f"{name}: {error}")
        if pixels.shape[:2] == self.input_size:
            return pixels
        (height, width), (rows, columns) = self.input_size, pixels.shape[:2]
        return DataError(
            f"{name}: {columns} x {rows} pixels after the resize, but the model was fitted on "
            f"{width} x {height}, without a crop: only images of the same shape can be scored"
        )

    def _score(
        self, names: list[str | None], photos: list[np.ndarray | DataError], started: float
    ) -> Iterator[Result | Failure]:
        pixels = [each for each in photos if isinstance(each, np.ndarray)]
        scored = iter(())
        if pixels:
            scores = self._detector.score(self._extractor(np.stack(pixels)))
            scored = zip(scores.image.tolist(), scores.maps, strict=True)
        seconds = (time.perf_counter() - started) / len(names)
        limit = None if self.threshold is None else self.threshold.score
        for name, photo in zip(names, photos, strict=True):
            if isinstance(photo, DataError):
                yield Failure(name, photo)
                continue
            score, values = next(scored)
            if np.isfinite(score) and np.isfinite(values).all():
                anomalous = None if limit is None else score > limit
                yield Result(name, score, values, limit, anomalous, seconds)
            else:
                yield Failure(name, DataError(f"{name}: its score is not finite"))

    def calibrate(self, results: Iterable[Result], images: str = "images given") -> None:
        """Use the scores of other good images, results of this model, to choose thresholds from.

        The threshold becomes the one for ``FALSE_ALARMS``.

        Args:
            results: scores of good images that the model was not fitted on.
            images: what the images are, for messages.

        Raises:
            ConfigError: there are no results.
        """
        results = list(results)
        if not results:
            raise ConfigError("there are no good images to choose a threshold from")
        normal, good, defective = calibrations.collect(
            np.array([result.score for result in results]),
            np.stack([result.map for result in results]),
            np.zeros(len(results), int),
        )
        header = methods.read_header(self.path, verify=False)
        self.calibration = Calibration(
            experiment="",
            dataset="",
            category="",
            seed=header["parameters"]["seed"],
            model=self.path.name,
            model_identity=calibrations.identity(header),
            parameters={},
            normal=normal,
            good=good,
            defective=defective,
            images=images,
        )
        self.threshold = self.calibration.at_false_alarms()

    def overlay(self, photo: Photo, result: Result) -> Image.Image:
        """Draw a result over its image, at the image's own size.

        Raises:
            DataError: the image cannot be read.
            ConfigError: there are no scores of good images to take the colour scale from.
        """
        from indad.inference.overlay import overlay

        scale = None if self.calibration is None else self.calibration.colour_range()
        if scale is None:
            raise ConfigError(
                "a heat map needs the colour scale of good images, which is in the calibration of "
                "the model's experiment; there is no calibration for this model"
            )
        peak = None if self.threshold is None else self.threshold.peak
        return overlay(open_photo(photo), result.map, self.geometry, scale, peak)
