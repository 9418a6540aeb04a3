"""From decoded images to a feature store: preprocess, run the backbone, write."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from indad.core.device import Batches
from indad.core.progress import Progress, ignore
from indad.features import store
from indad.features.backbone import Backbone, load_backbone
from indad.features.settings import AUTO_BATCH, made_with, origin
from indad.features.tiles import TiledBackbone

if TYPE_CHECKING:
    import pandas as pd

    from indad.data.decode import Pixels
    from indad.data.images import Size

logger = logging.getLogger("indad")

#: Batches that may wait to be written while the backbone computes the next one.
WAITING = 2


class Network:
    """A backbone with the preprocessing of its images and the pooling of its embedding.

    Args:
        backbone: on ``device``.
        settings: ``layers``, ``embedding`` (the layer that is pooled), and ``mean`` and ``std`` of
            RGB pixels in [0, 1] units.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, backbone: Backbone, settings: Mapping[str, Any], device: str) -> None:
        self.backbone, self.device = backbone, device
        self.layers, self.embedding = settings["layers"], settings["embedding"]
        self._mean, self._std = (
            255 * torch.tensor(settings[name], dtype=torch.float32, device=device)
            for name in ("mean", "std")
        )

    def __call__(self, images: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the maps ``(B, C, h, w)`` of each layer and the embeddings ``(B, D)``, float32.

        Args:
            images: uint8 ``(B, H, W, 3)``.
        """
        pixels = torch.from_numpy(images)
        if self.device != "cpu":  # only pinned memory is copied while the GPU computes
            pixels = pixels.pin_memory()
        with torch.inference_mode():
            return self.features(pixels.to(self.device, non_blocking=True))

    def features(self, pixels: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the same for pixels in a tensor on the network's device, of any type."""
        # Whole rows at once: a vector of three numbers takes several times as long.
        mean, std = (each.repeat(pixels.shape[2]) for each in (self._mean, self._std))
        rows = pixels.float().flatten(2).sub(mean).div_(std)
        pixels = rows.view(pixels.shape).permute(0, 3, 1, 2)
        maps = {layer: values.float() for layer, values in self.backbone(pixels).items()}
        embedding = maps[self.embedding].mean(dim=(2, 3))
        return {layer: maps[layer] for layer in self.layers}, embedding


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
    backbone.model.to(device)
    tiles = extractor.get("tiles")
    return TiledBackbone.of(backbone, tiles) if tiles else backbone


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

    Args:
        manifest: the category's images.
        pixels: its decoded images, with the extractor's resize and crop.
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
    # pandas takes half a second to import, and prediction, which uses this module, does without it.
    from indad.data.decode import Pixels
    from indad.data.manifest import content_hash

    if isinstance(batch_size, str):
        batch_size = AUTO_BATCH[device]
    backbone = open_backbone(extractor, device, weights)
    settings = {
        **extractor,
        "mean": extractor.get("mean") or list(backbone.mean),
        "std": extractor.get("std") or list(backbone.std),
    }
    network = Network(backbone, settings, device)
    with Pixels(pixels, manifest) as images:
        parts = [(split, *part) for split in store.SPLITS for part in images.by_size(split).items()]
        shapes = {size: backbone.feature_shapes(*size) for size in {size for _, size, _ in parts}}
        description = {
            **made_with(settings, backbone.weights_sha256),
            **origin(content_hash(manifest), device, torch.backends.cudnn.allow_tf32),
            "input_size": list(parts[0][1]) if len(shapes) == 1 else [],
            "weights_source": backbone.weights_source,
        }
        values = sum(
            len(numbers) * math.prod(shapes[size][layer])
            for _, size, numbers in parts
            for layer in network.layers
        )
        with store.create(output, description, extractor["dtype"], values) as writer:
            batches = Batches(batch_size)
            for done in _extract_all(network, images, parts, shapes, writer, batches):
                progress(done, len(manifest))
            writer.add_ground_truth(images.ground_truth(manifest))


def _extract_all(
    network: Network,
    images: Pixels,
    parts: Sequence[tuple[str, Size, Sequence[int]]],
    shapes: Mapping[Size, Mapping[str, tuple[int, int, int]]],
    writer: store.StoreWriter,
    batches: Batches,
) -> Iterator[int]:
    """Extract the features of each split and size; yield the number of finished images."""
    done = 0
    for split, size, numbers in parts:
        names = images.images(split)
        part = writer.add_part(
            split,
            {number: names[number] for number in numbers},
            {layer: shapes[size][layer] for layer in network.layers},
            shapes[size][network.embedding][0],
            size,
        )
        read = partial(_read, images, split, numbers)
        for written in _extract_part(network, read, len(numbers), part, writer, batches):
            yield done + written
        done += len(numbers)


def _read(images: Pixels, split: str, numbers: Sequence[int], batch: slice) -> np.ndarray:
    return images.read(split, numbers[batch])


class ReadAhead:
    """Reads batches of images, each while the one before it is computed.

    Args:
        read: returns a batch.
        count: number of images.
        pool: the thread that reads.
    """

    def __init__(self, read: Callable[[slice], np.ndarray], count: int, pool: Executor) -> None:
        self._read, self._count, self._pool = read, count, pool
        self._next: tuple[slice, Future[np.ndarray]] | None = None

    def __call__(self, batch: slice) -> np.ndarray:
        """Return a batch, and begin to read as many images behind it."""
        # Another batch than expected: the last one did not fit into a GPU's memory.
        expected, self._next = self._next, None
        ahead = expected is not None and expected[0] == batch
        images = expected[1].result() if ahead else self._read(batch)
        if batch.stop < self._count:
            following = slice(batch.stop, min(2 * batch.stop - batch.start, self._count))
            self._next = following, self._pool.submit(self._read, following)
        return images


def _extract_part(
    network: Network,
    read: Callable[[slice], np.ndarray],
    count: int,
    part: str,
    writer: store.StoreWriter,
    batches: Batches,
) -> Iterator[int]:
    """Extract the features of images of one size; yield the number of finished ones."""
    stream = torch.cuda.Stream(network.device) if network.device != "cpu" else None
    waiting: deque[Future[None]] = deque()

    def compute(batch: slice) -> Callable[[], list[np.ndarray]]:
        maps, embedding = network(ahead(batch))
        return _to_host([*maps.values(), embedding], stream)

    def write(start: int, arrays: Callable[[], list[np.ndarray]]) -> None:
        *maps, embedding = arrays()
        writer.write(part, start, dict(zip(network.layers, maps, strict=True)), embedding)

    # The backbone runs in the calling thread. Of two other threads, one reads the next batch; the
    # other one copies the features from the device, checks and writes them.
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
        ahead = ReadAhead(read, count, reading)
        for batch, arrays in batches.run(count, compute):
            waiting.append(writing.submit(write, batch.start, arrays))
            if len(waiting) > WAITING:
                waiting.popleft().result()
            yield batch.stop
        for each in waiting:
            each.result()


def _to_host(
    tensors: Sequence[torch.Tensor], stream: torch.cuda.Stream | None
) -> Callable[[], list[np.ndarray]]:
    """Return a function that returns tensors as arrays."""
    if stream is None:
        return lambda: [each.numpy() for each in tensors]
    # They are copied from the GPU in a separate stream, while the next batch is computed.
    stream.wait_stream(torch.cuda.current_stream())
    host = []
    with torch.cuda.stream(stream):
        for tensor in tensors:
            host.append(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True))
            host[-1].copy_(tensor, non_blocking=True)
            tensor.record_stream(stream)  # keeps the memory until it is copied
        copied = stream.record_event()

    def arrays() -> list[np.ndarray]:
        copied.synchronize()
        return [each.numpy() for each in host]

    return arrays
