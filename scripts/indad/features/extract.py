"""From decoded images to a feature store: preprocess, run the backbone, write."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from indad.core.device import smaller
from indad.core.progress import Progress, ignore
from indad.data.decode import Pixels
from indad.features import store
from indad.features.backbone import Backbone, load_backbone
from indad.features.settings import AUTO_BATCH, made_with, origin

logger = logging.getLogger("indad")

#: Batches that may wait to be written while the backbone computes the next one.
WAITING = 2
_Result = TypeVar("_Result")


class Preprocessing:
    """Normalise uint8 images and move them to the backbone's device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        self.device = device
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32, device=device)
        self.std = 255 * torch.tensor(std, dtype=torch.float32, device=device)

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Return ``(B, 3, H, W)`` float32, channels last in memory, of uint8 ``(B, H, W, 3)``."""
        pixels = torch.from_numpy(images)
        if self.device != "cpu":  # only pinned memory is copied while the GPU computes
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True)
        return pixels.sub(self.mean).div_(self.std).permute(0, 3, 1, 2)


class _ToHost:
    """Copies maps from a GPU in a separate stream, while the next batch is computed.

    On a CPU nothing is copied.
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.Stream(device) if device != "cpu" else None

    def __call__(self, maps: Mapping[str, torch.Tensor]) -> Callable[[], dict[str, np.ndarray]]:
        """Start the copies and return a function that waits for them and returns arrays."""
        if self._stream is None:
            return lambda: {name: value.numpy() for name, value in maps.items()}
        self._stream.wait_stream(torch.cuda.current_stream())
        host = {}
        with torch.cuda.stream(self._stream):
            for name, value in maps.items():
                host[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
                host[name].copy_(value, non_blocking=True)
                value.record_stream(self._stream)  # keeps the memory until it is copied
            copied = self._stream.record_event()

        def arrays() -> dict[str, np.ndarray]:
            copied.synchronize()
            return {name: value.numpy() for name, value in host.items()}

        return arrays


class BackgroundWriter:
    """Runs tasks in order in one thread, while the caller continues.

    Args:
        most: tasks that may wait.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._most = most

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task; waits while the queue is full, and raises errors of earlier tasks."""
        self._waiting.append(self._pool.submit(task))
        while len(self._waiting) > self._most:
            self._waiting.popleft().result()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


def features_of(
    backbone: Backbone, images: torch.Tensor, layers: Sequence[str], embedding: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the layer maps and the pooled embedding ``(B, D)`` of a batch."""
    with torch.inference_mode():
        tapped = {layer: values.float() for layer, values in backbone(images).items()}
        return {layer: tapped[layer] for layer in layers}, tapped[embedding].mean(dim=(2, 3))


def open_backbone(
    extractor: Mapping[str, Any], device: str, downloaded: Path | None = None
) -> Backbone:
    """Load an extractor's backbone with its layers and that of the embedding.

    Args:
        extractor: settings as ``Config.extractor`` returns them.
        device: ``cpu`` or ``cuda``.
        downloaded: timm's downloaded weights, used if the extractor names none.
    """
    tapped = dict.fromkeys([*extractor["layers"], extractor["embedding"]])
    source = extractor["weights"] or downloaded or "timm's weights, downloaded on first use"
    logger.info("extract: loading %s with %s", extractor["backbone"], source)
    backbone = load_backbone(
        extractor["backbone"],
        layers=list(tapped),
        weights=extractor["weights"],
        precision=extractor["precision"],
        downloaded=downloaded,
    )
    for line in backbone.report:
        logger.info("weights: %s", line)
    return backbone.to(device)


def extract(
    manifest: pd.DataFrame,
    pixels: Path,
    output: Path,
    *,
    extractor: Mapping[str, Any],
    weights: Path | None = None,
    device: str = "cpu",
    batch_size: int | str = "auto",
    progress: Progress = ignore,
) -> None:
    """Extract the features of a category into the store ``output``.

    The backbone runs in the calling thread. Another thread copies the features from the device,
    checks and writes them, while the next batch is computed.

    Args:
        manifest: the category's images (see ``indad.data.manifest``).
        pixels: its decoded images (see ``indad.data.decode``), with the extractor's resize and
            crop.
        output: the HDF5 file; it appears only when it is complete.
        extractor: settings as ``Config.extractor`` returns them.
        weights: timm's downloaded weights; ignored if the extractor names its own.
        device: ``cpu`` or ``cuda``.
        batch_size: images per batch; it changes features only by rounding. ``auto``: see
            ``AUTO_BATCH``.
        progress: called with the number of finished images and of all.

    Raises:
        StoreError: the decoded images are missing, damaged or of another manifest.
        WeightsError, ConfigError: from the backbone.
        DeviceError: the device's memory does not hold a single image. A batch that does not fit
            is halved, with a warning in the log.
    """
    if isinstance(batch_size, str):
        batch_size = AUTO_BATCH[device]
    backbone = open_backbone(extractor, device, weights)
    normalisation = {
        "mean": extractor.get("mean") or list(backbone.mean),
        "std": extractor.get("std") or list(backbone.std),
    }
    prepare, to_host = Preprocessing(**normalisation, device=device), _ToHost(device)
    layers, pooled = list(extractor["layers"]), extractor["embedding"]

    with Pixels(pixels, manifest) as images:
        shapes = backbone.feature_shapes(*images.size)
        maps = {layer: shapes[layer] for layer in layers}
        description = {
            **made_with(extractor, backbone.weights_sha256),
            **normalisation,
            "input_size": list(images.size),
            "weights_source": backbone.weights_source,
            **origin(manifest, device, torch.backends.cudnn.allow_tf32),
        }
        numbers = len(manifest) * sum(map(math.prod, maps.values()))
        room = numbers * np.dtype(extractor["dtype"]).itemsize

        def compute(split: str, part: slice) -> Callable[[], dict[str, np.ndarray]]:
            batch = prepare(images.read(split, part))
            tensors, z = features_of(backbone, batch, layers, pooled)
            return to_host(tensors | {_EMBEDDING: z})

        done = 0
        with store.create(output, description, dtype=extractor["dtype"], room=room) as writer:
            for split in store.SPLITS:
                names = images.images(split)
                writer.add_split(split, names, maps, shapes[pooled][0])
                with BackgroundWriter(WAITING) as background:
                    batches = _in_batches(len(names), batch_size, partial(compute, split))
                    for part, arrays in batches:
                        background.submit(partial(_write, writer, split, part.start, arrays))
                        progress(done + part.stop, len(manifest))
                done += len(names)
            rows = manifest[manifest["split"] == "test"]
            writer.add_ground_truth(
                rows["label"],
                rows["defect"],
                [bool(row.mask) or row.label == 0 for row in rows.itertuples()],
                images.mask(),
            )


def _in_batches(
    count: int, size: int, compute: Callable[[slice], _Result]
) -> Iterator[tuple[slice, _Result]]:
    """Yield slices of ``range(count)`` with the results of ``compute``.

    Slices have ``size`` elements, and fewer after a ``torch.cuda.OutOfMemoryError``.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        try:
            result = compute(part)
        except torch.cuda.OutOfMemoryError:
            size = smaller(size, "a batch of {} images")
            continue
        yield part, result
        start = part.stop


#: The pooled embedding among the arrays of a batch; no layer can have this name.
_EMBEDDING = "embedding "


def _write(
    writer: store.StoreWriter,
    split: str,
    start: int,
    arrays: Callable[[], dict[str, np.ndarray]],
) -> None:
    maps = arrays()
    embedding = maps.pop(_EMBEDDING)
    writer.write(split, start, maps, embedding)
