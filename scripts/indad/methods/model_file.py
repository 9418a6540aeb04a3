"""The model file: a safetensors file whose header describes the model, with a checksum.

The header is all that is needed to score a new image, except the backbone's weights: method,
parameters, layers, and the settings of the features that the model was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indad import __version__
from indad.core import atomic, checksum
from indad.core.errors import StoreError

if TYPE_CHECKING:
    import torch

#: The layout of the file. A reader refuses any other.
SCHEMA_VERSION = 3
#: Fields of the header and their types. A method that needs a gallery adds ``gallery``.
FIELDS = {
    "schema_version": int,
    "indad": str,
    "method": str,
    "method_version": int,
    "parameters": dict,
    "layers": list,
    "input_size": list,
    "features": dict,
    "train_sha256": list,
}


def write(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, torch.Tensor | np.ndarray]
) -> None:
    """Write a model file atomically, with the versions of its layout and of this library.

    Args:
        path: the safetensors file.
        header: the other ``FIELDS``; those left out are empty.
        arrays: the learned arrays, on any device.
    """
    from safetensors.numpy import save_file

    empty = {name: kind() for name, kind in FIELDS.items()}
    versions = {"schema_version": SCHEMA_VERSION, "indad": __version__}
    text = checksum.with_placeholder({**empty, **versions, **header})
    state = {
        name: np.asarray(value if isinstance(value, np.ndarray) else value.cpu(), order="C")
        for name, value in arrays.items()
    }
    with atomic.replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(state, str(temporary), metadata={"indad": text})
        temporary.chmod(mode)  # safetensors makes the file readable by its owner only
        checksum.write_safetensors_checksum(temporary)


def read_header(path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Return the header of a model file, without reading its arrays.

    Args:
        path: the model file.
        verify: compare the whole file with its checksum first. False is for lists of models,
            never for scoring.

    Raises:
        StoreError: the file is missing, damaged, not a model of this project, or of another
            schema version.
    """
    from safetensors import SafetensorError, safe_open

    if verify:
        checksum.check(Path(path), "model")
    elif not Path(path).is_file():
        raise StoreError(f"{path}: no such model")
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = json.loads(file.metadata()["indad"])
        for name, kind in FIELDS.items():
            if not isinstance(header[name], kind):
                raise TypeError(f"{name}: {header[name]!r}")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise StoreError(
            f"{path}: not a model of this project ({error}); delete it and run again"
        ) from None
    if header["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema_version is {header['schema_version']}, this library reads "
            f"{SCHEMA_VERSION}; delete the model and fit it again"
        )
    return header
