"""Reading configuration files: the project's own, with the user's merged over it."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from string import Template
from typing import Any

import yaml

from indad.core.errors import ConfigError
from indad.core.names import name_problem
from indad.core.paths import project_root

#: The options that are paths: keys, with * for any.
PATHS = (
    ("results",),
    ("downloads",),
    ("cache",),
    ("readme", "file"),
    *(("datasets", "*", key) for key in ("path", "train", "test", "masks", "list")),
    ("datasets", "*", "mirrors", "*"),
    ("datasets", "*", "mirrors", "*", "from"),
    ("extractors", "*", "weights"),
)

#: Most values of a configuration: a few lines of YAML whose aliases refer to each other can expand
#: to more values than memory holds.
MOST_VALUES = 100_000


def default_config() -> Path:
    """Return the configuration file that every run begins with."""
    return project_root() / "config" / "config.yaml"


@cache
def project_schema() -> dict[str, Any]:
    """Return this project's schema of configurations."""
    return read_yaml(project_root() / "workflow" / "schemas" / "config.schema.yaml")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge as Snakemake does: dictionaries deeply, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = merged(result[key], value)
        result[key] = value
    return result


def load_config(path: Path | None) -> dict[str, Any]:
    """Read config/config.yaml with an override file merged in, paths expanded.

    Raises:
        IndadError: a file is missing, is not YAML, or has a key or value that is not allowed.
    """
    config = read_yaml(default_config())
    if path is not None:
        config = merged(config, read_yaml(path))
    check_schema(config)
    return expand_paths(config)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file; an empty one is an empty configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
        check_extent(document)  # before merge keys expand the aliases
        loaded = None if document is None else loader.construct_document(document)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not a YAML configuration (nested too deeply)") from None
    # Values such as dates, numbers and keys of impossible types raise errors of their own.
    except (yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a YAML configuration ({error})") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path}: not a YAML configuration (it holds no keys, but {loaded!r:.40})"
        )
    return loaded


def check_extent(config: Any) -> None:
    """Refuse a configuration that is too large once its aliases are expanded.

    Args:
        config: the configuration, or the parsed YAML document.

    Raises:
        ConfigError: it holds more than ``MOST_VALUES`` values, or contains itself.
    """
    count, waiting = 0, [config]
    while waiting:
        count += 1
        if count > MOST_VALUES:
            raise ConfigError(f"more than {MOST_VALUES} values; do its aliases name each other?")
        value = waiting.pop()
        if isinstance(value, yaml.CollectionNode):
            value = value.value
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def expand_paths(value: Any, *key: str) -> Any:
    """Replace ``~``, ``$NAME`` and ``${NAME}`` in the options of a configuration that are paths.

    Args:
        value: the configuration, or a part of it.
        key: the keys that lead to the part.

    Returns:
        A copy. ``$$`` has become a dollar sign.

    Raises:
        ConfigError: a variable is not set, or a user is unknown.
    """
    if isinstance(value, Mapping):
        return {name: expand_paths(each, *key, name) for name, each in value.items()}
    if isinstance(value, list):
        return [expand_paths(each, *key, str(i)) for i, each in enumerate(value)]
    if not isinstance(value, str) or "://" in value or not any(map(partial(_fits, key), PATHS)):
        return value
    name = ".".join(map(str, key))
    try:
        path = Template(value).substitute({k: v for k, v in os.environ.items() if v})
    except KeyError as error:
        raise ConfigError(
            f"{name}: {value!r} uses the environment variable {error.args[0]}, which is not set or "
            "empty: set it, or write $$ for a dollar sign"
        ) from None
    except ValueError:
        raise ConfigError(
            f"{name}: {value!r} has a $ that begins no $NAME or ${{NAME}}: write $$ for a dollar "
            "sign"
        ) from None
    expanded = os.path.expanduser(path)  # noqa: PTH111 - "./~x" must not become the user x
    if path.startswith("~") and expanded == path:
        raise ConfigError(
            f"{name}: {value!r} begins with ~, but there is no such user: write ./~ for a folder "
            "whose name begins so"
        )
    return expanded


