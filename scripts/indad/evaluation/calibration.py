"""Thresholds for new images, from the scores of images whose label is known.

Every experiment's scores have a calibration file. It holds the image score and the highest map
value of each test image, and identifies the model, so that a threshold for any false alarm rate can
be computed later without another file. Training images are not used: their scores are too low,
because the model was fitted on them (for a nearest-neighbour method they are zero).
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # loads its parts when they are used, not when a workflow is planned

from indad.core import checksum
from indad.core.errors import ConfigError, StoreError
from indad.evaluation.metrics import ScoreCurve

#: Layout version of the file. A reader refuses any other.
SCHEMA_VERSION = 3
NAME = "calibration.json"
#: Default rate of false alarms among good images.
FALSE_ALARMS = 0.05
#: Relative difference between scores of the same image in other batches or on other machines. A
#: threshold is this much above the score it is derived from, so that the same image stays below.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Threshold:
    """Threshold between good and anomalous.

    Attributes:
        score: an image with a higher score is anomalous.
        peak: a pixel with a higher value is anomalous; None if no map is known.
        source: how both were chosen, in words.
        false_alarms: bounds of the share of new good images above ``score`` with a probability of
            95 %, see ``false_alarm_range``; None if it was not chosen by a rate.
    """

    score: float
    peak: float | None
    source: str
    false_alarms: tuple[float, float] | None = None


@dataclass(frozen=True)
class Known:
    """Image scores of images whose label is known, and the highest value of each one's map."""

    scores: list[float]
    peaks: list[float]


@dataclass(frozen=True)
class Calibration:
    """Known scores of a model.

    Attributes:
        experiment: name of the experiment.
        dataset, category, seed: what the model was fitted on.
        model: path of the model file relative to the calibration file; "" if unknown.
        model_identity: fingerprint of the model, see ``identity``.
        parameters: the method's parameters that affect scoring.
        normal: median of the map values of all good images.
        good: scores of good images that the model was not fitted on.
        defective: scores of defective images.
        images: what the images are, in words.
    """

    experiment: str
    dataset: str
    category: str
    seed: int
    model: str
    model_identity: str
    parameters: dict[str, Any]
    normal: float | None
    good: Known
    defective: Known
    images: str = "test images"

    def write(self, path: Path) -> None:
        """Write the calibration as JSON with a checksum, atomically."""
        checksum.write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    def at_false_alarms(self, rate: float | None = None) -> Threshold:
        """Choose a threshold that a new good image exceeds with a probability of at most ``rate``.

        The probability is an average over sets of good images; ``Threshold.false_alarms`` is the
        range of the rate with this set.

        Args:
            rate: in (0, 1). None is ``FALSE_ALARMS``, or the lowest rate that the number of good
                images allows if that is higher.

        Raises:
            ConfigError: there are no good images, or too few for the rate.
        """
        count = len(self.good.scores)
        if not count:
            raise ConfigError("there are no scores of good images to choose a threshold from")
        if rate is None:
            rate, source = default_rate(count), default_source(count, self.images)
        else:
            source = f"at most {rate:g} false alarms, from {count} good {self.images}"
        score, peak = (conformal_quantile(x, rate) for x in (self.good.scores, self.good.peaks))
        low, high = bounds = false_alarm_range(count, rate)
        source += (
            f"; an average over sets of {count} such images: with this set, the rate is between "
            f"{low:.2g} and {high:.2g} with a probability of 95 %"
        )
        return Threshold(score, peak, source, bounds)

    def at_f1_max(self) -> Threshold:
        """Choose the threshold of the best F1 score on the images whose labels are known.

        Raises:
            ConfigError: good or defective images are missing.
        """
        if not (self.good.scores and self.defective.scores):
            missing = "defective" if self.good.scores else "good"
            raise ConfigError(f"F1-max needs {missing} images with known scores; there are none")
        score, f1 = _f1_max(self.good.scores, self.defective.scores)
        counts = f"{len(self.good.scores)} good and {len(self.defective.scores)} defective"
        return Threshold(
            score,
            _f1_max(self.good.peaks, self.defective.peaks)[0],
            f"F1-max ({f1:.3f}) on {counts} {self.images}, whose labels chose it",
        )

    def at(self, score: float) -> Threshold:
        """Use a given threshold; that of pixels is exceeded by as many good images."""
        if not self.good.peaks:
            return Threshold(score, None, "as given")
        if self.good.scores == self.good.peaks:  # the image score is the peak
            return Threshold(score, score, "as given")
        below = sum(each <= score for each in self.good.scores)
        return Threshold(score, sorted(self.good.peaks)[max(below - 1, 0)], "as given")

    def colour_range(self) -> tuple[float, float] | None:
        """Return the colour scale of maps, from good images alone; None if none is known.

        It starts at ``normal``, and its middle is the highest peak of all good images, so that good
        images stay in the dark half.
        """
        if self.normal is None or not self.good.peaks:
            return None
        return self.normal, 2 * max(self.good.peaks) - self.normal


