"""Resamples on disk: what a comparison needs from one run, and its numbers of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from indad.core import checksum
from indad.core.errors import StoreError
from indad.evaluation.intervals import Spread, bootstrap_spread, jackknife_spread
from indad.evaluation.metrics import IMAGE_METRICS

#: The layout of the file. A reader refuses any other.
SCHEMA_VERSION = 3
KIND = "resamples"
#: Metrics whose variance is the jackknife's: a defective image counts by its area.
JACKKNIFED = ("pixel_auroc", "pixel_ap")


@dataclass(frozen=True)
class Resamples:
    """The metrics of one category, experiment and seed on resamples of its test images.

    Attributes:
        dataset, category, experiment, seed: keys of the run.
        image: names, ``(N,)``.
        label: 0 good, 1 defective, ``(N,)``.
        score: image scores, ``(N,)``.
        area: defective pixels inside the crop, ``(N,)``.
        values: per metric its values on the resamples, ``(B,)``.
        left_out: per metric with a jackknife its values without each image, ``(N,)``; NaN for an
            image that has no part in it.
        draw_seed: seed of the draws; the same seed and number of resamples draw the same images.
        n_regions: ground truth regions inside the crop.
    """

    dataset: str
    category: str
    experiment: str
    seed: int
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    area: np.ndarray
    values: Mapping[str, np.ndarray]
    left_out: Mapping[str, np.ndarray]
    draw_seed: int
    n_regions: int

    @property
    def n_masks(self) -> int:
        """Number of test images with a defective pixel inside the crop."""
        return int(np.count_nonzero(self.area))

    def variants(self, metric: str) -> np.ndarray | None:
        """Return the values of a metric that its variance follows from; None if there are none.

        Those without each image for the metrics of ``JACKKNIFED``, else those on the resamples.
        """
        return (self.left_out if metric in JACKKNIFED else self.values).get(metric)

    def spread(self, metric: str, values: np.ndarray) -> Spread:
        """Return the variance of a metric, or of a difference of it, from such values."""
        if metric in JACKKNIFED:
            return jackknife_spread(values, self.label, self.area)
        images = int(self.label.sum()) if metric in IMAGE_METRICS else self.n_masks
        return bootstrap_spread(values, images)


_TEXTS = ("dataset", "category", "experiment")
_NUMBERS = ("seed", "draw_seed", "n_regions")


def write(resamples: Resamples, path: Path) -> None:
    """Write as HDF5 with a checksum, atomically."""
    with checksum.create_hdf5(path, KIND, SCHEMA_VERSION) as file:
        for name in (*_TEXTS, *_NUMBERS):
            file.attrs[name] = getattr(resamples, name)
        file.create_dataset("image", data=list(resamples.image), dtype=h5py.string_dtype("utf-8"))
        file["label"] = resamples.label.astype(np.uint8)
        file["score"] = resamples.score.astype(float)
        file["area"] = resamples.area.astype(np.int64)
        for name in ("values", "left_out"):
            group = file.create_group(name, track_order=True)
            for metric, values in getattr(resamples, name).items():
                group[metric] = values


def read(path: Path) -> Resamples:
    """Read a file of resamples.

    Raises:
        StoreError: the file is missing, damaged or of another version.
    """
    try:
        with checksum.open_hdf5(path, KIND, SCHEMA_VERSION, "file of resamples") as file:
            return Resamples(
                **{name: str(file.attrs[name]) for name in _TEXTS},
                **{name: int(file.attrs[name]) for name in _NUMBERS},
                image=file["image"].asstr()[()],
                label=file["label"][()].astype(int),
                score=file["score"][()],
                area=file["area"][()],
                **{
                    name: {metric: values[()] for metric, values in file[name].items()}
                    for name in ("values", "left_out")
                },
            )
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: not readable resamples ({error}); delete it") from None
