"""Reading configuration files: the project's own, with the user's merged over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indad.core.paths import project_root
from indad.pipeline.config import check_schema, read_yaml


def default_config() -> Path:
    """Return the configuration file that every run begins with."""
    return project_root() / "config" / "config.yaml"


def schema_file() -> Path:
    """Return the schema of configurations."""
    return project_root() / "workflow" / "schemas" / "config.schema.yaml"


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge as Snakemake does: dictionaries deeply, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = merged(result[key], value)
        result[key] = value
    return result


def load_config(path: Path | None) -> dict[str, Any]:
    """Read config/config.yaml with an override file merged in.

    Raises:
        IndadError: a file is missing, is not YAML, or has a key or value that is not allowed.
    """
    config: dict[str, Any] = {}
    for file in filter(None, [default_config(), path]):
        config = merged(config, read_yaml(file))
    check_config(config)
    return config


def check_config(config: dict[str, Any]) -> None:
    """Compare a configuration with the schema.

    Raises:
        ConfigError: one line for each problem, naming the key and what is allowed.
    """
    check_schema(config, read_yaml(schema_file()))
