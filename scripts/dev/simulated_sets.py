"""Made-up test sets of known quality for `interval_coverage.py`; its docstring describes them."""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from indad.evaluation import bootstrap
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from indad.evaluation.resamples import Resamples

#: Mean contrast of the defects and its standard deviation between defects.
CONTRASTS = ((1.5, 1.0), (3.0, 1.5), (5.0, 1.5))
VARIANTS = NORMAL, UNEQUAL, HEAVY, CORRELATED = (
    "normal", "unequal kinds", "heavy tails", "correlated",
)  # fmt: skip
SIDE, LEVELS = 16, 128


class Cell(NamedTuple):
    """What was simulated: the test sets of one size, difficulty and variant.

    Attributes:
        variant: one of ``VARIANTS``.
        case: the AUROC of image scores, or the mean contrast of maps, which is above 1.
        good, defective: numbers of images.
    """

    variant: str
    case: float
    good: int
    defective: int

    @property
    def labels(self) -> np.ndarray:
        """0 good, 1 defective, of each image."""
        return np.repeat([0, 1], [self.good, self.defective])

    @property
    def has_maps(self) -> bool:
        """Whether the scores are those of pixels, and not of images."""
        return self.case > 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of these test sets."""
        return PIXEL_METRICS if self.has_maps else IMAGE_METRICS


def noise(rng: np.random.Generator, variant: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw noise of variance 1; the last two dimensions are pixels."""
    if variant == HEAVY:
        return rng.standard_t(3, shape) / np.sqrt(3)
    drawn = rng.normal(size=shape)
    if variant == CORRELATED:
        sigmas = (*[0] * (len(shape) - 2), 1.5, 1.5)
        drawn = gaussian_filter(drawn, sigmas, mode="wrap") / 0.188
    return drawn


# -- both kinds of test sets -----------------------------------------------------------------------


def draw_noise(rng: np.random.Generator, cell: Cell, runs: int) -> np.ndarray:
    """Draw the noise of image scores, ``(runs, N)``, or of maps, ``(runs, N, SIDE, SIDE)``."""
    images = len(cell.labels)
    if not cell.has_maps:
        return noise(rng, cell.variant, (runs, 1, images))[:, 0]
    pixels = noise(rng, cell.variant, (runs, images, SIDE, SIDE))
    level = noise(rng, HEAVY if cell.variant == HEAVY else NORMAL, (runs, images, 1, 1))
    return pixels + 0.5 * level