def identity(header: Mapping[str, Any]) -> str:
    """Return a fingerprint of a model's header: its parameters and what it was fitted on."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]


def collect(scores: np.ndarray, peaks: np.ndarray, labels: np.ndarray) -> tuple[Known, Known]:
    """Return ``good`` and ``defective`` of a calibration.

    Args:
        scores: image scores ``(N,)``.
        peaks: the highest value of each map, ``(N,)``.
        labels: ``(N,)``, 0 good or 1 defective.
    """
    good, defective = (
        Known(scores[at].tolist(), peaks[at].tolist()) for at in (labels == 0, labels != 0)
    )
    return good, defective


def default_rate(count: int) -> float:
    """Return ``FALSE_ALARMS``, or the lowest rate that ``count`` good images allow if higher."""
    return max(FALSE_ALARMS, 1 / (count + 1))


def default_source(count: int, images: str = "test images") -> str:
    """Describe in words how the threshold of ``default_rate`` is chosen."""
    if (lowest := default_rate(count)) <= FALSE_ALARMS:
        return f"at most {FALSE_ALARMS:g} false alarms, from {count} good {images}"
    return (
        f"the highest score of {count} good {images}: a new good image exceeds it with a "
        f"probability of at most {lowest:.3g}; {FALSE_ALARMS:g} needs "
        f"{images_needed(FALSE_ALARMS)} good images"
    )


def images_needed(rate: float) -> int:
    """Return the number of good images that a threshold for a false alarm rate needs."""
    return math.ceil(1 / rate - 1e-9) - 1


def false_alarm_range(count: int, rate: float) -> tuple[float, float]:
    """Return the range of a threshold's rate of false alarms, with a probability of 95 %.

    The threshold is the k-th highest of ``count`` scores, with the k of ``conformal_quantile``. If
    the scores are a sample of a continuous distribution, the share of it above the threshold has
    the distribution Beta(k, n + 1 - k): the rate k / (n + 1) is its mean.

    Args:
        count: number n of good images.
        rate: as for ``conformal_quantile``.
    """
    above = _allowed(count, rate)
    low, high = scipy.special.betaincinv(above, count + 1 - above, [0.025, 0.975])
    return float(low), float(high)


def _allowed(count: int, rate: float) -> int:
    """Return the largest k with k / (count + 1) <= rate."""
    return math.floor((count + 1) * rate + 1e-9)


def conformal_quantile(scores: list[float], rate: float) -> float:
    """Return a threshold that the next score exceeds with a probability of at most ``rate``.

    If n scores and a new one are exchangeable, every rank of the new one is equally likely. It is
    above the k-th highest of the n with a probability of at most k / (n + 1) for any distribution,
    so k is the largest number with k / (n + 1) <= rate: split conformal prediction (Papadopoulos
    et al. 2002; Lei et al., JASA 2018). The guarantee is an average over draws of both, see
    ``false_alarm_range``, and assumes that new good images are like the n; it does not hold for
    images taken differently.

    Args:
        scores: scores of n good images that the model was not fitted on.
        rate: in (0, 1).

    Raises:
        ConfigError: the rate is not in (0, 1), or n is too small for it.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"false alarms: must be a rate between 0 and 1, got {rate:g}")
    count = len(scores)
    allowed = _allowed(count, rate)
    if allowed < 1:
        raise ConfigError(
            f"false alarms: {rate:g} needs the scores of {images_needed(rate)} good images, there "
            f"are {count}; the lowest possible rate is {1 / (count + 1):.3g}"
        )
    value = float(np.sort(scores)[count - allowed])
    return value + ROUNDING * abs(value)


def _f1_max(good: list[float], defective: list[float]) -> tuple[float, float]:
    """Return the threshold of the best F1, halfway to the next lower score, and that F1."""
    scores = np.array([*good, *defective])
    labels = np.array([0] * len(good) + [1] * len(defective), np.uint32)
    f1, lowest = ScoreCurve.from_scores(scores, labels).f1_max()
    below = scores[scores < lowest]
    if len(below):
        return float(lowest + below.max()) / 2, f1
    return lowest - ROUNDING * abs(lowest), f1


def read(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        StoreError: the file is missing, damaged or of another version.
    """
    try:
        content = checksum.read_json(path, "calibration")
        version = content.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema version {version}, this library reads {SCHEMA_VERSION}; delete "
                "the file and run again"
            )
        parts = {name: Known(**content.pop(name)) for name in ("good", "defective")}
        return Calibration(**content, **parts)
    except (OSError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not a calibration of this project ({error}); delete it and run again"
        ) from None
