"""What a job needs of a machine: memory and time, from the numbers and shapes of its input.

The workflow asks a cluster for these; on one machine they bound nothing unless ``--resources
mem_mb=N`` is given. An estimate is meant to be above what a job takes and seldom above four times
that (``docs/resources.md`` compares the two); where it is too low all the same, a job that was
killed for it is retried with twice as much. Sizes are in megabytes (1e6 bytes), times in minutes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from indad.core import checksum
from indad.features.settings import AUTO_BATCH
from indad.features.source import Size
from indad.methods.base import SCORE_BATCH
from indad.methods.patchcore import FIT_BATCH, OFFICIAL_DIMENSIONS

#: A process that has imported the libraries of a stage: those with torch, and those without.
TORCH_MB, PLAIN_MB = 750, 150
#: The extraction imports timm and torchvision too.
EXTRACT_MB = 1000
#: Weights of which no file tells the size.
WEIGHTS_MB = 300
#: What torch's CUDA context takes of the host's memory. Not measured: no GPU was at hand.
CUDA_MB = 3000
#: On a cluster two Snakemake processes, 145 MB each, start the script within the job's memory.
SNAKEMAKE_MB = 300
#: For what allocators take besides what is counted.
SAFETY = 1.25
#: Never less than this: a scheduler's smallest slot costs nothing.
LEAST_MB, LEAST_MINUTES = 500, 10
#: A download; nothing is submitted for it, it runs where the workflow is planned.
FETCH_MINUTES = 600

#: Multiplications and additions in a second on one core, a cautious tenth of what was measured.
FLOPS = 5e9
FLOAT = 4


class Needs(NamedTuple):
    """What a job needs: memory in MB and time in minutes."""

    mem_mb: int
    runtime: int


@dataclass(frozen=True)
class Images:
    """A category's images: how many, and the sides of the largest in pixels."""

    train: int
    test: int
    width: int
    height: int


@dataclass(frozen=True)
class Features:
    """A category's features: how many images, ``(C, h, w)`` a layer, ``(H, W)`` of an image."""

    train: int
    test: int
    layers: Mapping[str, tuple[int, int, int]]
    embedding: int
    input_size: Size

    def chosen(self, layers: list[str] | None) -> list[tuple[int, int, int]]:
        """Return the shapes of some layers, or of all; the job says if it lacks one."""
        found = [self.layers[name] for name in layers or () if name in self.layers]
        return found or list(self.layers.values())

    @property
    def maps(self) -> int:
        """Numbers in all anomaly maps of the test images."""
        return self.test * math.prod(self.input_size)


def grown(amount: int, attempt: int) -> int:
    """Return what to ask for at the ``attempt``-th try, from 1 on: twice as much each time."""
    return amount << (attempt - 1)


def tables(results: int) -> Needs:
    """Return what the tables of so many results need."""
    return _needs(2 * PLAIN_MB + 0.05 * results, 0.02 * results)


def _needs(mem: float, seconds: float = 0) -> Needs:
    return Needs(
        max(LEAST_MB, math.ceil(SNAKEMAKE_MB + mem)), LEAST_MINUTES + math.ceil(seconds / 60)
    )


# -- what is in a file -------------------------------------------------------------------------


def images_of(path: str) -> Images:
    """Count the images of a manifest.

    Raises:
        FileNotFoundError: it is not made yet.
    """
    return _images(path, Path(path).stat().st_mtime_ns)


@cache
def _images(path: str, _time: int) -> Images:
    # Without pandas, which takes longer to import than many a plan to make.
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = [(r["split"], int(r["width"]), int(r["height"])) for r in csv.DictReader(file)]
    train = sum(split == "train" for split, _, _ in rows)
    width, height = (max((row[i] for row in rows), default=0) for i in (1, 2))
    return Images(train, len(rows) - train, width, height)


def features_of(path: str) -> Features | None:
    """Read the shapes in a feature store, or None if it is damaged, which its reader will say.

    Raises:
        FileNotFoundError: it is not made yet.
    """
    return _features(path, Path(path).stat().st_mtime_ns)


