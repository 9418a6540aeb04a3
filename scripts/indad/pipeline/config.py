"""What to run: the catalogue and the ``run`` section of a configuration, resolved.

Types, defaults and unknown keys are the schema's business (``workflow/schemas``). Here are the
references between sections and the methods' own parameters. Nothing here imports torch, so that
planning a workflow stays quick.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from indad import methods
from indad.core.errors import ConfigError, DataError
from indad.data.folder_layout import GOOD, Reading
from indad.data.images import Geometry
from indad.data.public import catalogue, sources
from indad.data.public.suggest import find_categories
from indad.features.weights import RANDOM
from indad.reporting import published

#: Most values of a configuration. A few lines of YAML whose aliases name each other ten times over
#: stand for more than any memory holds.
MOST_VALUES = 100_000


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file; an empty one is an empty configuration.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds no mapping.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
        check_extent(document)  # before merge keys write the aliases out
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
    """Refuse a configuration that is too much to go through, written out without aliases.

    Args:
        config: the configuration, or the YAML document it is to be made from.

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


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check types, values and keys, before defaults are filled in.

    Raises:
        ConfigError: one line for each problem, naming the key and what is allowed.
    """
    import jsonschema

    check_extent(config)
    problems = jsonschema.Draft202012Validator(schema).iter_errors(config)
    lines = [line for problem in problems for line in _schema_lines(problem)]
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))


def _schema_lines(problem: Any) -> list[str]:
    """Say what a schema violation means to whoever wrote the configuration."""
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
    if rule == "anyOf":
        wanted = " or ".join(filter(None, (_wanted(each) for each in allowed)))
        return [f"{key}: must be {wanted}, got {value!r}"]
    if rule == "type":
        return [f"{key}: must be {_wanted(problem.schema)}, got {value!r}"]
    return [f"{key}: {problem.message}"]


def _wanted(schema: Mapping[str, Any]) -> str:
    names = {
        "array": "a list",
        "object": "a mapping",
        "string": "text",
        "integer": "a whole number",
    }
    kind = schema.get("type", "a list of two whole numbers" if "$ref" in schema else "")
    bound = f" of at least {schema['minimum']}" if "minimum" in schema else ""
    return names.get(kind, kind) + bound


@dataclass(frozen=True)
class Experiment:
    """A method with its parameters on an extractor.

    Attributes:
        name: as in the configuration and the tables.
        method: ``spade``, ``padim`` or ``patchcore``.
        extractor: name of the extractor.
        parameters: all parameters of the method but the seed, defaults filled in.
        model: name of the fitted model, shared by all experiments that differ only in scoring.
        published: the published result that tables show beside it, if any.
    """

    name: str
    method: str
    extractor: str
    parameters: dict[str, Any]
    model: str
    published: str | None = None

    @property
    def needs_gallery(self) -> bool:
        """Whether scoring reads the training features."""
        return methods.method_class(self.method).needs_gallery


class Config:
    """A schema-checked configuration whose references are settled.

    Args:
        config: the configuration, defaults filled in by the schema.

    Raises:
        ConfigError: naming the key and the values that are allowed.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.results = Path(config["results"])
        self.device: str = config["device"]
        self.threads: int = config["threads"]
        self._downloads = Path(config.get("downloads") or self.results / "downloads")
        self.run = config["run"]
        self.seeds: list[int] = list(dict.fromkeys(self.run["seeds"]))
        self._datasets = config.get("datasets") or {}
        self._paths: dict[str, Path | None] = {}
        self._extractors = config.get("extractors") or {}
        self._experiments = config.get("experiments") or {}
        for kind, known in (("datasets", self._datasets), ("experiments", self._experiments)):
            for name in self.run[kind]:
                _known(f"run.{kind}", name, known, kind)
        for name in self.run["datasets"]:
            self.published(name)
            self.reading(name)
        self.experiments = {name: self._experiment(name) for name in self.run["experiments"]}

    # -- data sets ----------------------------------------------------------------------------

    @cached_property
    def datasets(self) -> dict[str, list[str]]:
        """The categories of each data set to run.

        Raises:
            DataError: a data folder is missing or has no category.
        """
        return {name: self.categories(name) for name in dict.fromkeys(self.run["datasets"])}

    def categories(self, name: str) -> list[str]:
        """Return the categories of one data set, as ``datasets``."""
        dataset = self._datasets[name]
        if "path" in dataset:
            root = Path(dataset["path"])
            found = find_categories(root, self.reading(name))
            for category in dataset.get("categories") or []:
                _known(f"datasets.{name}.categories", category, found, f"categories of {root}")
            chosen = list(dataset.get("categories") or found)
            for category in chosen:
                if set(category) & set("{}"):  # which Snakemake takes for a wildcard
                    raise DataError(f"{root / category}: rename it, without {{ and }}")
            return chosen
        source = sources.get(dataset["source"], f"datasets.{name}.source")
        wanted = dataset.get("categories") or list(source.categories)
        for category in wanted:
            _known(f"datasets.{name}.categories", category, source.categories, "categories")
        return list(wanted)

    def reading(self, dataset: str) -> Reading:
        """Return how the category folders of a data set are read.

        Raises:
            ConfigError: an option has a value that cannot be used, or is not for this data set.
        """
        settings, key = self._datasets[dataset], f"datasets.{dataset}"
        odd = {"train", "test", "good", "masks", "mask_suffix", "list", "unlisted"} & set(settings)
        if odd and "path" not in settings:
            raise ConfigError(
                f"{key}.{min(odd)}: only for a data set with a 'path'; a source is laid out as "
                "MVTec AD is"
            )
        return Reading.from_config(settings, key)

    def path(self, dataset: str) -> Path | None:
        """Return the folder that a data set is used from as it lies; None if it is made.

        That is its ``path``, or its first mirror if that is a folder here, in MVTec AD layout,
        with all categories asked for.
        """
        if dataset not in self._paths:
            self._paths[dataset] = self._path(dataset)
        return self._paths[dataset]

    def _path(self, dataset: str) -> Path | None:
        settings = self._datasets[dataset]
        if "path" in settings:
            return Path(settings["path"])
        entry, places = self.entry(dataset), self.mirrors(dataset)
        if entry is None or not entry.layout.native or not places or places[0].path is None:
            return None
        folders = [places[0].path / each / "train" / GOOD for each in self.categories(dataset)]
        return places[0].path if all(folder.is_dir() for folder in folders) else None

    def source(self, dataset: str) -> dict[str, Any] | None:
        """Return ``{"source", "options"}`` of a data set that is made, None if it is a path."""
        if self.path(dataset) is not None:
            return None
        settings = self._datasets[dataset]
        options = sources.check_options(
            settings["source"], settings.get("options") or {}, f"datasets.{dataset}.options"
        )
        return {"source": settings["source"], "options": options}

    def entry(self, dataset: str) -> catalogue.Entry | None:
        """Return the public data set this one is taken from, if it is one."""
        source = self._datasets[dataset].get("source")
        return None if source is None else sources.get(source).entry

    def mirrors(self, dataset: str) -> list[catalogue.Place]:
        """Return the user's own places of a public data set.

        Raises:
            ConfigError: the data set is no public one.
        """
        places = self._datasets[dataset].get("mirrors") or []
        if places and self.entry(dataset) is None:
            raise ConfigError(
                f"datasets.{dataset}.mirrors: only for a source that is downloaded: "
                + ", ".join(catalogue.load())
            )
        return [catalogue.Place.of(each, mine=True) for each in places]

    def downloads(self, dataset: str) -> Path:
        """Return where the archives of a public data set are kept."""
        return self._downloads / self._datasets[dataset]["source"]

    def published(self, dataset: str) -> str | None:
        """Return the data set of the published results that this one is, if any.

        Raises:
            ConfigError: ``published`` names one that nothing is known of.
        """
        settings = self._datasets[dataset]
        if settings.get("published") is not None:
            key = f"datasets.{dataset}.published"
            _known(key, settings["published"], published.datasets(), "data sets")
            return settings["published"]
        source = settings.get("source")
        return source if source in published.datasets() else None

    def groups(self, dataset: str) -> dict[str, list[str]]:
        """Return the groups of categories that tables give averages of."""
        own = self._datasets[dataset].get("groups")
        if own is not None:
            return {name: list(categories) for name, categories in own.items()}
        entry = catalogue.load().get(self.published(dataset) or "") or self.entry(dataset)
        return {} if entry is None else {name: list(each) for name, each in entry.groups.items()}

    def folder(self, dataset: str, category: str) -> Path:
        """Return the category's folder in MVTec AD layout."""
        return (self.path(dataset) or self.results / "data" / dataset) / category

    # -- extractors ---------------------------------------------------------------------------

    def extractor(self, name: str) -> dict[str, Any]:
        """Return an extractor's settings, defaults filled in."""
        extractor = dict(self._extractors[name])
        extractor.setdefault("weights", None)
        extractor["embedding"] = extractor.get("embedding") or extractor["layers"][-1]
        crop, resize = extractor["crop"], extractor["resize"]
        if isinstance(crop, int) and isinstance(resize, int) and crop > resize:
            raise ConfigError(
                f"extractors.{name}.crop: {crop} is larger than resize, {resize}; it must be at "
                "most that, or null for no crop"
            )
        return extractor

    def geometry(self, extractor: str) -> str:
        """Return the name of an extractor's resize and crop, as in ``geometries``."""
        settings = self.extractor(extractor)
        return Geometry.from_config(settings["resize"], settings["crop"]).name

    @cached_property
    def geometries(self) -> dict[str, dict[str, Any]]:
        """The resize and crop of all extractors, by name."""
        return {
            self.geometry(name): {key: self.extractor(name)[key] for key in ("resize", "crop")}
            for name in self._extractors
        }

    # -- experiments --------------------------------------------------------------------------

    def _experiment(self, name: str) -> Experiment:
        entry = dict(self._experiments[name])
        method, extractor = entry.pop("method"), entry.pop("extractor")
        result = entry.pop("published", None)
        key = f"experiments.{name}"
        if result is not None:
            _known(f"{key}.published", result, published.results(), "published results")
        _known(f"{key}.extractor", extractor, self._extractors, "extractors")
        settings = self.extractor(extractor)
        try:
            parameters = methods.create(method, entry).parameters
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None
        for layer in parameters["layers"] or []:
            _known(f"{key}.layers", layer, settings["layers"], f"layers of {extractor}")
        del parameters["seed"]
        shared = methods.method_class(method).score_parameters
        fitted = {k: v for k, v in parameters.items() if k not in shared}
        text = json.dumps([method, extractor, fitted], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        model = f"{method}-{extractor}-{digest}"
        return Experiment(name, method, extractor, parameters, model, result)

    @cached_property
    def models(self) -> dict[str, dict[str, Any]]:
        """What to fit: model name to ``{"method", "extractor", "parameters"}``."""
        sharing: dict[str, list[Experiment]] = {}
        for experiment in self.experiments.values():
            sharing.setdefault(experiment.model, []).append(experiment)
        return {
            model: {
                "method": users[0].method,
                "extractor": users[0].extractor,
                "parameters": _fit_parameters(users),
            }
            for model, users in sharing.items()
        }

    def scored_share(self, experiment: str) -> float:
        """Return which share of its fitted model an experiment scores with."""
        each = self.experiments[experiment]
        fitted = self.models[each.model]["parameters"]
        return methods.method_class(each.method).scored_share(each.parameters, fitted)

    @cached_property
    def layout(self) -> dict[str, Any]:
        """What the tables show beside the values: the arguments of ``tables.Layout``.

        A published result stands beside an experiment on its data set and with its backbone only.
        """
        names = list(dict.fromkeys(self.run["datasets"]))
        compared = {name: of for name in names if (of := self.published(name)) is not None}
        named = {name: each.published for name, each in self.experiments.items() if each.published}
        other = {name: note for name, of in named.items() if (note := self._differs(name, of))}
        return {
            "experiments": list(self.experiments),
            "groups": {name: self.groups(name) for name in names},
            "compared": compared,
            "published": {name: of for name, of in named.items() if name not in other},
            "notes": _joined(self.notes, other if compared else {}),
        }

    def _differs(self, experiment: str, result: str) -> str:
        """Say why an experiment is no reproduction of a published result; "" if it may be one."""
        settings = self.extractor(self.experiments[experiment].extractor)
        theirs, ours = published.backbone(result), settings["backbone"].partition(".")[0]
        if ours != theirs:
            return f"not beside the published {result}, which is with {theirs}, not {ours}"
        if settings["weights"] == RANDOM:
            return f"not beside the published {result}, whose weights were pretrained"
        return ""

    @cached_property
    def described(self) -> dict[str, dict[str, Any]]:
        """What a reader is told of each experiment, and where its jobs are found."""
        return {
            name: {
                "method": each.method,
                "backbone": self.extractor(each.extractor)["backbone"],
                "parameters": each.parameters,
                "extractor": each.extractor,
                "model": each.model,
            }
            for name, each in self.experiments.items()
        }

    @cached_property
    def used(self) -> dict[str, Any]:
        """What of the configuration decides the results: enough to get them again."""
        extractors = dict.fromkeys(each.extractor for each in self.experiments.values())
        return {
            "run": dict(self.run),
            "datasets": {name: self._datasets[name] for name in self.run["datasets"]},
            "extractors": {name: self._extractors[name] for name in extractors},
            "experiments": {name: self._experiments[name] for name in self.experiments},
        }

    @cached_property
    def notes(self) -> dict[str, str]:
        """What a reader of the tables must not miss about an experiment."""
        return {
            name: "random backbone weights, not pretrained"
            for name, experiment in self.experiments.items()
            if self.extractor(experiment.extractor)["weights"] == RANDOM
        }


def _joined(*notes: Mapping[str, str]) -> dict[str, str]:
    """Merge notes on the same experiment."""
    names = dict.fromkeys(name for each in notes for name in each)
    return {name: "; ".join(each[name] for each in notes if name in each) for name in names}


def _fit_parameters(users: list[Experiment]) -> dict[str, Any]:
    """Merge the parameters of experiments that share a model; scoring ones take defaults."""
    cls = methods.method_class(users[0].method)
    signature = inspect.signature(cls).parameters
    defaults = {name: signature[name].default for name in cls.score_parameters}
    return users[0].parameters | defaults | cls.shared_fit([user.parameters for user in users])


def _known(key: str, value: str, allowed: Any, what: str) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{key}: {value!r} is unknown; {what} known here: {', '.join(allowed) or 'none'}"
        )
