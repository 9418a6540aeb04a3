"""From images to a feature store: decode, preprocess, run the backbone, write."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from indad import __version__, store
from indad.backbone import Backbone, load_backbone
from indad.errors import DataError, DeviceError
from indad.extractor import made_with
from indad.features import Size, chunks
from indad.images import Geometry, read_image, read_mask
from indad.manifest import content_hash
from indad.progress import Progress, ignore

logger = logging.getLogger("indad")


def common_size(manifest: pd.DataFrame, geometry: Geometry) -> Size:
    """Return the ``(H, W)`` that all images have after the preprocessing.

    Raises:
        DataError: they differ, naming two images, or one is smaller than the crop.
    """
    sizes: dict[Size, str] = {}
    for row in manifest.itertuples():
        height, width = geometry.resized(row.height, row.width)
        if geometry.crop and (geometry.crop[0] > height or geometry.crop[1] > width):
            raise DataError(
                f"{row.image}: {row.width} x {row.height} pixels become {width} x {height} by the "
                f"resize, smaller than the crop; choose a larger 'resize' or a smaller 'crop'"
            )
        sizes.setdefault(geometry.output(row.height, row.width), row.image)
    if len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise DataError(
            f"images differ in size after the preprocessing: {first} is {one[1]} x {one[0]}, "
            f"{second} is {other[1]} x {other[0]}. Set 'crop', or 'resize: [height, width]'"
        )
    return next(iter(sizes))


def _decoded(paths: Sequence[Path], geometry: Geometry, ahead: int) -> Iterator[np.ndarray]:
    """Decode images in order, a bounded number ahead, beside whoever consumes them."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        todo = iter(paths)
        for path in todo:
            waiting.append(pool.submit(read_image, path, geometry))
            if len(waiting) > ahead:
                break
        while waiting:
            image = waiting.popleft().result()
            following = next(todo, None)
            if following is not None:
                waiting.append(pool.submit(read_image, following, geometry))
            yield image


class Preprocessing:
    """Normalise uint8 images and move them to the backbone's device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        self.device = device
        self.mean = 255 * torch.tensor(mean, device=device)
        self.std = 255 * torch.tensor(std, device=device)

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Return ``(B, 3, H, W)`` float32, channels last in memory, of uint8 ``(B, H, W, 3)``."""
        pixels = torch.from_numpy(images).to(self.device, non_blocking=True).float()
        return pixels.sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)


def features_of(
    backbone: Backbone, images: torch.Tensor, layers: Sequence[str], embedding: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the layer maps and the pooled embedding ``(B, D)`` of a batch."""
    with torch.inference_mode():
        tapped = backbone(images)
        z = tapped[embedding].float().mean(dim=(2, 3))
        return {layer: tapped[layer] for layer in layers}, z


def open_backbone(extractor: Mapping[str, Any], device: str) -> Backbone:
    """Load an extractor's backbone, tapped at its layers and the embedding's."""
    tapped = dict.fromkeys([*extractor["layers"], extractor["embedding"]])
    source = extractor["weights"] or "timm's weights, downloaded on first use"
    logger.info("extract: loading %s with %s", extractor["backbone"], source)
    backbone = load_backbone(
        extractor["backbone"], layers=list(tapped), weights=extractor["weights"]
    )
    for line in backbone.report:
        logger.info("weights: %s", line)
    return backbone.to(device)


def extract(
    manifest: pd.DataFrame,
    folder: Path,
    output: Path,
    *,
    extractor: Mapping[str, Any],
    device: str = "cpu",
    batch_size: int = 32,
    progress: Progress = ignore,
) -> None:
    """Extract the features of a category into the store ``output``.

    Args:
        manifest: the category's images (see ``indad.manifest``).
        folder: the category folder its paths are relative to.
        output: the HDF5 file; it appears only when it is complete.
        extractor: settings as ``Config.extractor`` returns them.
        device: ``cpu`` or ``cuda``.
        batch_size: images run at once; it changes features only by rounding.
        progress: called with images done and in all.

    Raises:
        DataError: an image cannot be read or differs in size.
        WeightsError, ConfigError: from the backbone.
        DeviceError: the device's memory does not hold a batch.
    """
    geometry = Geometry.from_config(extractor["resize"], extractor["crop"])
    size = common_size(manifest, geometry)
    backbone = open_backbone(extractor, device)
    mean = extractor.get("mean") or list(backbone.mean)
    std = extractor.get("std") or list(backbone.std)
    prepare = Preprocessing(mean, std, device)
    layers, pooled = list(extractor["layers"]), extractor["embedding"]
    grid = backbone.feature_size(*size)
    shapes = {layer: (backbone.channels[layer], *grid[layer]) for layer in layers}

    description = made_with(extractor, backbone.weights_sha256) | {
        "mean": list(mean),
        "std": list(std),
        "input_size": list(size),
        "weights_source": backbone.weights_source,
        "manifest_sha256": content_hash(manifest),
        "device": device,
        "versions": {
            "indad": __version__,
            **{package: version(package) for package in ("torch", "timm", "pillow", "numpy")},
        },
    }
    with store.create(output, description, dtype=extractor["dtype"]) as writer:
        done = 0
        for split in store.SPLITS:
            rows = manifest[manifest["split"] == split]
            names = rows["image"].tolist()
            writer.add_split(split, names, shapes, backbone.channels[pooled])
            images = _decoded([folder / name for name in names], geometry, 2 * batch_size)
            for part in chunks(len(names), batch_size):
                batch = np.stack([next(images) for _ in names[part]])
                try:
                    maps, z = features_of(backbone, prepare(batch), layers, pooled)
                except torch.cuda.OutOfMemoryError:
                    raise DeviceError(
                        f"the GPU's memory does not hold a batch of {len(batch)} images; set a "
                        f"'batch_size' below {batch_size} in the configuration"
                    ) from None
                writer.write(
                    split,
                    part.start,
                    {layer: values.float().cpu().numpy() for layer, values in maps.items()},
                    z.cpu().numpy(),
                )
                done += len(batch)
                progress(done, len(manifest))
            if split == "test":
                _write_ground_truth(writer, rows, folder, geometry, size)


def _write_ground_truth(
    writer: store.StoreWriter, rows: pd.DataFrame, folder: Path, geometry: Geometry, size: Size
) -> None:
    has_mask = [bool(row.mask) or row.label == 0 for row in rows.itertuples()]
    masks = writer.add_ground_truth(rows["label"], rows["defect"], has_mask, size)
    cut = []
    for i, name in enumerate(rows["mask"]):
        if name:
            mask = read_mask(folder / name, geometry)
            masks[i] = mask
            if not mask.any():
                cut.append(name)
    if cut:
        logger.warning(
            "%d of %d masks are empty after resize and crop, so these defects cannot be found: %s",
            len(cut),
            sum(map(bool, rows["mask"])),
            ", ".join(cut),
        )
