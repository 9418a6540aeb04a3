"""Score new images with a fitted detector and its backbone.

The model file records how its features were made. Images are preprocessed, run through the
backbone and scored as in the workflow, so that an image gets the score that ``scores.csv`` has.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from indad import methods
from indad.core.checksum import sha256_file
from indad.core.cores import available_cores
from indad.core.device import Batches
from indad.core.errors import ConfigError, DataError, DeviceError, IndadError
from indad.data.images import Size, prepare
from indad.evaluation import calibration as calibrations
from indad.evaluation.calibration import Calibration, Threshold
from indad.evaluation.sorted_scores import median
from indad.features.settings import geometry_of
from indad.features.source import ArrayFeatures
from indad.inference.photos import Photo, open_photo, photo_name
from indad.inference.result import Failure, FileState, Result, state_of
from indad.methods.base import SCORE_BATCH, Detector, Scores
from indad.methods.ensemble import Ensemble

if TYPE_CHECKING:
    from indad.features.backbone import Backbone

#: Threads that decode images while the backbone runs.
READERS = min(4, available_cores())


class _Prepared(NamedTuple):
    """A photo as each backbone gets it, uint8 ``(H, W, 3)``, with its own size."""

    pixels: list[np.ndarray]
    size: Size
    state: FileState | None


class Extractor:
    """Makes features of images in memory in the same way as those a model was fitted on.

    Args:
        backbone: the backbone of the model's features, on ``device``.
        made_with: the settings of the model's features.
        device: ``cpu`` or ``cuda``.
        batch_size: images that the backbone gets at once.

    Attributes:
        batches: their size, which is halved when a GPU's memory is too small for them.
        geometry: the resize and crop of the images.
    """

    def __init__(
        self, backbone: Backbone, made_with: Mapping[str, Any], device: str, batch_size: int
    ) -> None:
        from indad.features.extract import Network

        self.made_with, self.batches = made_with, Batches(batch_size)
        self.network = Network(backbone, made_with, device)
        self.geometry = geometry_of(made_with)

    def __call__(self, pixels: np.ndarray) -> ArrayFeatures:
        """Return the features of images, uint8 ``(N, H, W, 3)``.

        Raises:
            DeviceError: the GPU's memory is too small for a single image.
        """
        made, parts = self.made_with, []
        for _, (maps, z) in self.batches.run(len(pixels), lambda at: self.network(pixels[at])):
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

    Any number of threads may use it; they decode images at the same time, and score one after the
    other. It can be pickled for another process, which then loads its file. A forked process can
    use it on a CPU, with one thread.

    Attributes:
        path: the model file.
        detector, extractor: of the model, or of the first member of an ensemble.
        ensemble: with the scales of the members, whose scores it averages; None for a single model.
        calibration: scores of images whose labels are known, or None.
        threshold: scores above it are anomalous; None for no verdicts. It may be set.
        device: ``cpu`` or ``cuda``.
        geometry: the resize and crop of the images.
        input_size: ``(H, W)`` of the training images after resize and crop; ``()`` if they differ
            in size. The map of a new image has the size of that image.
    """

    def __init__(
        self,
        path: Path,
        members: Sequence[tuple[Detector, Extractor]],
        ensemble: Ensemble | None = None,
        calibration: Calibration | None = None,
        load: Callable[[], Model] | None = None,
    ) -> None:
        """Make a model.

        Args:
            path: the model file.
            members: the fitted detector and the extractor of its features; of an ensemble those of
                its members, in its order.
            ensemble: None for a single model.
            calibration: of the scores.
            load: loads the same model again, for pickle.
        """
        self.path, self.ensemble, self._members, self._load = path, ensemble, members, load
        self.detector, self.extractor = members[0]
        self.device, self.geometry = self.detector.device_, self.extractor.geometry
        self.input_size = tuple(self.extractor.made_with["input_size"])
        self.calibration = calibration
        self.threshold: Threshold | None = None
        if calibration is not None and calibration.good.scores:
            self.threshold = calibration.at_false_alarms()
        self._scoring, self._process = threading.Lock(), os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to load the model again, so that no arrays are pickled."""
        if self._load is None:
            raise TypeError("only a model of load_model can be pickled")
        return _load_again, (self._load, self.calibration, self.threshold)

    @property
    def batch_size(self) -> int:
        """Images that the backbone gets at once."""
        return self.extractor.batches.size

    def predict(self, images: Photo | Sequence[Photo]) -> Result | list[Result]:
        """Score one image, or several.

        Args:
            images: a path, an array or a PIL image (see `photos.open_photo`); or a list of those,
                or an array ``(N, H, W, 3)``.

        Returns:
            A `Result`; for a list or an array ``(N, H, W, 3)`` a list of them, in the same order.

        Raises:
            DataError: an image is missing, damaged or of an unusable size.
            PhotoTypeError: (a DataError and TypeError) an image has a type that cannot be scored.
            DeviceError: the GPU's memory is too small for a single image, or the model cannot be
                used after a fork.
        """
        several = isinstance(images, (list, tuple)) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        )
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
            DeviceError: the model cannot be used after a fork.
        """
        self._check_process()
        # The searches of a method gain from larger batches than the backbone does.
        count = max(self.batch_size, SCORE_BATCH)
        photos = iter(images)
        with ThreadPoolExecutor(READERS) as pool:

            def next_batch() -> list[tuple[Photo, Future[_Prepared | Failure]]]:
                return [(photo, pool.submit(self._read, photo)) for photo in islice(photos, count)]

            started = time.perf_counter()
            ahead = next_batch()
            while batch := ahead:
                ahead = next_batch()  # decoded while this batch is scored
                names = [photo_name(photo) for photo, _ in batch]
                yield from self._score(names, [future.result() for _, future in batch], started)
                started = time.perf_counter()

    def _check_process(self) -> None:
        """Check that a forked process can use the model, and let it."""
        if self._process == os.getpid():
            return
        busy = self._scoring.locked()
        if busy or self.device != "cpu":
            reason = "another thread was scoring with it" if busy else "it is on a GPU"
            raise DeviceError(
                f"{self.path}: this process was forked from the one that loaded the model, while "
                f"{reason}; load the model in each process, or start processes with "
                "multiprocessing.get_context('spawn')"
            )
        self._process = os.getpid()

    def _read(self, photo: Photo) -> _Prepared | Failure:
        """Return a photo as the backbone gets it, or what is wrong with it."""
        path = photo_name(photo)
        name = path or "an image in memory"
        # The state before it is read: if it changes meanwhile, the file counts as not scored.
        state = None if path is None else state_of(path)
        try:
            image = open_photo(photo)
            pixels = self._prepare(image, name)
        except IndadError as error:
            return Failure(path, error, state)
        except Exception as error:  # whatever it is, the other images are scored
            reason = str(error) or type(error).__name__
            return Failure(path, DataError(f"{name}: {reason}"), state)
        return _Prepared(pixels, (image.height, image.width), state)

    def _prepare(self, image: Image.Image, name: str) -> list[np.ndarray]:
        """Return an image as each backbone gets it."""
        found = []
        for detector, extractor in self._members:
            pixels, fitted = prepare(image, extractor.geometry), extractor.made_with["input_size"]
            if detector.needs_one_size and list(pixels.shape[:2]) != list(fitted):
                (height, width), (rows, columns) = fitted, pixels.shape[:2]
                raise DataError(
                    f"{name}: {columns} x {rows} pixels after the resize, but the model was fitted "
                    f"on {width} x {height}, without a crop: {detector.method} scores only images "
                    "of the same shape"
                )
            found.append(pixels)
        return found

    def _score(
        self, names: list[str | None], photos: list[_Prepared | Failure], started: float
    ) -> Iterator[Result | Failure]:
        scores = iter(self._scores([photo for photo in photos if isinstance(photo, _Prepared)]))
        seconds = (time.perf_counter() - started) / len(names)
        threshold = self.threshold
        limit, peak = (threshold.score, threshold.peak) if threshold else (None, None)
        for name, photo in zip(names, photos, strict=True):
            if isinstance(photo, Failure):
                yield photo
                continue
            found = next(scores)
            if isinstance(found, Exception):
                what = f"{name or 'an image in memory'}: cannot be scored ({found})"
                error = found if isinstance(found, IndadError) else DataError(what)
                yield Failure(name, error, photo.state)
                continue
            score, values = found
            yield Result(
                image=name,
                score=score,
                map=values,
                threshold=limit,
                anomalous=None if limit is None else score > limit,
                seconds=seconds,
                size=photo.size,
                pixel_threshold=peak,
                state=photo.state,
                geometry=self.geometry,
            )

    def _scores(self, photos: list[_Prepared]) -> list[tuple[float, np.ndarray] | Exception]:
        """Score photos of any size: those of one size together."""
        groups: dict[tuple[Size, ...], list[int]] = {}
        for number, photo in enumerate(photos):
            groups.setdefault(tuple(each.shape for each in photo.pixels), []).append(number)
        found: dict[int, tuple[float, np.ndarray] | Exception] = {}
        for group in groups.values():
            batch = self._scores_of_one_size([photos[number] for number in group])
            found.update(zip(group, batch, strict=True))
        return [found[number] for number in range(len(photos))]

    def _scores_of_one_size(
        self, photos: list[_Prepared]
    ) -> list[tuple[float, np.ndarray] | Exception]:
        """Score a batch; if that fails, score one by one, to find the images that fail."""
        try:
            with self._scoring:
                scores = self._score_batch(photos)
            if not (np.isfinite(scores.image).all() and np.isfinite(scores.maps).all()):
                raise ValueError("its score is not finite")
            return list(zip(scores.image.tolist(), scores.maps, strict=True))
        except Exception as error:
            if len(photos) == 1:
                return [error]
            return [self._scores_of_one_size([each])[0] for each in photos]

    def _score_batch(self, photos: list[_Prepared]) -> Scores:
        scores = [
            detector.score(extractor(np.stack([photo.pixels[number] for photo in photos])))
            for number, (detector, extractor) in enumerate(self._members)
        ]
        if self.ensemble is None:
            return scores[0]
        return self.ensemble.combine(scores, [photo.size for photo in photos])

    def calibrate(self, results: Iterable[Result], images: str = "images given") -> None:
        """Use the scores of other good images, results of this model, to choose thresholds from.

        The threshold becomes the one for ``FALSE_ALARMS``.

        Args:
            results: scores of good images that the model was not fitted on.
            images: what the images are, for messages.

        Raises:
            ConfigError: there are no results, or the model was fitted on some of the images.
        """
        results = list(results)
        if not results:
            raise ConfigError("there are no good images to choose a threshold from")
        refuse_training_images(self.path, [each.image for each in results if each.image])
        good, defective = calibrations.collect(
            np.array([result.score for result in results]),
            np.array([result.map.max() for result in results]),
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
            normal=median(result.map for result in results),
            good=good,
            defective=defective,
            images=images,
        )
        self.threshold = self.calibration.at_false_alarms()

    def overlay(self, photo: Photo, result: Result) -> Image.Image:
        """Draw a result over its image, at the image's own size.

        Raises:
            DataError: the image cannot be read, or its file has changed since it was scored.
            ConfigError: there are no scores of good images to take the colour scale from.
        """
        from indad.inference.overlay import overlay

        scale = None if self.calibration is None else self.calibration.colour_range()
        if scale is None:
            raise ConfigError(
                "a heat map needs the colour scale of good images, which is in the calibration of "
                "the model's experiment; there is no calibration for this model"
            )
        path = photo_name(photo)
        image = open_photo(photo)
        changed = path is not None and result.image == path and state_of(path) != result.state
        if changed or (image.height, image.width) != result.size:
            raise DataError(f"{path or 'the image'}: has changed since it was scored")
        return overlay(image, result.map, self.geometry, scale, result.pixel_threshold)


def refuse_training_images(model: Path, paths: Iterable[str | os.PathLike[str]]) -> None:
    """Check that a model was not fitted on any of some files, by their SHA-256.

    Raises:
        ConfigError: it was: the scores of training images are too low for a threshold.
    """
    known = set(methods.read_header(model, verify=False)["train_sha256"])
    used = [Path(path).name for path in paths if sha256_file(Path(path)) in known]
    if used:
        raise ConfigError(
            f"{len(used)} of the good images were used to fit the model ({', '.join(used[:3])}"
            f"{', ...' if len(used) > 3 else ''}): their scores are too low for a threshold. Give "
            "good images that the model has not seen, or use the threshold from the test images"
        )


def _load_again(
    load: Callable[[], Model], calibration: Calibration | None, threshold: Threshold | None
) -> Model:
    """Make the model of a pickle."""
    model = load()
    model.calibration, model.threshold = calibration, threshold
    return model
