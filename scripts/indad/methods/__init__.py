"""The methods by name. A new method is a module in this folder and one line in ``METHODS``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from indad.core.errors import ConfigError, StoreError
from indad.features.source import FeatureSource
from indad.methods.base import MEMORY, Detector
from indad.methods.constraints import Parameter
from indad.methods.model_file import SCHEMA_VERSION as SCHEMA_VERSION
from indad.methods.model_file import read_header, read_tensors

#: Name of a method in the configuration: its module and class.
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


def parameters(name: str) -> dict[str, Parameter]:
    """Return the parameters of a method, except the seed: name to default and allowed values.

    >>> parameters("padim")["epsilon"].default
    0.01
    >>> parameters("padim")["epsilon"].allowed.text
    'a number above 0'
    >>> parameters("padim")["dimensions"].allowed.schema
    {'type': 'integer', 'minimum': 1}

    Raises:
        ConfigError: there is no method of that name.
    """
    cls = method_class(name)
    return {
        key: Parameter(each.default, cls.constraints[key])
        for key, each in inspect.signature(cls).parameters.items()
        if key != "seed"
    }


def create(name: str, values: Mapping[str, Any], *, seed: int = 0) -> Detector:
    """Make an unfitted detector.

    Args:
        name: the method.
        values: parameters of its constructor; defaults apply to those left out.
        seed: of everything that is drawn at random.

    Raises:
        ConfigError: the method or a parameter is unknown, or a value is not allowed.
    """
    known = parameters(name)
    for key in values:
        if key not in known:
            raise ConfigError(f"{key}: unknown parameter of {name}; it has {', '.join(known)}")
    return method_class(name)(**values, seed=seed)


def version(name: str) -> int:
    """Return the version of a method's algorithm."""
    return method_class(name).version


def score_parameters(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``values`` that take effect only in scoring."""
    return {key: values[key] for key in method_class(name).score_parameters}


def load(
    path: str | Path,
    *,
    gallery: FeatureSource | None = None,
    device: str = "cpu",
    memory: int = MEMORY,
    parameters: Mapping[str, Any] | None = None,
) -> Detector:
    """Read a model that ``Detector.save`` wrote; its scores are bit-identical to the saved one's.

    Args:
        path: the model file.
        gallery: the training features, for a method that needs a gallery.
        device: where to score, ``cpu`` or ``cuda``.
        memory: as in ``Detector.fit``.
        parameters: other values for the method's ``score_parameters``.

    Raises:
        StoreError: the file is missing, damaged, or of another method or version.
        ConfigError: ``parameters`` has one that only a new fit could change.
    """
    header = read_header(path)
    cls = _compatible_class(path, header, parameters or {})
    try:
        return cls.from_state(
            header | {"parameters": header["parameters"] | dict(parameters or {})},
            read_tensors(path, device),
            gallery=gallery,
            device=device,
            memory=memory,
        )
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path}: damaged model ({error}); delete it and run again") from None


def _compatible_class(
    path: str | Path, header: Mapping[str, Any], parameters: Mapping[str, Any]
) -> type[Detector]:
    """Return the class that reads a model, for scoring with ``parameters``.

    Raises:
        StoreError: this version of the library cannot read the model.
        ConfigError: the model was fitted with another value of one of ``parameters``.
    """
    if header["method"] not in METHODS:
        raise StoreError(
            f"{path}: method is {header['method']!r}, this library has {', '.join(METHODS)}; "
            "delete the model and fit it again"
        )
    cls = method_class(header["method"])
    if header["method_version"] != cls.version:
        raise StoreError(
            f"{path}: method_version is {header['method_version']}, this library reads "
            f"{cls.version}; delete the model and fit it again"
        )
    for name, value in parameters.items():
        fitted = header["parameters"].get(name)
        if name not in cls.score_parameters and fitted != value:
            raise ConfigError(
                f"{name}: the model {path} was fitted with {fitted!r}, not {value!r}; fit it again"
            )
    return cls
