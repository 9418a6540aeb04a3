"""From the command line to settings that are merged over the configuration."""

import argparse
from pathlib import Path
from typing import Any

from indad.core.errors import ConfigError
from indad.core.names import name_problem
from indad.data.categories import is_category
from indad.data.folder_layout import Reading
from indad.data.public import catalogue
from indad.data.public.suggest import find_categories
from indad.pipeline.config_files import expand_paths, literal_path, load_config, merged


def override(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Merge what a command line gives over the configuration.

    Returns:
        The settings that the command line gives, the configuration with them, paths expanded, and
        notes for the user.

    Raises:
        IndadError: the arguments do not fit the configuration or the data folder.
    """
    config = load_config(arguments.configfile)
    experiments = choose_experiments(config, arguments.method, arguments.extractor)
    run: dict[str, Any] = {"experiments": experiments}
    settings: dict[str, Any] = {"run": run}
    if chosen := choose_dataset(config, arguments):
        name, dataset = chosen
        run["datasets"] = [name]
        settings["datasets"] = {name: dataset}
    if arguments.seeds:
        run["seeds"] = arguments.seeds
    if arguments.results:
        settings["results"] = literal_path(arguments.results)
    if arguments.device:
        settings["device"] = arguments.device
    notes = [] if arguments.data_root is None else _absent_categories(config, arguments, settings)
    return settings, merged(config, expand_paths(settings)), notes


def choose_experiments(config: dict[str, Any], method: str, extractor: str | None) -> list[str]:
    """Return the experiments to run: those of the run section, or of the whole catalogue.

    Raises:
        ConfigError: no experiment has this method and extractor.
    """
    experiments = config.get("experiments") or {}
    listed = config.get("run", {}).get("experiments", [])
    for names in (listed, experiments):
        chosen = [
            name
            for name in names
            if method in ("all", experiments.get(name, {}).get("method"))
            and (extractor is None or set(extractors_of(config, name)) == {extractor})
        ]
        if chosen:
            return chosen
    used = {each for name in experiments for each in extractors_of(config, name)}
    known = ", ".join(sorted(used))
    raise ConfigError(
        f"no experiment of the configuration has method {method!r}"
        + (f" and extractor {extractor!r}; extractors in use: {known}" if extractor else "")
    )


def extractors_of(config: dict[str, Any], experiment: str) -> list[str]:
    """Return the extractors of an experiment, or of an ensemble's members, as far as known."""
    experiments = config.get("experiments") or {}
    settings = experiments.get(experiment, {})
    used = [settings, *(experiments.get(name, {}) for name in settings.get("members") or ())]
    return [each["extractor"] for each in used if "extractor" in each]


def choose_dataset(
    config: dict[str, Any], arguments: argparse.Namespace
) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the changed settings of the data set to run; None if none is given.

    Raises:
        IndadError: the arguments do not fit the configuration or the data folder.
    """
    known = config.get("datasets", {})
    if arguments.data_root is not None:
        return _folder(known, arguments.data_root, arguments.dataset, arguments.category)
    if arguments.dataset is None:
        if arguments.category:
            raise ConfigError("--category needs --dataset or --data-root")
        return None
    if arguments.dataset not in known:
        raise ConfigError(
            f"--dataset {arguments.dataset}: not in the configuration, which has "
            f"{', '.join(known)}. For a folder of your own add --data-root DIR"
        )
    return arguments.dataset, _only(arguments.category)


def _folder(
    known: dict[str, Any], folder: Path, dataset: str | None, categories: list[str] | None
) -> tuple[str, dict[str, Any]]:
    """Return the data set that a folder is run as."""
    folder = folder.resolve()
    reading = Reading.from_config(known.get(dataset) or {}, f"datasets.{dataset}")
    if is_category(folder, reading):  # a single one: its parent is the data set
        categories = categories or [folder.name]
        folder = folder.parent
    name = dataset or folder.name.lstrip(".") or "data"
    if problem := name_problem(name):
        raise ConfigError(f"name of the data set: {problem}: --dataset NAME")
    if name not in known:
        return name, {"path": literal_path(folder)} | _only(categories)
    if not dataset:
        name = f"{name}-folder"
    source = known.get(name, {}).get("source")
    if source and source not in catalogue.load():
        raise ConfigError(
            f"--dataset {name}: the configuration makes this data set; choose another name for "
            "--data-root"
        )
    if source and (present := catalogue.load()[source].in_own_layout(folder)):
        if absent := [each for each in categories or () if each not in present]:
            raise ConfigError(
                f"--category {absent[0]}: not in {folder}, which has {', '.join(present)}"
            )
        return name, {"mirrors": [literal_path(folder)], "categories": categories or present}
    # Merging cannot remove a list of categories, so name all that are there.
    categories = categories or find_categories(folder, reading)
    return name, {"path": literal_path(folder), "categories": categories}


def _absent_categories(
    config: dict[str, Any], arguments: argparse.Namespace, settings: dict[str, Any]
) -> list[str]:
    """Name the categories of a public data set that the given folder does not have."""
    ((name, chosen),) = settings["datasets"].items()
    entry = catalogue.load().get(config["datasets"].get(name, {}).get("source"))
    if entry is None or arguments.category:
        return []
    absent = [each for each in entry.categories if each not in chosen["categories"]]
    return [f"{name}: {arguments.data_root} does not have {', '.join(absent)}"] if absent else []


def _only(categories: list[str] | None) -> dict[str, Any]:
    return {"categories": categories} if categories else {}
