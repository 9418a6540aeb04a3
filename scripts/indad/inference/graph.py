"""A fitted model as one torch module, from decoded pixels to scores, that ONNX can express.

The backbone, the normalisation and the embeddings are the library's own. What it does in ways that
ONNX has no operators for is written in operators that it has: Pillow's resize, the search for the
nearest bank vector, and PaDiM's triangular solve. So is what some runtimes compute wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from indad.core.errors import ConfigError
from indad.data.images import Geometry, Size
from indad.evaluation.calibration import Threshold
from indad.features.source import chunks
from indad.inference.model import Model
from indad.methods.anomaly_map import anomaly_maps
from indad.methods.base import Detector
from indad.methods.padim import PaDiM
from indad.methods.patchcore import PatchCore

#: Pillow's weights are whole numbers of 22 bits. Their upper and lower 11 bits are computed and
#: applied by themselves, so that float32 holds products and sums without rounding.
HALF = 2.0**11
#: Whether the installed Pillow may resize the height first, see `_height_first`.
PILLOW_HEIGHT_FIRST = int(PIL.__version__.split(".")[0]) >= 13
#: Bank vectors compared at once: a block of 784 queries takes 13 MB.
BANK_BLOCK = 4096
#: Largest number of blocks of a bank, each of which adds operators to the graph.
MOST_BLOCKS = 64
#: Positions whose factors are inverted at once.
INVERT_POSITIONS = 64


class Scorer(nn.Module):
    """All of a model: pixels to image scores and anomaly maps, and verdicts with a threshold.

    Args:
        model: a fitted model on a CPU, with or without a threshold.

    Attributes:
        outputs: names of what `forward` returns.

    Raises:
        ConfigError: the model's method, precision or image size cannot be exported.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.ensemble is not None:
            raise ConfigError(
                f"{model.path}: an ensemble cannot be exported; export one of its members"
            )
        if not model.input_size:
            raise ConfigError(
                f"{model.path}: its training images differ in size after the resize, an exported "
                "file has one; set 'crop' of the extractor and run the workflow again"
            )
        self.network = model.extractor.network
        precision = model.detector.made_with_["precision"]
        if precision != "float32":
            raise ConfigError(
                f"{model.path}: its backbone computes in {precision}; only float32 can be "
                "exported: set 'precision: float32' of the extractor and run the workflow again"
            )
        self.backbone = self.network.backbone.model  # registered: its weights become the file's
        self.layers = model.detector.layers_
        self.dtype = getattr(torch, model.detector.made_with_["dtype"])
        self.resize = Resize(model.geometry, model.input_size)
        self.patches = patch_scores(model.detector)
        self.input_size, self.limits = model.input_size, limits(model.threshold)
        self.outputs = ["score", "map", *("anomalous", "mask")[: len(self.limits)]]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score decoded images.

        Args:
            images: uint8 RGB ``(B, h, w, 3)`` of any height and width.

        Returns:
            Scores ``(B,)`` and maps ``(B, H, W)``, NaN for images of a size that the model cannot
            be used with; ``score > threshold`` ``(B,)`` and ``map > pixel threshold``
            ``(B, H, W)``, both also true for NaN, as far as the model has these thresholds.
        """
        pixels, usable = self.resize(images)
        maps, _ = self.network.features(pixels)
        # Rounded to the type of the stored features, as the library does.
        layers = {name: maps[name].to(self.dtype).float() for name in self.layers}
        score, patch_map = self.patches(layers)
        maps = anomaly_maps([patch_map], self.input_size)
        if score is None:
            score = maps.amax(dim=(1, 2))
        maps, score = (torch.where(usable, each, torch.nan) for each in (maps, score))
        above = (~(each <= limit) for each, limit in zip((score, maps), self.limits, strict=False))
        return score, maps, *above


def limits(threshold: Threshold | None) -> list[float]:
    """Return the thresholds of images and pixels, if any, as float32 numbers with equal verdicts.

    The library compares float32 scores with float64 thresholds. A score is above a threshold if it
    is above the next float32 number below it.
    """
    found = []
    for exact in (threshold.score, threshold.peak) if threshold else ():
        if exact is not None:
            near = np.float32(exact)
            above = float(near) > exact
            found.append(float(np.nextafter(near, np.float32(-np.inf)) if above else near))
    return found


# -- the pixels -----------------------------------------------------------------------------------


class Resize(nn.Module):
    """`Geometry.apply` with Pillow's bilinear filter, equal in every pixel, for any image size.

    Pillow resizes one side, rounds to whole numbers, resizes the other and rounds again. Each pass
    is a product with a matrix that is computed from the size of the images.

    Args:
        geometry: the resize and crop.
        output: ``(H, W)`` of the result, to which all training images were brought.
    """

    def __init__(self, geometry: Geometry, output: Size) -> None:
        super().__init__()
        self.geometry, self.output = geometry, output

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Resize and crop images, uint8 ``(B, h, w, 3)``.

        Returns:
            float32 ``(B, H, W, 3)`` from 0 to 255; and whether images of this size can be used.
        """
        sides = [torch.scalar_tensor(side, dtype=torch.float64) for side in images.shape[1:3]]
        resized = self._resized(*sides)
        rows, columns = (
            _weights(*each)
            for each in zip(images.shape[1:3], sides, resized, self.output, strict=True)
        )
        planes = images.permute(0, 3, 1, 2).float()
        # A branch would run one of the two, but not every runtime has branches.
        values = torch.where(
            _height_first(sides, resized),
            _resize_last(_resize_last(planes.mT, rows).mT, columns),
            _resize_last(_resize_last(planes, columns).mT, rows).mT,
        ).permute(0, 2, 3, 1)
        enough = torch.ge if self.geometry.crop else torch.eq
        fits = [enough(side, kept) for side, kept in zip(resized, self.output, strict=True)]
        return values, fits[0] & fits[1]

    def _resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Return `Geometry.resized` of a size in tensors."""
        short = self.geometry.resize
        if not isinstance(short, int):
            tall, wide = (torch.scalar_tensor(side, dtype=torch.float64) for side in short)
            return tall, wide
        tall, wide = (short * a / b for a, b in ((height, width), (width, height)))
        return tall.floor().clamp(min=short), wide.floor().clamp(min=short)


def _height_first(sides: list[Tensor], resized: Sequence[Tensor]) -> Tensor:
    """Return whether Pillow resizes the height first.

    Pillow 13 does if it loses more than twice as many pixels as the width; earlier versions never.
    """
    (height, width), (tall, wide) = sides, resized
    less = (height > tall) & (height - tall > 2 * (width - wide))
    return less & PILLOW_HEIGHT_FIRST


def _weights(length: int, side: Tensor, resized: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Return Pillow's weights ``(kept, length)`` along a side: whole numbers that sum to 2^22.

    They are exact for sides up to 4096 pixels in runtimes that compute in float32, too.

    Args:
        length: of the side, in pixels.
        side: the same in a tensor, float64.
        resized: pixels after the resize, float64.
        kept: pixels after the centre crop.

    Returns:
        U and L, where the weights are ``U * HALF + L``.
    """
    first = ((resized - kept) / 2).round()
    outputs, inputs = (2 * torch.arange(count, dtype=torch.float64) + 1 for count in (kept, length))
    # Distances between the centres of pixels, times 2 * resized.
    distances = (inputs * resized - ((outputs + 2 * first) * side)[:, None]).abs()
    shares = (2 * torch.maximum(side, resized) - distances).clamp(min=0) * HALF
    total = shares.sum(dim=1, keepdim=True) / HALF
    upper = (shares / total).floor()
    lower = ((shares - upper * total) * HALF / total + 0.5).floor()
    return upper.float(), lower.float()


