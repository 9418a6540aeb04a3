"""A fitted detector with its backbone, to score new images with.

The model file records how its features were made. Images are preprocessed, run through the
backbone and scored as in the workflow, so that an image gets the score that ``scores.csv`` has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from indad import methods
from indad.core.errors import ConfigError, DataError
from indad.data.images import Geometry
from indad.evaluation import calibration as calibrations
from indad.evaluation.calibration import Calibration, Threshold
from indad.inference.extractor import Extractor
from indad.inference.reading import Photo, PhotoReader, open_photo, photo_name
from indad.inference.result import Failure, Result
from indad.methods.base import SCORE_BATCH, Detector

#: Threads that decode images while the backbone runs.
READERS = min(4, os.cpu_count() or 1)
#: Images that are being decoded.
Batch = Sequence[tuple[Photo, Future[np.ndarray]]]


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
        height, width = made_with["input_size"]
        self.path, self.device = path, detector.device_
        self.geometry = Geometry.from_config(made_with["resize"], None if crop == "none" else crop)
        self.input_size = (height, width)
        self.calibration = calibration
        self.threshold: Threshold | None = None
        if calibration is not None and calibration.good.scores:
            self.threshold = calibration.at_false_alarms()
        self._detector, self._extractor = detector, extractor
        self._reader = PhotoReader(self.geometry, self.input_size)

    @property
    def batch_size(self) -> int:
        """Images that the backbone gets at once."""
        return self._extractor.batch_size

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

            def next_batch() -> Batch:
                return [
                    (photo, pool.submit(self._reader.read, photo))
                    for photo in islice(photos, count)
                ]

            started = time.perf_counter()
            ahead = next_batch()
            while batch := ahead:
                ahead = next_batch()  # decoded while this batch is scored
                yield from self._score(batch, started)
                started = time.perf_counter()

    def _score(self, batch: Batch, started: float) -> Iterator[Result | Failure]:
        decoded = [_pixels_or_error(future) for _, future in batch]
        pixels = [each for each in decoded if isinstance(each, np.ndarray)]
        scored = iter(())
        if pixels:
            scores = self._detector.score(self._extractor(np.stack(pixels)))
            scored = zip(scores.image.tolist(), scores.maps, strict=True)
        seconds = (time.perf_counter() - started) / len(batch)
        for (photo, _), each in zip(batch, decoded, strict=True):
            name = photo_name(photo)
            if isinstance(each, DataError):
                yield Failure(name, each)
            else:
                yield self._result(name, *next(scored), seconds)

    def _result(
        self, name: str | None, score: float, values: np.ndarray, seconds: float
    ) -> Result | Failure:
        if not (np.isfinite(score) and np.isfinite(values).all()):
            return Failure(name, DataError(f"{name}: its score is not finite"))
        limit = None if self.threshold is None else self.threshold.score
        return Result(name, score, values, limit, None if limit is None else score > limit, seconds)

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


def _pixels_or_error(future: Future[np.ndarray]) -> np.ndarray | DataError:
    try:
        return future.result()
    except DataError as error:
        return error
