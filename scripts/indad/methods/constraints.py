"""Allowed values of the detectors' hyper-parameters.

A detector names a constraint for each parameter of its constructor. The base class checks all of
them in one place; a configuration schema can be made from the same objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from indad.core.errors import ConfigError


@dataclass(frozen=True)
class Constraint:
    """The allowed values of a parameter.

    Attributes:
        text: in words, as in "must be ...".
        schema: as a JSON schema.
        allows: returns whether a value is allowed.
    """

    text: str
    schema: dict[str, Any]
    allows: Callable[[Any], bool]


class Parameter(NamedTuple):
    """A parameter of a detector's constructor: its default and its allowed values."""

    default: Any
    allowed: Constraint


def integer(low: int) -> Constraint:
    """Allow integers from ``low`` on."""
    return Constraint(
        f"a whole number of at least {low}",
        {"type": "integer", "minimum": low},
        lambda value: type(value) is int and value >= low,
    )


def positive(high: float = math.inf) -> Constraint:
    """Allow finite numbers above 0, up to ``high``."""
    limit = {} if math.isinf(high) else {"maximum": high}
    return Constraint(
        "a number above 0" + (f", at most {high:g}" if limit else ""),
        {"type": "number", "exclusiveMinimum": 0} | limit,
        lambda value: type(value) in (int, float) and 0 < value <= high and value < math.inf,
    )


def choice(*values: str) -> Constraint:
    """Allow one of ``values``."""
    text = " or ".join(map(repr, values))
    return Constraint(text, {"enum": list(values)}, lambda value: value in values)


def _are_layers(value: Any) -> bool:
    names = isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
    return value is None or (names and len(set(value)) == len(value) > 0)


_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
#: Layer names, or None for all layers.
LAYERS = Constraint(
    "a list of layer names, each once, or null for all layers",
    {"anyOf": [_NAMES, {"type": "null"}]},
    _are_layers,
)


def check(values: Mapping[str, Any], constraints: Mapping[str, Constraint]) -> None:
    """Compare each value with the constraint of its name.

    Raises:
        ConfigError: naming the parameter, its value and what is allowed.
    """
    for name, value in values.items():
        if not constraints[name].allows(value):
            raise ConfigError(f"{name}: must be {constraints[name].text}, got {value!r}")
