"""All settings that decide the result of a job, for each rule.

A rule's function returns what its script reads as ``snakemake.params.settings`` and what the job's
record keeps. A job whose recorded settings differ from these is run again
(`indad.pipeline.currency`). So everything that changes a product has to be here: the settings
themselves, and the versions of the algorithms. What only changes how a product is computed, such as
the number of threads, the batch size or the folder, has to be left out.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from indad import methods
from indad.core import provenance
from indad.data import decode as pixels
from indad.data import manifest
from indad.evaluation import (
    bootstrap,
    calibration,
    cases,
    resamples,
    saturated_overlap,
    scores,
)
from indad.evaluation.metrics import OPTIONAL_METRICS
from indad.features import store
from indad.features.settings import EXTRACT_VERSION
from indad.pipeline import presentation
from indad.pipeline.config import Config, Experiment
from indad.pipeline.currency import portable
from indad.reporting import published, report, runtime

Settings = dict[str, Any]
Wildcards = Mapping[str, str]

_fingerprint = cache(manifest.fingerprint)


def job_settings(config: Config, rule: str, wildcards: Wildcards) -> Settings:
    """Return the settings of a job.

    Args:
        config: the configuration.
        rule: the rule's name, without the prefix it may have in another workflow.
        wildcards: the job's wildcards.

    Raises:
        IndadError: the settings name something that does not exist.
    """
    return _RULES[rule](config, wildcards)


# -- a category of a data set --------------------------------------------------------------------


def _archive(config: Config, wildcards: Wildcards) -> Settings:
    # Mirrors are left out: the same archive from another address gives the same data.
    return {"source": config.datasets[wildcards["dataset"]].source}


def _download(config: Config, wildcards: Wildcards) -> Settings:
    return {"request": config.datasets[wildcards["dataset"]].request}


def _index(config: Config, wildcards: Wildcards) -> Settings:
    dataset = config.datasets[wildcards["dataset"]]
    content = ""
    if dataset.used_in_place:
        # The user may change these files: their names, sizes and times are compared.
        content = _fingerprint(dataset.category_folder(wildcards["category"]), dataset.reading)
    return {
        "reading": dataset.reading.settings,
        "fingerprint": content,
        "version": manifest.VERSION,
    }


def _decode(config: Config, wildcards: Wildcards) -> Settings:
    geometry = config.geometries(wildcards["dataset"])[wildcards["geometry"]]
    return {"resize": geometry.resize, "crop": geometry.crop, "version": pixels.VERSION}


def _extractor(config: Config, name: str, wildcards: Wildcards) -> Settings:
    return dict(config.extractor(name, wildcards["dataset"]).settings)


def _extract(config: Config, wildcards: Wildcards) -> Settings:
    return {
        "extractor": _extractor(config, wildcards["extractor"], wildcards),
        "tf32": config.written["tf32"],
        "version": [EXTRACT_VERSION, store.SCHEMA_VERSION],
    }


def _fit(config: Config, wildcards: Wildcards) -> Settings:
    model = config.models[wildcards["model"]]
    if model.members:
        return _ensemble(config, model) | {
            "members": [_member(config, each, wildcards) for each in model.members]
        }
    return {
        "method": model.method,
        "parameters": dict(model.parameters),
        "extractor": _extractor(config, model.extractor, wildcards),
        "tf32": config.written["tf32"],
        "version": [methods.method_class(model.method).version, methods.SCHEMA_VERSION],
    }


def _coreset(config: Config, wildcards: Wildcards) -> Settings:
    fitted = _fit(config, wildcards)
    method = methods.method_class(fitted["method"])
    return fitted | {"parameters": method.fit_parameters(fitted["parameters"])}


def _ensemble(config: Config, experiment: Experiment) -> Settings:
    return {
        "method": experiment.method,
        "parameters": dict(experiment.parameters),
        "tf32": config.written["tf32"],
        "version": [methods.Ensemble.version, methods.SCHEMA_VERSION],
    }


def _member(config: Config, experiment: Experiment, wildcards: Wildcards) -> Settings:
    return {
        "method": experiment.method,
        "parameters": dict(experiment.parameters),
        "extractor": _extractor(config, experiment.extractor, wildcards),
        "version": methods.method_class(experiment.method).version,
    }


def _score(config: Config, wildcards: Wildcards) -> Settings:
    experiment = config.scored[wildcards["experiment"]]
    if experiment.members:
        fitted = _ensemble(config, experiment)
        versions = [*fitted["version"], scores.SCHEMA_VERSION, calibration.SCHEMA_VERSION]
        return fitted | {"model": experiment.model, "version": versions}
    return {
        # Another fit is another input file, which may be older than the scores.
        "model": experiment.model,
        "parameters": {
            name: experiment.parameters[name]
            for name in methods.method_class(experiment.method).score_parameters
        },
        "extractor": _extractor(config, experiment.extractor, wildcards),
        "tf32": config.written["tf32"],
        "version": [scores.SCHEMA_VERSION, calibration.SCHEMA_VERSION],
    }


def _evaluate(config: Config, wildcards: Wildcards) -> Settings:
    used = config.scored[wildcards["experiment"]].extractor
    geometry = config.extractor(used, wildcards["dataset"]).geometry
    return {
        **config.written["uncertainty"],
        "evaluate_at": config.written["evaluate_at"],
        **_optional_metrics(config, wildcards),
        "resize": geometry.resize,
        "crop": geometry.crop,
        "version": [bootstrap.VERSION, resamples.SCHEMA_VERSION],
    }


def _optional_metrics(config: Config, wildcards: Wildcards) -> Settings:
    dataset = config.datasets[wildcards["dataset"]]
    asked = [name for name in OPTIONAL_METRICS if name in dataset.metrics]
    if not asked:
        return {}
    if "spro_05" not in asked or not dataset.used_in_place:
        return {"metrics": asked}
    # The file is no input of the rule, but the user may change it.
    folder = dataset.category_folder(wildcards["category"])
    found = saturated_overlap.read(folder / saturated_overlap.FILE)
    return {"metrics": asked, "saturations": [[key, *found[key]] for key in sorted(found)]}


def _figures(config: Config, wildcards: Wildcards) -> Settings:
    dataset = wildcards["dataset"]
    used = [config.extractor(each.extractor, dataset) for each in config.shown.values()]
    geometries = [each.geometry for each in used]
    return {
        **_shown(config, wildcards),
        "evaluate_at": config.written["evaluate_at"],
        "geometries": [{"resize": each.resize, "crop": each.crop} for each in geometries],
    }


def _shown(config: Config, wildcards: Wildcards) -> Settings:
    """The settings of the pictures and figures of a category, which show the first seed."""
    several = any(len(each.seeds) > 1 for each in config.shown.values())
    return {
        "models": {name: [each.model, each.seeds[0]] for name, each in config.shown.items()},
        "remark": "first seed" if several else "",
        "version": cases.VERSION,
    }


def category_jobs(config: Config) -> list[str]:
    """Return the names of all jobs on categories, as `currency.job_name`."""
    jobs = []
    for name, dataset in config.datasets.items():
        for at in (f"{name}/{category}" for category in dataset.categories):
            jobs += [] if dataset.used_in_place else [f"download/{at}"]
            jobs += [f"index/{at}"]
            jobs += [f"decode/{at}/{geometry}" for geometry in config.geometries(name)]
            jobs += [f"extract/{at}/{extractor}" for extractor in config.used_extractors]
            jobs += [
                f"coreset/{at}/{name}/seed{seed}/{part}"
                for name, each in config.models.items()
                for seed in each.seeds
                for part in config.coreset_jobs(each)
            ]
            for rule, runs in (
                ("fit", config.models),
                ("score", config.scored),
                ("evaluate", config.experiments),
            ):
                jobs += [
                    f"{rule}/{at}/{name}/seed{seed}"
                    for name, each in runs.items()
                    for seed in each.seeds
                ]
            jobs += [f"pictures/{at}", f"figures/{at}"]
    return jobs


# -- all categories ------------------------------------------------------------------------------


def _extent(config: Config, wildcards: Wildcards) -> Settings:
    """What is run: a product of all of it changes with the set of its inputs."""
    return {
        "categories": {name: each.categories for name, each in config.datasets.items()},
        "models": {
            name: [each.model, each.extractor, *presentation.member_jobs(each)]
            for name, each in config.shown.items()
        },
        "seeds": {name: list(each.seeds) for name, each in config.experiments.items()},
    }


def _aggregate(config: Config, wildcards: Wildcards) -> Settings:
    return _extent(config, wildcards) | {
        "models": {name: [each.model, each.extractor] for name, each in config.experiments.items()},
        "layout": presentation.layout(config),
        "published": published.fingerprint(),
        "data": {
            name: portable(each.category_folder(""), config.results)
            for name, each in config.datasets.items()
        },
        "version": provenance.VERSION,
    }


def _count(config: Config, wildcards: Wildcards) -> Settings:
    # Masks and regions are counted after the first experiment's crop.
    name, first = next(iter(config.shown.items()))
    return {
        "categories": _extent(config, wildcards)["categories"],
        "experiment": name,
        "seed": first.seeds[0],
    }


def _compare(config: Config, wildcards: Wildcards) -> Settings:
    return _extent(config, wildcards) | {
        "experiments": list(config.shown),
        "level": config.written["uncertainty"]["level"],
    }


def _runtime(config: Config, wildcards: Wildcards) -> Settings:
    layout = presentation.layout(config)
    return _extent(config, wildcards) | {
        "layout": {key: layout[key] for key in ("experiments", "compared", "published")},
        "published": published.fingerprint(),
        "version": runtime.VERSION,
    }


def _learning_curves(config: Config, wildcards: Wildcards) -> Settings:
    return _extent(config, wildcards) | {
        "sweeps": config.sweeps,
        "methods": {each.configured: each.method for each in config.experiments.values()},
        "compared": presentation.layout(config)["compared"],
        "published": published.fingerprint(),
    }


def _html_report(config: Config, wildcards: Wildcards) -> Settings:
    return _extent(config, wildcards) | {
        "experiments": presentation.experiment_summaries(config),
        "notes": presentation.experiment_notes(config),
        "config": presentation.deciding_part(config),
        "level": config.written["uncertainty"]["level"],
        "version": report.VERSION,
    }


def _readme_tables(config: Config, wildcards: Wildcards) -> Settings:
    return _extent(config, wildcards) | {
        "metrics": config.written["readme"]["metrics"],
        "full": config.written["readme"]["full"],
        "methods": {each.configured: each.method for each in config.experiments.values()},
        "layout": presentation.layout(config),
        "published": published.fingerprint(),
    }


#: In the order in which the rules run: a rule's inputs are made by rules before it.
_RULES: dict[str, Callable[[Config, Wildcards], Settings]] = {
    "archive": _archive,
    "download": _download,
    "weights": lambda config, wildcards: {},
    "index": _index,
    "decode": _decode,
    "extract": _extract,
    "coreset": _coreset,
    "fit": _fit,
    "score": _score,
    "evaluate": _evaluate,
    "pictures": _shown,
    "figures": _figures,
    "count": _count,
    "aggregate": _aggregate,
    "compare": _compare,
    "runtime": _runtime,
    "tradeoff": _extent,
    "learning_curves": _learning_curves,
    "html_report": _html_report,
    "readme_tables": _readme_tables,
}
ORDER = tuple(_RULES)
