"""The cases that `benchmark.py` measures: titles, data, and the contenders of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import benchmark_images as images
import benchmark_methods as methods
import benchmark_predict as predict

#: Does the work on the data of the case. If it does only a part, it returns the factor to multiply
#: its time by.
Contender = Callable[[methods.Data], float | None]


@dataclass(frozen=True)
class Case:
    """One kind of work to measure.

    Attributes:
        title: the work, as the table shows it.
        setup: makes the data; its argument is True for a reduced size.
        contenders: name to function; the first is this project.
        max_runs: for work that takes many minutes.
        on_gpu: whether the work can run on a GPU.
        cold: whether the work starts programs, so that repeating it in a process changes nothing.
    """

    title: str
    setup: Callable[[bool], methods.Data]
    contenders: dict[str, Contender]
    max_runs: int = 99
    on_gpu: bool = True
    cold: bool = False


#: Contenders that run on a CPU only.
CPU_ONLY = ("faiss flat L2", "anomalib, OpenVINO")
#: Channels of the three tapped layers.
WRN50, RESNET18 = (256, 512, 1024), (64, 128, 256)
SEARCH: dict[str, Contender] = {
    "indad": methods.search_ours,
    "faiss flat L2": methods.search_faiss,
    "matrix product": methods.search_products,
}
_ANOMALIB = (
    "anomalib.models.components.sampling.k_center_greedy",
    "anomalib.models.components.stats",
    "anomalib.models.image.padim.anomaly_map",
)
#: Modules of other projects. They are imported before the time of a contender begins; it takes part
#: if they are installed.
IMPORTS = {
    "anomalib": _ANOMALIB,
    "anomalib (scaled)": _ANOMALIB,
    "anomalib (scaled from a quarter)": _ANOMALIB,
    "faiss flat L2": ("faiss",),
    "scikit-learn + plain AUPRO": ("sklearn.metrics",),
    "ADEval, 1,000 thresholds": ("adeval",),
    "anomalib, torch": ("anomalib.models.image.patchcore.torch_model",),
    "anomalib, OpenVINO": ("anomalib.models.image.patchcore.torch_model", "openvino"),
}


def patchcore_search(dimensions: int) -> Case:
    """Return a case of nearest-neighbour search in a coreset."""
    title = f"PatchCore search, 16 images, bank 16,385 x {dimensions}"
    return Case(title, partial(methods.search_data, dimensions, 16_385, 16 * 784), SEARCH)


def spade_search(dimensions: int) -> Case:
    """Return a case of nearest-neighbour search in a gallery."""
    title = f"SPADE gallery, 1 image, layer 1 of 50 images ({dimensions})"
    setup = partial(methods.search_data, dimensions, 156_800, 3136)
    return Case(title, setup, SEARCH | {"indad": methods.gallery_ours})


def padim(train: int, dimensions: int, channels: tuple[int, ...], *, side: int = 56) -> Case:
    """Return a case of PaDiM; ``side``: anomalib runs on a part of the 56 x 56 positions."""
    theirs = "anomalib" if side == 56 else "anomalib (scaled from a quarter)"
    return Case(
        f"PaDiM fit + 16 images, {train} training images, {dimensions} of {sum(channels)}",
        partial(methods.padim_data, train, dimensions, channels),
        {"indad": methods.padim_ours, theirs: partial(methods.padim_anomalib, side=side)},
        max_runs=1 if channels == WRN50 else 99,
    )


CASES = {
    "end-to-end": Case(
        "Image files to tables, cold: five experiments; anomalib: PatchCore-10 alone",
        images.end_to_end_data,
        {"indad": images.end_to_end_ours, "anomalib (scaled)": images.end_to_end_anomalib},
        max_runs=1,
        cold=True,
    ),
    "extract-r18": Case(
        "Image files to features, 292 images, ResNet-18; bare: the network alone",
        partial(images.extract_data, "resnet18", 209),
        {"indad": images.extract_ours, "bare network": images.extract_bare},
    ),
    "extract-wrn50": Case(
        "Image files to features, 183 images, Wide ResNet-50; bare: the network alone",
        partial(images.extract_data, "wide_resnet50_2", 100),
        {"indad": images.extract_ours, "bare network": images.extract_bare},
        max_runs=2,
    ),
    "extract-precision": Case(
        "Image files to features, 64 images, ResNet-18, by number format",
        partial(images.extract_data, "resnet18", 32),
        {
            "indad": images.extract_ours,
            "indad, bfloat16": partial(images.extract_ours, precision="bfloat16"),
            "indad, float16": partial(images.extract_ours, precision="float16"),
        },
        max_runs=1,
    ),
    "coreset": Case(
        "Greedy k-centre, 163,856 x 128, 10 %",
        methods.coreset_data,
        {
            "indad": methods.coreset_ours,
            "matrix products": methods.coreset_products,
            "plain loop (scaled)": methods.coreset_loop,
            "anomalib (scaled)": methods.coreset_anomalib,
        },
    ),
    "patchcore": patchcore_search(384),
    "patchcore-official": patchcore_search(1024),
    "spade-layer1": spade_search(256),
    "spade-r18": spade_search(64),
    "metrics": Case(
        "Pixel metrics of 5.8 million pixels",
        methods.metrics_data,
        {
            "indad": methods.metrics_ours,
            "scikit-learn + plain AUPRO": methods.metrics_sklearn,
            "ADEval, 1,000 thresholds": methods.metrics_adeval,
        },
        on_gpu=False,
    ),
    "padim-r18": padim(209, 100, RESNET18),
    "padim-wrn50-60": padim(60, 550, WRN50),
    "padim-wrn50-209": padim(209, 550, WRN50, side=28),
    "padim-wrn50-400": padim(400, 550, WRN50, side=28),
    "predict": Case(
        f"PatchCore-10 in memory, {predict.PREDICTIONS} images one by one, ResNet-18",
        predict.loaded_data,
        {
            "indad": predict.loaded_ours,
            "bare network": predict.loaded_bare,
            "anomalib, torch": predict.loaded_anomalib,
            "anomalib, OpenVINO": predict.loaded_openvino,
        },
    ),
    "predict-start": Case(
        "Start of the program to the first score; bare: importing and running the network",
        predict.model_data,
        {"indad": predict.start_ours, "bare network": predict.start_bare},
        cold=True,
    ),
}
