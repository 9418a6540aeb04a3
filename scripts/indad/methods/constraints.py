"""Hyper-parameters of the detectors: which values are allowed, and the check.

A detector lists a constraint for each parameter of its constructor. The base class checks all of
them in one place, and the configuration's schema is generated from the same objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from indad.core.errors import ConfigError


class Constraint(Protocol):
    """The allowed values of a parameter; ``str()`` describes them in words."""

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is allowed."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the same as a JSON schema."""
        ...


@dataclass(frozen=True)
class Integer:
    """Integers from ``low`` on."""

    low: int

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is allowed."""
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.low

    def schema(self) -> dict[str, Any]:
        """Return the same as a JSON schema."""
        return {"type": "integer", "minimum": self.low}

    def __str__(self) -> str:
        return f"a whole number of at least {self.low}"


@dataclass(frozen=True)
class Positive:
    """Finite numbers above 0, up to ``high`` if given."""

    high: float | None = None

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is allowed."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return 0 < value < math.inf and (self.high is None or value <= self.high)

    def schema(self) -> dict[str, Any]:
        """Return the same as a JSON schema."""
        limit = {} if self.high is None else {"maximum": self.high}
        return {"type": "number", "exclusiveMinimum": 0} | limit

    def __str__(self) -> str:
        return "a number above 0" + ("" if self.high is None else f", at most {self.high:g}")


class Choice:
    """One of some values, given in order."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is allowed."""
        return value in self.values

    def schema(self) -> dict[str, Any]:
        """Return the same as a JSON schema."""
        return {"enum": list(self.values)}

    def __str__(self) -> str:
        return " or ".join(map(repr, self.values))


class Layers:
    """A list of different layer names, or None for all layers."""

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is allowed."""
        if value is None:
            return True
        names = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
        return names and len(value) == len(set(value)) > 0

    def schema(self) -> dict[str, Any]:
        """Return the same as a JSON schema."""
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
        return {"anyOf": [names, {"type": "null"}]}

    def __str__(self) -> str:
        return "a list of layer names, each once, or null for all layers"


class Parameter(NamedTuple):
    """A parameter of a detector's constructor.

    Attributes:
        default: the value where none is given.
        allowed: the values it may have.
    """

    default: Any
    allowed: Constraint


def check(values: Mapping[str, Any], constraints: Mapping[str, Constraint]) -> None:
    """Compare each value with the constraint of its name.

    Raises:
        ConfigError: naming the parameter, its value and what is allowed.
    """
    for name, value in values.items():
        if not constraints[name].allows(value):
            raise ConfigError(f"{name}: must be {constraints[name]}, got {value!r}")
