"""The methods by name. A new method is a module in this folder and one class in ``METHODS``."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indad.core.errors import ConfigError, StoreError
from indad.features.source import FeatureSource
from indad.methods.base import MEMORY, Detector
from indad.methods.ensemble import Ensemble
from indad.methods.model_file import SCHEMA_VERSION as SCHEMA_VERSION
from indad.methods.model_file import read_header
from indad.methods.padim import PaDiM
from indad.methods.patchcore import PatchCore
from indad.methods.spade import SPADE

#: Name of a method in the configuration and in model files, and its class.
METHODS: dict[str, type[Detector]] = {cls.method: cls for cls in (SPADE, PaDiM, PatchCore)}
#: These and the ensemble, which averages the scores of other methods.
NAMES = (*METHODS, Ensemble.method)


def method_class(name: str) -> type[Detector]:
    """Return the class of a method.

    Raises:
        ConfigError: there is no method of that name.
    """
    if name not in METHODS:
        raise ConfigError(f"method {name!r} is unknown; choose one of {', '.join(NAMES)}")
    return METHODS[name]


def create(name: str, values: Mapping[str, Any], *, seed: int = 0) -> Detector:
    """Make an unfitted detector.

    >>> create("padim", {"dimensions": 100}).parameters
    {'layers': None, 'dimensions': 100, 'epsilon': 0.01, 'shots': None, 'seed': 0}

    Args:
        name: the method.
        values: parameters of its constructor; defaults apply to those left out.
        seed: of everything that is drawn at random.

    Raises:
        ConfigError: the method or a parameter is unknown, or a value is not allowed.
    """
    cls = method_class(name)
    _check_names(cls, values)
    return cls(**values, seed=seed)


def create_ensemble(values: Mapping[str, Any], *, seed: int = 0) -> Ensemble:
    """Make an ensemble without scales; arguments and errors as `create`."""
    _check_names(Ensemble, values)
    return Ensemble(**values, seed=seed)


def _check_names(cls: type[Detector] | type[Ensemble], values: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(cls).parameters if key != "seed"]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{key}: unknown parameter of {cls.method}; it has {', '.join(known)}"
            )


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    method, fitted = header["method"], header["parameters"]
    if method not in METHODS:
        raise StoreError(
            f"{path}: method is {method!r}, this library has {', '.join(METHODS)}; "
            "delete the model and fit it again"
        )
    cls = METHODS[method]
    if header["method_version"] != cls.version:
        raise StoreError(
            f"{path}: method_version is {header['method_version']}, this library reads "
            f"{cls.version}; delete the model and fit it again"
        )
    changes = dict(parameters or {})
    for name, value in changes.items():
        if name not in cls.score_parameters and fitted.get(name) != value:
            raise ConfigError(
                f"{name}: the model {path} was fitted with {fitted.get(name)!r}, not {value!r}; "
                "fit it again"
            )
    try:
        detector = cls(**fitted | changes)
        state = load_file(str(path), device=device)
        detector.restore(header, state, gallery=gallery, device=device, memory=memory)
    except (KeyError, ValueError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise StoreError(f"{path}: damaged model ({error}); delete it and run again") from None
    return detector
