"""The methods by name. A new one is a module beside this file and one line in ``METHODS``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from indad.errors import ConfigError, StoreError
from indad.features import FeatureSource
from indad.methods.base import Detector

#: method name in the configuration -> module and class
METHODS = {
    "spade": "indad.methods.spade:SPADE",
    "padim": "indad.methods.padim:PaDiM",
    "patchcore": "indad.methods.patchcore:PatchCore",
}


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


def read_header(path: str | Path) -> dict[str, Any]:
    """Read a model file's description without its arrays.

    Raises:
        StoreError: the file is missing, damaged, or not a model of this project.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return json.loads(file.metadata()["indad"])
    except FileNotFoundError:
        raise StoreError(f"{path}: no such model") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise StoreError(
            f"{path}: not a model of this project, or damaged ({error}); delete it and run again"
        ) from None


def load(
    path: str | Path,
    *,
    gallery: FeatureSource | None = None,
    device: str = "cpu",
    parameters: Mapping[str, Any] | None = None,
) -> Detector:
    """Load a fitted detector of any method; arguments and errors as ``Detector.load``."""
    cls = method_class(read_header(path)["method"])
    return cls.load(path, gallery=gallery, device=device, parameters=parameters)