@cache
def _features(path: str, _time: int) -> Features | None:
    # Not from the HDF5 data: a damaged file may end the process that parses it.
    told = checksum.read_summary(Path(path))
    try:
        height, width = told["input_size"]
        return Features(
            train=int(told["train"]),
            test=int(told["test"]),
            layers={name: (int(c), int(h), int(w)) for name, (c, h, w) in told["layers"].items()},
            embedding=int(told["embedding"]),
            input_size=(int(height), int(width)),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


# -- stages without torch ------------------------------------------------------------------------


def index() -> Needs:
    """Return what indexing needs: the data are not looked at before, so it is one size for all."""
    return Needs(2 * LEAST_MB, 30)


def decode(images: Images, size: Size, threads: int) -> Needs:
    """Return what decoding needs: an image with its copies a thread, and a step of output."""
    pixels = images.width * images.height
    # Eight bytes a pixel of 16-bit grey as float64, beside the file's pixels and the RGB ones.
    mem = PLAIN_MB + SAFETY * (14 * threads * pixels + 64 * 3 * math.prod(size)) / 1e6
    return _needs(mem, (images.train + images.test) * (0.1 + 1e-7 * pixels))


def evaluate(images: Images, size: Size) -> Needs:
    """Return what the metrics need: all pixels are sorted by their score."""
    maps = images.test * math.prod(size)
    return _needs(PLAIN_MB + SAFETY * 60 * maps / 1e6, 5e-6 * maps)


def pictures(experiments: int) -> Needs:
    """Return what the sheet of pictures needs: a few images by as many experiments."""
    return _needs(2 * PLAIN_MB + 20 * experiments, 10 * experiments)


def figures(images: Images, size: Size, experiments: int) -> Needs:
    """Return what the figures of a category need: one experiment's pixels sorted, after another."""
    pixels = images.test * math.prod(size)
    mem = 2 * PLAIN_MB + 10 * experiments + SAFETY * 60 * pixels / 1e6
    return _needs(mem, experiments * (10 + 5e-6 * pixels))


# -- stages with torch ---------------------------------------------------------------------------


def extract(
    images: Images,
    size: Size,
    *,
    weights_mb: float,
    batch_size: int | str,
    gpu: bool,
    threads: int,
) -> Needs:
    """Return what the extraction needs: the network thrice, and some batches with their maps.

    Args:
        images: the category's images.
        size: ``(H, W)`` that the network sees.
        weights_mb: the weights' size.
        batch_size: as configured.
        gpu: whether torch may use one.
        threads: cores.

    The widths of the layers are unknown before the network is built. A thousand bytes a pixel hold
    for a Wide ResNet-50, its tapped maps in the batches that wait to be written included.
    """
    batch = max(AUTO_BATCH.values()) if gpu else AUTO_BATCH["cpu"]
    if isinstance(batch_size, int):
        batch = batch_size
    pixels = math.prod(size)
    mem = 3 * weights_mb + (1000 * batch * pixels + images.test * pixels) / 1e6
    # A second for 224 x 224 pixels on one core is what a Wide ResNet-50 takes at worst.
    seconds = (images.train + images.test) * 2 * pixels / 224**2 / threads
    return _needs(EXTRACT_MB + SAFETY * mem + CUDA_MB * gpu, seconds)


def fit(
    method: str,
    parameters: Mapping[str, Any],
    features: Features | None,
    *,
    gpu: bool,
    threads: int,
) -> Needs:
    """Return what fitting a method needs."""
    if features is None:
        return _needs(TORCH_MB)
    mem, work = _FIT.get(method, _fit_any)(parameters, features)
    return _needs(TORCH_MB + SAFETY * mem + CUDA_MB * gpu, work / FLOPS / threads)


def score(
    method: str,
    parameters: Mapping[str, Any],
    features: Features | None,
    *,
    memory_mb: int,
    gpu: bool,
    threads: int,
) -> Needs:
    """Return what scoring with a method needs, with all maps of the test images.

    Args:
        method: its name.
        parameters: from `score_parameters`: a model is read whole, whatever part of its coreset
            is used.
        features: the features.
        memory_mb: what a search may take, as configured.
        gpu: whether torch may use one.
        threads: cores.
    """
    if features is None:
        return _needs(TORCH_MB)
    mem, work = _SCORE.get(method, _score_any)(parameters, features, 1.05 * memory_mb)
    batch = SCORE_BATCH * FLOAT * 3 * sum(map(math.prod, features.layers.values())) / 1e6
    mem += batch + 1.25 * FLOAT * features.maps / 1e6
    return _needs(TORCH_MB + SAFETY * mem + CUDA_MB * gpu, work / FLOPS / threads)


def score_parameters(parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's parameters for `score`, with the coreset that the model holds."""
    return {**parameters, **{key: fitted[key] for key in ("coreset_ratio",) if key in fitted}}


def threads(method: str, most: int) -> int:
    """Return the cores that fitting a method can use; SPADE's fit only reads."""
    return 1 if method == "spade" else most


def _fit_spade(parameters: Mapping[str, Any], features: Features) -> tuple[float, float]:
    return 2 * FLOAT * features.train * features.embedding / 1e6, 0


def _padim_model(parameters: Mapping[str, Any], features: Features) -> float:
    """Return the size of a PaDiM in MB: W of few images, else half a covariance, a position."""
    d, n = parameters["dimensions"], features.train
    _, height, width = features.chosen(parameters["layers"])[0]
    factor = n * d if 2 * n <= d else (d + 1) * ((d + 1) // 2)
    return FLOAT * height * width * (factor + d) / 1e6


def _fit_padim(parameters: Mapping[str, Any], features: Features) -> tuple[float, float]:
    layers = features.chosen(parameters["layers"])
    d, positions = parameters["dimensions"], math.prod(layers[0][1:])
    # Some blocks of float64 features and covariances, and the layers of a few images.
    read = 2 * FLOAT * 32 * sum(map(math.prod, layers)) / 1e6
    return 800 + read + _padim_model(parameters, features), 20 * features.train * positions * d * d


def _score_padim(
    parameters: Mapping[str, Any], features: Features, memory: float
) -> tuple[float, float]:
    d = parameters["dimensions"]
    positions = math.prod(features.chosen(parameters["layers"])[0][1:])
    embedded = FLOAT * positions * d * SCORE_BATCH / 1e6
    model = _padim_model(parameters, features)
    return 1.5 * model + 3 * embedded, 20 * features.test * positions * d * d


def _patches(parameters: Mapping[str, Any], features: Features) -> tuple[int, int, float]:
    """Return patches an image, their dimensions, and MB to embed one image."""
    layers = features.chosen(parameters["layers"])
    _, height, width = layers[0]
    official = parameters["embedding"] == "official"
    dimensions = OFFICIAL_DIMENSIONS if official else sum(each[0] for each in layers)
    # The authors' embedding unfolds 3x3 neighbourhoods and pools each layer to its own vector.
    unfolded = sum(map(math.prod, layers)) * (10 if official else 3)
    vectors = height * width * dimensions * (2 * len(layers) if official else 3)
    return height * width, dimensions, FLOAT * (unfolded + vectors) / 1e6


def _fit_patchcore(parameters: Mapping[str, Any], features: Features) -> tuple[float, float]:
    each, dimensions, embedding = _patches(parameters, features)
    patches = features.train * each
    keep = patches * parameters["coreset_ratio"]
    projected = min(parameters["projection"], dimensions)
    held = patches * (FLOAT * projected + 50) + keep * FLOAT * (dimensions + projected + 1)
    return 150 + held / 1e6 + FIT_BATCH * embedding, patches * keep * projected


def _score_patchcore(
    parameters: Mapping[str, Any], features: Features, memory: float
) -> tuple[float, float]:
    each, dimensions, embedding = _patches(parameters, features)
    bank = features.train * each * parameters["coreset_ratio"]
    bank_mb = FLOAT * bank * dimensions / 1e6
    # Read, and copied if memory allows.
    held = 1.5 * bank_mb + min(bank_mb, memory / 2) + min(150, memory / 4)
    return held + SCORE_BATCH * embedding, 2 * features.test * each * bank * dimensions


def _score_spade(
    parameters: Mapping[str, Any], features: Features, memory: float
) -> tuple[float, float]:
    layers = features.chosen(parameters["layers"])
    # Galleries that do not all fit are read anew; queries, winners and copies are of one layer.
    gallery = FLOAT * features.train * sum(map(math.prod, layers)) / 1e6
    queries = 6 * FLOAT * SCORE_BATCH * max(map(math.prod, layers)) / 1e6
    kept = 1.1 * gallery if gallery <= memory else 0
    work = sum(2 * channels * (height * width) ** 2 for channels, height, width in layers)
    images = min(parameters["k_pixel"], features.train) * features.test
    return 150 + kept + queries, images * work


def _fit_any(parameters: Mapping[str, Any], features: Features) -> tuple[float, float]:
    """Return what a method of which nothing is known may need: all features, a few times over."""
    numbers = features.train * sum(map(math.prod, features.layers.values()))
    return 3 * FLOAT * numbers / 1e6, 1e4 * numbers


def _score_any(
    parameters: Mapping[str, Any], features: Features, memory: float
) -> tuple[float, float]:
    mem, work = _fit_any(parameters, features)
    return mem + memory, work


_Fit = Callable[[Mapping[str, Any], Features], tuple[float, float]]
_Score = Callable[[Mapping[str, Any], Features, float], tuple[float, float]]
#: By method: MB beside the libraries, and multiplications and additions.
_FIT: dict[str, _Fit] = {"spade": _fit_spade, "padim": _fit_padim, "patchcore": _fit_patchcore}
_SCORE: dict[str, _Score] = {
    "spade": _score_spade,
    "padim": _score_padim,
    "patchcore": _score_patchcore,
}
