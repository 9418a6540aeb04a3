"""The expected time of a run, before it starts: products of sizes by the speed of this machine.

Work is counted in floating-point operations of matrix products. What else a stage does is counted
as the operations that take as long; these constants were measured on 2 cores. So the times are
estimates: they distinguish minutes from hours. Nothing here imports torch.
"""

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indad.core.errors import IndadError
from indad.core.progress import duration
from indad.data import manifest
from indad.data.find_images import find_images
from indad.data.folder_layout import TRAIN
from indad.data.images import Geometry, Size
from indad.data.images import size as image_size
from indad.pipeline.config import Config, Experiment

#: Seconds that the processes of a job take to start.
START = 7.0
#: Operations for each pair of patches that is compared: in a search, for each channel and beside
#: them, and in the choice of a coreset.
CHANNEL, SEARCH, CORESET = 2.4, 60, 350
#: Operations of a matrix product that take as long as one of a backbone.
FORWARD = 3
#: Operations for each pixel of a map: smoothing, reading, writing, metrics.
PIXEL = 1.5e5
#: Minutes of an experiment from which something cheaper is suggested.
LONG = 10

#: Backbone, its operations on 224 x 224 pixels in 1e9, and the stride and channels of its layers.
_RESNET = {"layer1": (4, 256), "layer2": (8, 512), "layer3": (16, 1024), "layer4": (32, 2048)}
_BACKBONES: tuple[tuple[str, float, Mapping[str, Size]], ...] = (
    ("resnet18*", 3.6, {name: (s, c // 4) for name, (s, c) in _RESNET.items()}),
    ("wide_resnet50*", 22.8, _RESNET),
    ("wide_resnet101*", 45.6, _RESNET),
    ("resnext101_32x8d*", 32.8, _RESNET),
    ("densenet201*", 8.6, {f"features.denseblock{i}": (2 << i, c)
                           for i, c in enumerate((256, 512, 1792, 1920), 1)}),
    ("*efficientnet_lite0*", 0.8,
     {"blocks.1": (4, 24), "blocks.2": (8, 40), "blocks.4": (16, 112)}),
    ("vit_small_patch14*", 12, {"*": (14, 384)}),
    ("vit_base_patch14*", 46, {"*": (14, 768)}),
    ("vit_small_patch16*", 9.2, {"*": (16, 384)}),
)  # fmt: skip


class Images(NamedTuple):
    """The images of a category: their numbers, and ``(height, width)`` of the first one."""

    train: int
    test: int
    size: Size


class Layers(NamedTuple):
    """What is known of an extractor's layers for images of one size.

    Attributes:
        forward: operations of the backbone for an image.
        shapes: positions and channels of the layers, by name.
        pixels: of an image.
    """

    forward: float
    shapes: Mapping[str, tuple[int, int]]
    pixels: int


def expected_times(config: Config) -> list[str]:
    """Return lines that say how long what is missing of a run will take on this machine.

    Data that do not exist yet and backbones whose layers are not known here are left out, and
    named.
    """
    if config.device != "cpu" and Path("/proc/driver/nvidia/version").exists():
        return []  # the speed of a GPU is not measured
    try:
        seconds, unknown, train = _work(config)
    except IndadError:  # the run raises it with its message
        return []
    left_out = "; ".join(unknown)
    if not seconds:
        return [f"expected times are not known for {left_out}"] if unknown else []
    rate = operations_per_second()
    seconds = {name: work / rate + START * jobs for name, (work, jobs) in seconds.items()}
    parts = ", ".join(f"{name} {duration(each)}" for name, each in seconds.items())
    lines = [
        f"expected times on this machine, estimated before the run, without pictures, tables and "
        f"report: {parts}"
    ]
    if unknown:
        lines.append(f"these leave out {left_out}")
    slow = {name: each for name, each in seconds.items() if name in config.scored}
    if slow and max(slow.values()) > 60 * LONG:
        name = max(slow, key=lambda each: slow[each])
        lines.append(f"{name} takes longest; {cheaper(config.scored[name], train)}")
    return lines


def cheaper(experiment: Experiment, train: int) -> str:
    """Return what makes an experiment on ``train`` images cheaper, and by how much."""
    parameters = experiment.parameters
    if experiment.method == "spade":
        now = min(parameters["k_pixel"], train)
        k = max(1, now // 5)
        ways = [f"'k_pixel: {k}' makes it about {now / k:.0f} times faster"]
    elif experiment.method == "patchcore" and parameters["coreset_ratio"] > 0.01:
        times = parameters["coreset_ratio"] / 0.01
        ways = [f"'coreset_ratio: 0.01' makes it about {times:.0f} times faster"]
    elif experiment.method == "padim":
        d = max(1, parameters["dimensions"] // 2)
        ways = [f"'dimensions: {d}' makes it about 4 times faster"]
    else:
        ways = []
    times = 4 if experiment.method == "padim" else 16
    return " and ".join([*ways, f"half of 'resize' and 'crop' about {times} times"])


def operations_per_second() -> float:
    """Measure the operations of a product of matrices in a second, in a fifth of one."""
    matrix = np.ones((768, 768), np.float32)
    _ = matrix @ matrix
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < 0.2:
        _ = matrix @ matrix
        count += 1
    return 2 * len(matrix) ** 3 * count / passed


def _work(config: Config) -> tuple[dict[str, tuple[float, int]], list[str], int]:
    """Return operations and jobs by stage or experiment, what is left out, and the most images."""
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    unknown: dict[str, None] = {}

    def add(name: str, work: float) -> None:
        total[name][0] += work
        total[name][1] += 1

    fitted, train = set(), 0
    for dataset, category in config.categories:
        images = _images_of(config, dataset, category)
        if images is None:
            if config.datasets[dataset].used_in_place is None:
                unknown[f"{dataset}, which is downloaded or made first"] = None
            continue
        train = max(train, images.train)
        at = f"{dataset}/{category}"
        for name in config.used_extractors:
            extractor = config.extractor(name, dataset)
            layers = layers_of(extractor.settings, images.size)
            if layers is None:
                unknown[f"experiments with {extractor.backbone}, whose layers are not known"] = None
            elif not (config.results / f"features/{at}/{name}.h5").exists():
                add(f"extraction ({name})", layers.forward * (images.train + images.test))
        for name, run in config.scored.items():
            layers = layers_of(config.extractor(run.extractor, dataset).settings, images.size)
            for seed in run.seeds if layers and not run.members else ():
                if (config.results / f"scores/{at}/{name}/seed{seed}/scores.csv").exists():
                    continue
                fit, score = work_of(run, layers, images)
                if (at, run.model, seed) not in fitted:
                    fitted.add((at, run.model, seed))
                    model = config.results / f"models/{at}/{run.model}/seed{seed}.safetensors"
                    shared = work_of(config.models[run.model], layers, images)[0]
                    add(name, 0 if model.exists() else max(fit, shared))
                add(name, score)
                add(name, PIXEL * images.test * layers.pixels)  # evaluation
    return {name: (work, int(jobs)) for name, (work, jobs) in total.items()}, list(unknown), train


def _images_of(config: Config, dataset: str, category: str) -> Images | None:
    """Count a category's images in its manifest or its folder; None if they do not exist yet."""
    indexed = config.results / f"manifests/{dataset}/{category}.csv"
    if indexed.exists():
        with suppress(IndadError):
            table = manifest.read(indexed)
            train = int((table["split"] == TRAIN).sum())
            return Images(train, len(table) - train, (table["height"][0], table["width"][0]))
    data = config.datasets[dataset]
    folder = data.category_folder(category)
    try:
        found = find_images(folder, data.reading).images
        train = [each for each in found if each.split == TRAIN]
        size = image_size(folder.joinpath(*train[0].path))
    except (IndadError, OSError, IndexError):  # the run reports it
        return None
    return Images(len(train), len(found) - len(train), size)


def layers_of(settings: Mapping[str, Any], size: Size) -> Layers | None:
    """Return what an extractor does with images of a size; None if its backbone is not known.

    Args:
        settings: the extractor's, defaults filled in.
        size: ``(height, width)`` of an image.
    """
    height, width = Geometry.from_config(settings["resize"], settings["crop"]).output(*size)
    for backbone, operations, known in _BACKBONES:
        if not fnmatchcase(settings["backbone"], backbone):
            continue
        shapes = {}
        for layer in settings["layers"]:
            found = next((each for name, each in known.items() if fnmatchcase(layer, name)), None)
            if found is None:
                return None
            stride, channels = found
            shapes[layer] = math.ceil(height / stride) * math.ceil(width / stride), channels
        pixels = height * width
        return Layers(1e9 * FORWARD * operations * pixels / 224**2, shapes, pixels)
    return None


def work_of(experiment: Experiment, layers: Layers, images: Images) -> tuple[float, float]:
    """Return the operations of an experiment's fit and of its search for the test images."""
    parameters = experiment.parameters
    train = min(images.train, parameters["shots"] or images.train)
    shapes = [layers.shapes[name] for name in parameters["layers"] or layers.shapes]
    return _METHODS[experiment.method](parameters, shapes, train, images.test)


_Shapes = Sequence[tuple[int, int]]


def _spade(p: Mapping[str, Any], shapes: _Shapes, train: int, test: int) -> tuple[float, float]:
    gallery = min(train, p["k_pixel"])
    return 0, test * sum(n * gallery * n * (CHANNEL * c + SEARCH) for n, c in shapes)


def _padim(p: Mapping[str, Any], shapes: _Shapes, train: int, test: int) -> tuple[float, float]:
    positions, d = shapes[0][0], min(p["dimensions"], sum(c for _, c in shapes))
    return positions * (2 * train * d**2 + d**3 / 3), 2 * positions * test * d**2


def _patchcore(p: Mapping[str, Any], shapes: _Shapes, train: int, test: int) -> tuple[float, float]:
    positions = shapes[0][0]
    patches = train * positions
    bank = max(1, p["coreset_ratio"] * patches)
    part = min(patches, p["part_patches"]) if p["coreset"] == "merge" else patches
    fit = patches * p["coreset_ratio"] * part * CORESET if p["coreset_ratio"] < 1 else 0
    d = 1024 if p["embedding"] == "official" else sum(c for _, c in shapes)
    return fit, test * positions * bank * (CHANNEL * d + SEARCH)


_METHODS = {"spade": _spade, "padim": _padim, "patchcore": _patchcore}
