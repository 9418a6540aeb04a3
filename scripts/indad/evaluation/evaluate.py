"""From scores and ground truth to the tidy table of metrics, one value per row."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indad.core.csv_files import read_csv
from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.evaluation import bootstrap, segmentation
from indad.evaluation.intervals import (
    UNKNOWN,
    Interval,
    auroc_interval,
    average_interval,
    delong_covariance,
    placements,
    score_interval,
)
from indad.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    LabelledMaps,
    image_metrics,
    pixel_values,
)
from indad.evaluation.resamples import JACKKNIFED, Resamples
from indad.evaluation.saturated_overlap import Defect, au_spro
from indad.evaluation.sorted_scores import SortedScores

#: Columns of every metrics file and their types. The bounds of the confidence interval are empty
#: where they cannot be estimated.
COLUMNS = {
    "dataset": "str", "category": "str", "experiment": "str", "seed": "int", "metric": "str",
    "value": "float", "ci_low": "float", "ci_high": "float",
}  # fmt: skip
#: Columns of the averages over categories, and their types.
AVERAGE_COLUMNS = COLUMNS | {"categories": "int"}
#: Metrics whose averages have no interval: they are too high on few images, in every category.
BIASED = ("image_f1max",)
#: The category of an average over categories.
AVERAGE = "(average)"


class PixelScores:
    """The pixels of all images with a known mask, labelled and sorted by score.

    Attributes:
        maps, truth, folder: as given.
        area: number of defective pixels of each image, ``(N,)``; 0 without a mask.
        images: indices of the images with a known mask; they are read one after the other.
        ordered: their scores; None if no image has a defective pixel.
        n_regions: ground truth regions of all of them.
    """

    def __init__(
        self, maps: Sequence[np.ndarray], truth: GroundTruth, folder: Path | None = None
    ) -> None:
        """Sort the pixels.

        Args:
            maps: anomaly map ``(H, W)`` of each image.
            truth: ground truth of the same images, in the same order.
            folder: where temporary files may be created, see `SortedScores`.

        Raises:
            StoreError: maps and ground truth belong to different images.
        """
        if len(maps) != len(truth.image):
            raise StoreError("the scores belong to other images; delete them and run again")
        self.maps, self.truth, self.folder = maps, truth, folder
        masks = zip(truth.has_mask, truth.mask, strict=True)
        self.area = np.array([np.count_nonzero(mask) if known else 0 for known, mask in masks], int)
        self.images = np.flatnonzero(truth.has_mask)
        self.labelled = LabelledMaps(maps, truth.mask, self.images)
        self.ordered = SortedScores(self.labelled, folder) if self.area.any() else None
        self.n_regions = len(self.ordered.area) - 1 if self.ordered else 0

    @property
    def measurable(self) -> SortedScores | None:
        """The scores if there are both defective and normal pixels, else None."""
        return self.ordered if self.ordered and self.ordered.negatives else None


def evaluate(scores: pd.DataFrame, pixels: PixelScores) -> dict[str, float]:
    """Compute all metrics that the ground truth allows.

    Image metrics are NaN if all images are good or all are defective. Pixel metrics are left out
    if no test image has a mask. They ignore defective images without a mask and include good
    images, whose mask is empty.

    Args:
        scores: as ``scores.read_table``.
        pixels: of the same images, in the same order.

    Raises:
        StoreError: scores and pixels belong to different images.
    """
    truth = pixels.truth
    if list(scores["image"]) != list(truth.image):
        raise StoreError("the scores belong to other images; delete them and run again")
    values = dict.fromkeys(IMAGE_METRICS, np.nan)
    if _both_kinds(truth):
        values = image_metrics(truth.label, scores["score"].to_numpy())
    if pixels.measurable:
        values |= pixel_values(pixels.measurable)
    return values


def optional_metrics(
    asked: Collection[str],
    pixels: PixelScores,
    defects: Sequence[Sequence[Defect]] | None = None,
) -> dict[str, float]:
    """Compute the metrics of ``OPTIONAL_METRICS`` that a data set asks for.

    They are left out where the other pixel metrics are, and use the same images.

    Args:
        asked: names of metrics; others than ``OPTIONAL_METRICS`` are ignored.
        pixels: of all images.
        defects: of the same images; needed for ``spro_05``.
    """
    values: dict[str, float] = {}
    if not pixels.measurable:
        return values
    maps, truth = pixels.maps, pixels.truth
    good = truth.label == 0
    if "spro_05" in asked:
        assert defects is not None
        kinds = np.where(good, "", np.where(truth.has_mask, truth.defect, None))
        values["spro_05"] = au_spro(maps, defects, kinds.tolist(), pixels.folder)
    if "seg_f1" in asked:
        at = segmentation.threshold(maps[i] for i in np.flatnonzero(good))
        pairs = ((maps[i], truth.mask[i]) for i in pixels.images)
        values["seg_f1"] = segmentation.f1(pairs, at)
    return values


def _both_kinds(truth: GroundTruth) -> bool:
    return len(set(truth.label)) > 1


def resample(
    scores: pd.DataFrame, pixels: PixelScores, *, resamples: int, draw_seed: int, **keys: Any
) -> Resamples:
    """Compute all metrics that the ground truth allows on resamples of the images.

    Good and defective images are drawn separately. Pixel metrics use the same images as in
    ``evaluate``. The draws depend only on the labels and the seed, so two experiments on the same
    images get the same draws.

    Args:
        scores, pixels: as for ``evaluate``, which checks them.
        resamples: number B of resamples; without any, the result has no metrics.
        draw_seed: seed of the draws.
        keys: dataset, category, experiment and seed.

    Returns:
        A metric is NaN on a resample without a defective pixel, which is possible only if the crop
        empties the masks of some defective images. ``left_out`` has the metrics of ``JACKKNIFED``.
    """
    truth = pixels.truth
    labels, found, left_out = truth.label, {}, {}
    if resamples and _both_kinds(truth):
        counts = bootstrap.ImageCounts.from_scores(
            scores["score"].to_numpy(), labels.astype(np.int32)
        )
        values = counts.metrics(bootstrap.draws(labels, resamples, draw_seed))
        found = dict(zip(IMAGE_METRICS, values[:3], strict=True))  # AUPRO exists for pixels only
    if resamples and pixels.measurable:
        counts = bootstrap.ImageCounts.from_images(pixels.labelled, pixels.measurable)
        values = counts.metrics(bootstrap.draws(labels[pixels.images], resamples, draw_seed))
        found |= dict(zip(PIXEL_METRICS, values, strict=True))
        without = np.full((len(PIXEL_METRICS), len(labels)), np.nan)
        without[:, pixels.images] = counts.left_out()
        by_metric = dict(zip(PIXEL_METRICS, without, strict=True))
        left_out = {metric: by_metric[metric] for metric in JACKKNIFED}
    return Resamples(
        **keys,
        image=truth.image,
        label=labels,
        score=scores["score"].to_numpy(),
        area=pixels.area,
        values=found,
        left_out=left_out,
        draw_seed=draw_seed,
        n_regions=pixels.n_regions,
    )


def intervals(values: Mapping[str, float], run: Resamples, *, level: float) -> dict[str, Interval]:
    """Compute the confidence interval of every metric.

    Image AUROC: ``auroc_interval``. All others: ``score_interval``, with the jackknife's variance
    for the metrics of ``JACKKNIFED`` and the variance over the resamples for the rest. With m
    defective images, an average precision counts as at most m observations and an F1 as at most
    2 m (its denominator counts each defective image twice).

    Args:
        values: metrics from ``evaluate``.
        run: from ``resample``.
        level: confidence level.
    """
    defective = int(run.label.sum())
    most = {"image_ap": defective, "image_f1max": 2 * defective}
    found = dict.fromkeys(values, UNKNOWN)
    for metric, value in values.items():
        if np.isnan(value):
            continue
        if metric == "image_auroc":
            variance = float(delong_covariance(*placements(run.label, run.score[None]))[0, 0])
            good = len(run.label) - defective
            found[metric] = auroc_interval(
                value, variance, level=level, good=good, defective=defective
            )
            continue
        spread = run.spread(metric, run.variants(metric))
        found[metric] = score_interval(value, spread, level=level, most=most.get(metric, np.inf))
    return found


def tidy(
    values: Mapping[str, float], bounds: Mapping[str, Interval] | None = None, **keys: Any
) -> pd.DataFrame:
    """Return metrics as rows of ``COLUMNS``; ``keys`` holds dataset, category and so on."""
    rows = []
    for metric, value in values.items():
        low, high = (bounds or {}).get(metric, UNKNOWN)
        rows.append({**keys, "metric": metric, "value": value, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def averages(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average each metric of each experiment and seed over the categories of a data set.

    Args:
        metrics: rows of ``COLUMNS``.

    Returns:
        Rows of ``AVERAGE_COLUMNS`` of the data sets with at least two categories: ``categories``
        is the number of those with a value. The interval is ``intervals.average_interval``; those
        of ``BIASED`` are unknown.
    """
    keys, rows = ["dataset", "experiment", "seed", "metric"], []
    several = metrics.groupby("dataset")["category"].transform("nunique") > 1
    for group, each in metrics[several].dropna(subset="value").groupby(keys, sort=False):
        value, low, high = (each[name].to_numpy() for name in ("value", "ci_low", "ci_high"))
        low, high = UNKNOWN if group[-1] in BIASED else average_interval(value, low, high)
        row = dict(zip(keys, group, strict=True)) | {"category": AVERAGE, "value": value.mean()}
        rows.append(row | {"ci_low": low, "ci_high": high, "categories": len(value)})
    return pd.DataFrame(rows, columns=list(AVERAGE_COLUMNS))


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """Read and concatenate metrics tables, in the order given.

    Raises:
        StoreError: a file is missing, damaged or lacks a column.
    """
    return pd.concat(
        [read_csv(path, COLUMNS, "metrics table") for path in paths], ignore_index=True
    )
