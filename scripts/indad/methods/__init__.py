"""The methods by name. A new one is a module beside this file and one line in ``METHODS``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from indad.core import checksum
from indad.core.errors import ConfigError, StoreError
from indad.features.source import FeatureSource
from indad.methods.base import SCHEMA_VERSION, Detector

#: method name in the configuration -> module and class
METHODS = {
    "spade": "indad.methods.spade:SPADE",
    "padim": "indad.methods.padim:PaDiM",
    "patchcore": "indad.methods.patchcore:PatchCore",
}


#: What a model's description holds.
HEADER = {
    "type": "object",
    "required": ["schema_version", "indad", "method", "method_version", "parameters", "layers",
                 "input_size", "features"],
    "properties": {
        "schema_version": {"type": "integer"},
        "indad": {"type": "string"},
        "method": {"enum": list(METHODS)},
        "method_version": {"type": "integer"},
        "parameters": {"type": "object"},
        "layers": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "input_size": {
            "type": "array", "items": {"type": "integer", "minimum": 1},
            "minItems": 2, "maxItems": 2,
        },
        "features": {"type": "object"},
        "gallery": {"type": "object"},
    },
}  # fmt: skip


def method_class(name: str) -> type[Detector]:
    """Return the class of a method.

    Raises:
        ConfigError: there is no method of that name.
    """
    if name not in METHODS:
        raise ConfigError(f"method {name!r} is unknown; choose one of {', '.join(METHODS)}")
    module, attribute = METHODS[name].split(":")
    return getattr(import_module(module), attribute)


def create(name: str, parameters: Mapping[str, Any], *, seed: int = 0) -> Detector:
    """Make an unfitted detector.

    Raises:
        ConfigError: the method or a parameter is unknown, or a value is not allowed.
    """
    cls = method_class(name)
    known = [key for key in inspect.signature(cls).parameters if key != "seed"]
    for key in parameters:
        if key not in known:
            raise ConfigError(f"{key}: unknown parameter of {name}; it has {', '.join(known)}")
    return cls(**parameters, seed=seed)


def version(name: str) -> int:
    """Return the version of a method's algorithm."""
    return method_class(name).version


def score_parameters(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``parameters`` that take effect only in scoring."""
    return {key: parameters[key] for key in method_class(name).score_parameters}


def read_header(path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Compare a model file with its seal and return its description, without its arrays.

    Args:
        path: the model file.
        verify: False leaves the comparison out, where models are only listed or told apart.

    Raises:
        StoreError: the file is missing, damaged, not a model of this project, or of another
            schema version.
    """
    import jsonschema
    from safetensors import SafetensorError, safe_open

    if verify:
        checksum.check(Path(path), "model")
    elif not Path(path).is_file():
        raise StoreError(f"{path}: no such model")
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = json.loads(file.metadata()["indad"])
        jsonschema.validate(header, HEADER)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        reason = f"{path}: not a model of this project ({error}); delete it and run again"
        raise StoreError(reason) from None
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "header"
        raise StoreError(
            f"{path}: not a model of this project ({where}: {error.message}); delete it and run "
            "again"
        ) from None
    if header["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema_version is {header['schema_version']}, this library reads "
            f"{SCHEMA_VERSION}; delete the model and fit it again"
        )
    return header


def load(
    path: str | Path,
    *,
    gallery: FeatureSource | None = None,
    device: str = "cpu",
    parameters: Mapping[str, Any] | None = None,
) -> Detector:
    """Load a fitted detector of any method; arguments and errors as ``Detector.load``."""
    header = read_header(path)
    return method_class(header["method"]).from_file(
        path, header, gallery=gallery, device=device, parameters=parameters
    )