def _fits(key: Sequence[str], pattern: Sequence[str]) -> bool:
    same = (expected in ("*", part) for expected, part in zip(pattern, key, strict=False))
    return len(key) == len(pattern) and all(same)


def literal_path(path: Path) -> str:
    """Return what `expand_paths` turns into the given path."""
    text = str(path).replace("$", "$$")
    return f"./{text}" if text.startswith("~") else text


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any] | None = None) -> None:
    """Check types, values and keys, before defaults are filled in.

    Args:
        config: the configuration.
        schema: its schema; that of this project if None.

    Raises:
        ConfigError: one line for each problem, naming the key and what is allowed.
    """
    import jsonschema

    check_extent(config)
    problems = jsonschema.Draft202012Validator(schema or project_schema()).iter_errors(config)
    lines = [line for problem in problems for line in _schema_lines(problem)]
    if not lines:  # else it may be no mapping
        for section in ("datasets", "extractors", "experiments"):
            wrong = filter(None, map(name_problem, config.get(section) or {}))
            lines += [f"{section}: {problem}" for problem in wrong]
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))


def with_defaults(
    config: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None
) -> Any:
    """Return a configuration with the schema's defaults filled in.

    Args:
        config: the configuration, or a part of it.
        schema: that of the same part.
        root: the whole schema, which has the ``$defs``; ``schema`` if None.
    """
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if not isinstance(config, Mapping):
        return config
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    others = others if isinstance(others, Mapping) else {}
    defaults = {key: each["default"] for key, each in known.items() if "default" in each}
    return {
        key: with_defaults(value, known.get(key, others), root)
        for key, value in (defaults | dict(config)).items()
    }


def _schema_lines(problem: Any) -> list[str]:
    """Explain a schema violation: the key, and what is allowed."""
    key = ".".join(map(str, problem.absolute_path))
    rule, value, allowed = problem.validator, problem.instance, problem.validator_value
    if rule == "additionalProperties" and allowed is False:
        known = list(problem.schema["properties"])
        lines = []
        for name in sorted(set(value) - set(known), key=str):
            near = get_close_matches(str(name), known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            full = f"{key}.{name}" if key else name
            lines.append(f"{full}: unknown key{hint}; allowed are {', '.join(known)}")
        return lines
    if rule == "enum":
        return [f"{key}: {value!r} is not allowed; choose one of {', '.join(map(str, allowed))}"]
    if rule == "required":
        missing = [name for name in allowed if name not in value]
        return [f"{key + '.' if key else ''}{name}: missing" for name in missing]
    if rule == "anyOf" and all("required" in each for each in allowed):
        choices = " or ".join("/".join(each["required"]) for each in allowed)
        return [f"{key}: needs {choices}"]
    inner = [each for each in problem.context or () if each.path]
    if inner:  # an item of a list that is one of several alternatives
        return [line for each in inner for line in _schema_lines(each)]
    if rule in ("type", "anyOf"):
        kinds = allowed if rule == "anyOf" else [problem.schema]
        expected = " or ".join(filter(None, map(_describe, kinds)))
        return [f"{key}: must be {expected}, got {_got(value, kinds)}"]
    return [f"{key}: {problem.message}"]


def _got(value: Any, kinds: Sequence[Mapping[str, Any]]) -> str:
    """Show a value of a wrong type; explain one that YAML does not read as text."""
    texts = any(kind.get("type") == "string" for kind in kinds)
    if not texts or isinstance(value, Mapping | list | str):
        return repr(value)
    shown = value if isinstance(value, date) else json.dumps(value, default=repr)
    return (
        f"{shown}: YAML reads words such as 010, 1.5, no, on, null or 2024-01-31 as numbers, "
        "true or false, nothing or dates, so write this name in quotes"
    )


def _describe(schema: Mapping[str, Any]) -> str:
    names = {
        "array": "a list",
        "object": "a mapping",
        "string": "text",
        "integer": "a whole number",
    }
    kind = schema.get("type", "a list of two whole numbers" if "$ref" in schema else "")
    bound = f" of at least {schema['minimum']}" if "minimum" in schema else ""
    return names.get(kind, kind) + bound