def draw_defects(rng: np.random.Generator, cell: Cell, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw defects: their region, 0 outside, and what they add to the scores.

    Both have the shape of the noise.
    """
    if cell.has_maps:
        return draw_regions(rng, cell, runs)
    labels = np.tile(cell.labels.astype(np.int32), (runs, 1))
    return labels, shift_of(cell.case, cell.variant) * labels


def truth_of(cell: Cell) -> tuple[np.ndarray | None, list[float]]:
    """Return the levels of the scores of maps, and the true metrics in the cell's proportions."""
    if cell.has_maps:
        return levels_of(cell)
    shift = shift_of(cell.case, cell.variant)
    return None, image_truth(shift, cell.variant, cell.good, cell.defective)


def resampled(
    cell: Cell,
    edges: np.ndarray | None,
    scores: np.ndarray,
    region: np.ndarray,
    number: int,
    resamples: int,
) -> tuple[dict[str, float], Resamples]:
    """Return the metrics of a test set, and what its intervals need.

    Args:
        cell: of the test set.
        edges: between the levels of maps, as ``truth_of``.
        scores, region: of one run.
        number: of the run.
        resamples: number of draws.
    """
    labels = cell.labels
    if edges is not None:
        scores = np.searchsorted(edges, scores).astype(np.float32)
    counts = bootstrap.ImageCounts.from_scores(scores, region)
    weights = [
        np.ones((1, len(labels))),
        bootstrap.draws(labels, resamples, number),
        1 - np.eye(len(labels)),
    ]
    found = counts.metrics(np.concatenate(weights))[: len(cell.metrics)]
    values = dict(zip(cell.metrics, found[:, 0].tolist(), strict=True))
    drawn = dict(zip(cell.metrics, found[:, 1 : 1 + resamples], strict=True))
    left = dict(zip(cell.metrics, found[:, 1 + resamples :], strict=True))
    area = np.count_nonzero(region.reshape(len(labels), -1), axis=1)
    return values, Resamples("", "", "", 0, labels, labels, scores, area, drawn, left, 0, 0)


# -- test sets of images ---------------------------------------------------------------------------


@cache
def shift_of(auroc: float, variant: str) -> float:
    """Return the shift of the defective images' scores that gives an AUROC."""
    return brentq(lambda shift: image_truth(shift, variant, 1, 1)[0] - auroc, 0, 60)


def image_truth(shift: float, variant: str, good: int, defective: int) -> list[float]:
    """Return the image metrics of infinitely many images in these proportions."""
    share = np.geomspace(1e-12, 1, 20_001)
    if variant == HEAVY:
        recall = stdtr(3, shift * np.sqrt(3) + stdtrit(3, share))
    else:
        recall = ndtr(shift + ndtri(share))
    share, recall = np.r_[0, share], np.r_[0, recall]
    tp, fp = defective * recall, good * share
    precision = tp / np.maximum(tp + fp, 1e-300)
    f1 = 2 * tp / (tp + fp + defective)
    return [np.trapezoid(recall, share), np.trapezoid(precision, recall), float(f1.max())]


# -- test sets of maps -----------------------------------------------------------------------------


def draw_regions(rng: np.random.Generator, cell: Cell, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw defects of maps; the second defect of an image is in its lower half."""
    labels = cell.labels
    shape = (runs, len(labels), 2)
    large = (rng.random(shape) < 0.3) & (cell.variant == UNEQUAL)
    if cell.variant == UNEQUAL:
        height = np.where(large, 7, rng.integers(1, 4, shape))
        width = np.where(large, rng.integers(8, 16, shape), rng.integers(1, 4, shape))
    else:
        sides = np.exp(rng.normal(1.2, 0.5, (2, *shape)))
        height, width = np.clip(sides, 1, SIDE // 2 - 1).astype(int)
    top = (rng.random(shape) * (SIDE // 2 - height)).astype(int) + np.array([0, SIDE // 2])
    left = (rng.random(shape) * (SIDE - width + 1)).astype(int)
    there = (labels == 1)[:, None] & np.stack(
        [np.ones(shape[:2], bool), rng.random(shape[:2]) < 0.3], axis=2
    )
    mean, spread = next(each for each in CONTRASTS if each[0] == cell.case)
    contrast = mean + spread * rng.normal(size=shape) - large
    at = np.arange(SIDE)
    rows = (at >= top[..., None]) & (at < (top + height)[..., None])
    columns = (at >= left[..., None]) & (at < (left + width)[..., None])
    inside = rows[..., :, None] & columns[..., None, :] & there[..., None, None]
    number = 1 + np.arange(2 * len(labels)).reshape(len(labels), 2, 1, 1)
    return (inside * number).sum(axis=2), (inside * contrast[..., None, None]).sum(axis=2)


def levels_of(cell: Cell) -> tuple[np.ndarray, list[float]]:
    """Return the levels of the scores, and the true metrics in the cell's proportions."""
    many = cell._replace(good=5000, defective=5000)
    rng = np.random.default_rng([2, int(10 * cell.case)])
    region, added = draw_regions(rng, many, 1)
    scores = draw_noise(rng, many, 1) + added
    mixed = np.concatenate([rng.choice(scores.ravel(), 20_000), scores[region > 0]])
    edges = np.quantile(mixed, np.linspace(0, 1, LEVELS + 1)[1:-1])
    levels = np.searchsorted(edges, scores[0]).astype(np.float32)
    counts = bootstrap.ImageCounts.from_scores(levels, region[0])
    weights = np.where(many.labels, cell.defective, cell.good)[None].astype(float)
    return edges, list(counts.metrics(weights)[:, 0])
