"""The ensemble: the average of several experiments' scores, after they are brought to one scale."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from indad.core import checksum
from indad.core.errors import ConfigError, DataError, StoreError
from indad.core.progress import Progress, ignore
from indad.data.images import Geometry, Size
from indad.features.settings import geometry_of
from indad.features.source import FeatureSource
from indad.methods import model_file
from indad.methods.base import MEMORY, Detector, Scores, one_of, whole_number

#: Where the scale of a member comes from.
SCALINGS = ("training", "test")
#: Share of the training images that are held out to find a member's scale, and how many at most.
HELD_OUT_SHARE = 0.2
HELD_OUT = 32


class Member(NamedTuple):
    """What an ensemble's model file records of a member.

    Attributes:
        path: its model file.
        digest: of this file.
        parameters: the method's parameters to score with.
        geometry: resize and crop of its images.
    """

    path: Path
    digest: str
    parameters: dict[str, Any]
    geometry: Geometry


class Ensemble:
    """Average of several experiments, each with its own method, backbone and input size.

    With the image score ``s_m`` and the anomaly map ``M_m`` of member m, and its scales ``a_m`` and
    ``b_m``, the scores of the ensemble of K members are::

        s = 1 / K * sum over m of s_m / a_m,     M = 1 / K * sum over m of M_m / b_m

    The scales come from training images only by default (``scaling="training"``). A fifth of them,
    at most 32, is held out. The member's method is fitted to the others, and ``a_m`` and ``b_m``
    are the mean image score and the mean map value of the images held out, so that 1 is a typical
    value of a good image for each member. Images that a method was fitted on cannot be used: their
    scores are too low, and 0 if the memory bank holds all of their patches. The mean is used
    because it needs a single image and no assumption about the distribution, and exists for every
    method. The cost is one more fit of each member. Squared distances grow faster than distances,
    so that members with squared scores have more weight on strong anomalies.

    With ``scaling="test"`` they are scaled as in PatchCore's code: the lowest value of all test
    images becomes 0, the highest 1. This is transductive. The scores of an image depend on the
    other test images, so that such an ensemble cannot score new images.

    The maps have the frame (resize and crop) of the first member. Those of the others are resized
    bilinearly to the same part of the image, which their crops have to cover.

    Args:
        members: names of the experiments, at least two.
        scaling: ``training`` or ``test``.
        seed: draws the images held out.

    Attributes:
        scale_: float64 ``(K, 2)``, ``a_m`` and ``b_m``; None with ``scaling="test"``.
        geometries_: resize and crop of each member.

    Examples:
        >>> import numpy as np
        >>> from indad.features.source import ArrayFeatures
        >>> from indad.methods import SPADE, PaDiM
        >>> rng = np.random.default_rng(0)
        >>> good = rng.random((9, 3, 4, 4))
        >>> train = ArrayFeatures({"layer1": good[:8]}, input_size=(16, 16))
        >>> test = ArrayFeatures({"layer1": [good[8], good[8] + 1]}, input_size=(16, 16))
        >>> members = [SPADE(k_image=3, k_pixel=4), PaDiM(dimensions=2)]
        >>> ensemble = Ensemble(members=["SPADE", "PaDiM"])
        >>> ensemble = ensemble.fit(members, [train] * 2, [Geometry(16, None)] * 2)
        >>> scores = [each.fit(train).score(test) for each in members]
        >>> ensemble.combine(scores, sizes=[(16, 16)] * 2).image.round(1)
        array([  1.6, 201.9], dtype=float32)
    """

    method = "ensemble"
    version = 1
    score_parameters = ()

    def __init__(
        self, *, members: Sequence[str] = (), scaling: str = "training", seed: int = 0
    ) -> None:
        names = isinstance(members, (list, tuple)) and all(isinstance(n, str) for n in members)
        if not names or len(members) < 2 or len(set(members)) < len(members):
            raise ConfigError(
                f"members: must be a list of at least two experiments, each once, got {members!r}"
            )
        self.members = list(members)
        self.scaling = one_of("scaling", scaling, SCALINGS)
        self.seed = whole_number("seed", seed, 0)
        self.scale_: np.ndarray | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's parameters and their values."""
        return {name: getattr(self, name) for name in ("members", "scaling", "seed")}

    def fit(
        self,
        detectors: Iterable[Detector],
        train: Sequence[FeatureSource],
        geometries: Sequence[Geometry],
        *,
        device: str = "cpu",
        memory: int = MEMORY,
        progress: Progress = ignore,
    ) -> Self:
        """Find the scales of the members.

        Args:
            detectors: the members' methods. They are fitted to a part of the images.
            train: features of the training images for each member, in the same order.
            geometries: resize and crop of each member.
            device: where to compute, ``cpu`` or ``cuda``.
            memory: as in ``Detector.fit``.
            progress: called with the members done and the number of members.

        Raises:
            ConfigError: there are fewer than two training images, or all scores of a member are 0.
        """
        self.geometries_ = tuple(geometries)
        if self.scaling == "test":
            return self
        scale = []
        for detector, source in zip(detectors, train, strict=True):
            rest, held_out = self._split(detector.draw(source))
            scores = detector.fit(rest, device=device, memory=memory).score(held_out)
            maps = np.concatenate([each.ravel() for each in scores.maps])
            scale.append([np.mean(each, dtype=np.float64) for each in (scores.image, maps)])
            progress(len(scale), len(train))
        self.scale_ = np.array(scale)
        for name, values in zip(self.members, self.scale_, strict=True):
            if not (values > 0).all():
                raise ConfigError(
                    f"members: {name} gives all training images that were held out the score 0, so "
                    "that its scale is unknown; are they copies of the others?"
                )
        return self

    def _split(self, train: FeatureSource) -> tuple[FeatureSource, FeatureSource]:
        """Return the images to fit to, and those held out."""
        count = len(train)
        if count < 2:
            raise ConfigError(
                f"members: their scales need at least 2 training images, there is {count}; add "
                "images or set a larger number of 'shots'"
            )
        drawn = np.random.default_rng(self.seed).permutation(count)
        cut = min(HELD_OUT, max(1, int(HELD_OUT_SHARE * count)))
        return train.subset(np.sort(drawn[cut:])), train.subset(np.sort(drawn[:cut]))

    def check_frames(self, sizes: Iterable[Size]) -> None:
        """Check that all members see what the first one sees of images of these sizes.

        Raises:
            ConfigError: a member's crop does not cover the first one's frame.
        """
        for size in sorted(set(sizes)):
            for name, geometry in zip(self.members, self.geometries_, strict=True):
                if _box(geometry, self.geometries_[0], size) is None:
                    height, width = size
                    raise ConfigError(
                        f"members: of images with {width} x {height} pixels, {name} does not see "
                        f"all that {self.members[0]} sees, whose frame the maps have. Name the "
                        "member with the smallest crop first, or set a larger 'crop'"
                    )

    def scales(self, members: Sequence[Scores]) -> np.ndarray:
        """Return what is subtracted from the scores of each member, and what they are divided by.

        Args:
            members: the scores of each member; with ``scaling="test"`` of all test images.

        Returns:
            ``(K, 2, 2)``: the two numbers for the image scores, and those for the maps.

        Raises:
            ConfigError: all scores of a member are equal, with ``scaling="test"``.
        """
        if self.scale_ is not None:
            return np.stack([np.zeros_like(self.scale_), self.scale_], axis=2)
        found = []
        for name, scores in zip(self.members, members, strict=True):
            ends = [(values.min(), values.max()) for values in scores.maps]
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
            image_low, image_high = scores.image.min(), scores.image.max()
            if not (image_low < image_high and low < high):
                raise ConfigError(
                    f"members: all scores or map values of {name} are equal, so that they have no "
                    "scale; use 'scaling: training'"
                )
            found.append([[image_low, image_high - image_low], [low, high - low]])
        return np.array(found)

    def combine(
        self, members: Iterable[Scores], sizes: Sequence[Size], scales: np.ndarray | None = None
    ) -> Scores:
        """Average the scores of the members.

        Args:
            members: the scores of each member, of the same images.
            sizes: ``(height, width)`` of each image itself.
            scales: from `scales`; of these images by default.

        Returns:
            Scores with maps in the frame of the first member.

        Raises:
            ConfigError: all scores of a member are equal, with ``scaling="test"``.
            DataError: a member's crop does not cover the first one's frame.
        """
        members = list(members)
        scales = self.scales(members) if scales is None else scales
        image: Any = 0.0
        maps: list[Any] = [0.0] * len(sizes)
        for number, (scores, both) in enumerate(zip(members, scales, strict=True)):
            (image_low, image_scale), (low, scale) = both
            image = image + (scores.image.astype(np.float64) - image_low) / image_scale
            for i, values in enumerate(scores.maps):
                scaled = (values - np.float32(low)) / np.float32(scale)
                maps[i] = maps[i] + self._framed(number, scaled, sizes[i])
        count = len(self.members)
        averages = [(each / count).astype(np.float32) for each in maps]
        one_size = len({each.shape for each in averages}) == 1
        return Scores(
            (image / count).astype(np.float32), np.stack(averages) if one_size else averages
        )

    def _framed(self, number: int, values: np.ndarray, size: Size) -> np.ndarray:
        """Return a member's map in the frame of the first one, ``(H, W)``."""
        geometry, frame = self.geometries_[number], self.geometries_[0]
        if geometry == frame:
            return values
        box = _box(geometry, frame, size)
        if box is None:
            raise DataError(
                f"{self.members[number]} does not see all that {self.members[0]} sees of an "
                f"image with {size[1]} x {size[0]} pixels"
            )
        height, width = frame.output(*size)
        resized = Image.fromarray(values).resize(
            (width, height), Image.Resampling.BILINEAR, box=box
        )
        return np.asarray(resized)

    # -- the model file -----------------------------------------------------------------------

    def save(
        self,
        path: str | Path,
        members: Sequence[str | Path],
        parameters: Sequence[Mapping[str, Any]],
        *,
        train_sha256: Sequence[str] = (),
    ) -> None:
        """Write the ensemble as a model file that refers to those of its members.

        Args:
            path: the model file.
            members: the members' model files. Their paths relative to ``path`` are stored.
            parameters: the ``score_parameters`` of each member.
            train_sha256: as in ``Detector.save``.
        """
        path, linked = Path(path), []
        for name, file, scoring in zip(self.members, members, parameters, strict=True):
            made_with = model_file.read_header(file, verify=False)["features"]
            linked.append(
                {
                    "experiment": name,
                    "path": os.path.relpath(file, path.parent),
                    "digest": checksum.recorded_digest(Path(file)),
                    "parameters": dict(scoring),
                    "features": {key: made_with[key] for key in ("backbone", "resize", "crop")},
                }
            )
        header = {
            "method": self.method,
            "method_version": self.version,
            "parameters": self.parameters,
            "input_size": model_file.read_header(members[0], verify=False)["input_size"],
            "train_sha256": list(train_sha256),
            "members": linked,
        }
        scale = {} if self.scale_ is None else {"scale": self.scale_}
        model_file.write(path, header, scale)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Self, list[Member]]:
        """Read an ensemble that ``save`` wrote, without its members' models.

        Raises:
            StoreError: the file is missing, damaged, or of another method or version.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(path)
        header = model_file.read_header(path)
        if (header["method"], header["method_version"]) != (cls.method, cls.version):
            raise StoreError(
                f"{path}: method {header['method']!r} of version {header['method_version']}, not "
                f"an ensemble of version {cls.version}; delete the model and fit it again"
            )
        try:
            made = cls(**header["parameters"])
            members = [
                Member(
                    Path(os.path.normpath(path.parent / each["path"])),
                    each["digest"],
                    each["parameters"],
                    geometry_of(each["features"]),
                )
                for each in header["members"]
            ]
            if made.scaling == "training":
                made.scale_ = load_file(path)["scale"].reshape(len(members), 2)
        except (KeyError, IndexError, ValueError, TypeError, ConfigError, SafetensorError) as error:
            raise StoreError(f"{path}: damaged model ({error}); delete it and run again") from None
        made.geometries_ = tuple(each.geometry for each in members)
        return made, members


def _box(geometry: Geometry, frame: Geometry, size: Size) -> tuple[float, ...] | None:
    """Return what ``frame`` sees in a map of ``geometry``; None unless the map covers it."""
    height, width = geometry.output(*size)
    limits = (width, height, width, height)
    box = geometry.box_of(frame, *size)
    # The sides of resized images and the corners of crops are whole pixels, of either geometry.
    slack = 1 + max(1, width / frame.output(*size)[1], height / frame.output(*size)[0])
    clipped = tuple(float(np.clip(at, 0, limit)) for at, limit in zip(box, limits, strict=True))
    moved = max(abs(at - new) for at, new in zip(box, clipped, strict=True))
    return None if moved > slack else clipped