def _resize_last(values: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """Resize the last dimension of whole numbers up to 255, and round to such numbers."""
    upper, lower = weights
    carried = (values @ lower.T / HALF).floor()
    total = values @ upper.T + carried + HALF / 2
    return (total / HALF).floor().clamp(0, 255)


# -- the backbone ---------------------------------------------------------------------------------

_BICUBIC = torch.ops.aten._upsample_bicubic2d_aa.default


def _bicubic(values: Any, size: Sequence[int], align_corners: bool, *scales: float | None) -> Any:
    """Translate torch's antialiased bicubic resize into products with a matrix for each side.

    Transformers resize their position embeddings with it. As ONNX's Resize, OpenVINO 2026.4
    computes it without antialiasing, and TensorRT does not read it.
    """
    from onnxscript import ir, opset20

    sides = zip(values.shape[2:], size, scales or (None, None), strict=True)
    rows, columns = (
        _BICUBIC(torch.eye(before)[None, None], [after, before], align_corners, scale)[0, 0]
        for before, after, scale in sides
    )
    left, right = (
        opset20.Constant(value=ir.tensor(each)) for each in (rows, columns.T.contiguous())
    )
    return opset20.MatMul(opset20.MatMul(left, values), right)


#: Torch's operators, and how to write them instead of as torch does, for ``torch.onnx.export``.
TRANSLATIONS: dict[Callable, Callable] = {_BICUBIC: _bicubic}

# -- the methods ----------------------------------------------------------------------------------


def patch_scores(detector: Detector) -> nn.Module:
    """Return the module that computes a detector's image scores and patch map from its layers.

    Raises:
        ConfigError: the method cannot be exported.
    """
    if isinstance(detector, PaDiM):
        return Mahalanobis(detector)
    if isinstance(detector, PatchCore):
        return NearestPatches(detector)
    reason = (
        "it compares with the stored features of all training images, which are a file of their "
        "own; predict uses it"
        if detector.needs_gallery
        else "it has no form in ONNX's operators"
    )
    raise ConfigError(f"export: {detector.method} cannot be exported: {reason}")


class Mahalanobis(nn.Module):
    """PaDiM's distances. The Cholesky factors L are inverted here, in float64."""

    def __init__(self, detector: PaDiM) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("mean", detector.mean_[:, :, None])
        factor = detector.factor_
        if not detector.low_rank_:
            parts = [_inverted(factor[at]) for at in chunks(len(factor), INVERT_POSITIONS)]
            factor = torch.cat(parts)
        self.register_buffer("factor", factor)

    def forward(self, layers: dict[str, Tensor]) -> tuple[None, Tensor]:
        """Return no image scores, and the distances ``(B, h, w)``."""
        x = self.detector.embed(layers) - self.mean
        if self.detector.low_rank_:
            explained = (self.factor @ x).square().sum(dim=1)
            squared = (x.square().sum(dim=1) - explained) / self.detector.epsilon
        else:
            first, second, below = _blocks(self.factor)
            upper, rest = x.split([first.shape[1], second.shape[1]], dim=1)
            lower = below @ upper + second @ rest
            squared = (first @ upper).square().sum(dim=1) + lower.square().sum(dim=1)
        return None, squared.clamp(min=0).sqrt().T.unflatten(1, self.detector.grid_)


def _blocks(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blocks A, C and B of lower triangles [[A, 0], [B, C]] packed by PaDiM."""
    half = packed.shape[2]
    rest = packed.shape[1] - 1 - half
    return (
        packed[:, 1 : half + 1].tril(),
        packed[:, :rest, :rest].triu().mT,
        packed[:, half + 1 :],
    )


def _inverted(packed: Tensor) -> Tensor:
    """Invert packed lower triangles, in float64; the result is packed in the same way."""
    first, second, below = _blocks(packed.double())
    first, second = (torch.linalg.inv(each) for each in (first, second))
    half, rest = first.shape[1], second.shape[1]
    out = torch.zeros_like(packed)
    out[:, 1 : half + 1] = first
    out[:, half + 1 :] = -second @ below @ first
    out[:, :rest, :rest] += second.mT
    return out


class NearestPatches(nn.Module):
    """PatchCore's distances to the nearest bank vector, found as `neighbors.Bank` finds it.

    The bank is compared block by block, with products of centred vectors. The distance to the
    nearest vector is computed from the difference, without cancellation.
    """

    def __init__(self, detector: PatchCore) -> None:
        super().__init__()
        self.detector, bank = detector, detector.bank_in_use
        self.neighbours = min(detector.neighbours, len(bank))
        self.register_buffer("mean", bank.mean(dim=0))
        size = max(BANK_BLOCK, math.ceil(len(bank) / MOST_BLOCKS))
        self.blocks = nn.ParameterList(
            nn.Parameter(block, requires_grad=False) for block in (bank - self.mean).split(size)
        )

    def forward(self, layers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the image scores ``(B,)`` and the patch map ``(B, h, w)``."""
        patches = self.detector.embed(layers)
        _, height, width, dimensions = patches.shape
        centred = patches.reshape(-1, dimensions) - self.mean
        nearest = self._nearest(centred)
        distance = (centred - nearest).square().sum(dim=1).sqrt().reshape(-1, height * width)
        score, farthest, patch_map = self.detector.summarise(distance)
        if self.neighbours > 1:
            at = torch.arange(farthest.shape[0]) * (height * width) + farthest
            score = score * self._weight(centred[at], nearest[at])
        return score, patch_map.unflatten(1, (height, width))

    def _nearest(self, queries: Tensor) -> Tensor:
        """Return the nearest bank vector of each query ``(M, D)``, all of them centred."""
        best, vectors = None, None
        for block in self.blocks:
            value, index = _closeness(queries, block).max(dim=1)
            if best is None:
                best, vectors = value, block[index]
                continue
            better = value > best
            best = torch.where(better, value, best)
            vectors = torch.where(better[:, None], block[index], vectors)
        return vectors

    def _weight(self, patch: Tensor, match: Tensor) -> Tensor:
        """Return the weights of equation 7 for the farthest patches and their nearest vectors."""
        found = []
        for block in self.blocks:
            count = min(self.neighbours, len(block))
            found.append(block[_closeness(match, block).topk(count, dim=1).indices])
        near = torch.cat(found, dim=1)
        apart = (near - match[:, None]).square().sum(dim=2)
        # The nearest one is the match itself, or has the same values.
        order = apart.topk(self.neighbours, dim=1, largest=False).indices[:, 1:]
        distances = (near - patch[:, None]).square().sum(dim=2).sqrt().gather(1, order)
        own = (match - patch).square().sum(dim=1, keepdim=True).sqrt()
        return 1 - torch.softmax(torch.cat([own, distances], dim=1), dim=1)[:, 0]


def _closeness(queries: Tensor, bank: Tensor) -> Tensor:
    """Return ``(M, n)``: half of ``|query|^2`` minus half of the squared distance."""
    return linear(queries, bank, bank.square().sum(dim=1) / -2)
