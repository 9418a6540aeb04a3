"""What to run: a configuration parsed into data sets, extractors, experiments and models.

The schema (``workflow/schemas``) checks types and unknown keys and has the defaults. References
between sections are checked here, and the methods' own parameters by their constructors. Nothing
here imports torch, so that planning a workflow stays quick.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from indad import methods
from indad.core.errors import ConfigError
from indad.core.names import path_problem, same_file_problem
from indad.data.images import Geometry
from indad.pipeline.config_files import check_schema, project_schema, with_defaults
from indad.pipeline.dataset import Dataset, require_known
from indad.pipeline.extractor import Extractor
from indad.reporting import published

#: A part of the names of experiments whose scores of an image depend on the other test images.
TRANSDUCTIVE = "transductive"
#: More dimensions than the patch embeddings of the usual backbones have.
DIMENSIONS = 2048


@dataclass(frozen=True)
class Experiment:
    """A method with its parameters on an extractor.

    Attributes:
        name: as in the configuration and the tables.
        method: ``spade``, ``padim``, ``patchcore`` or ``ensemble``.
        extractor: name of the extractor; of an ensemble that of its first member, whose frame the
            maps have.
        parameters: all parameters of the method but the seed, defaults filled in.
        model: name of the fitted model, shared by all experiments that differ only in scoring.
        published: the published result that the tables compare it with, if any.
        configured: its name in the configuration: one with several ``shots`` is run as several.
        members: the experiments that an ensemble averages.
        seeds: the seeds to run.
    """

    name: str
    method: str
    extractor: str
    parameters: Mapping[str, Any]
    model: str
    published: str | None = None
    configured: str = ""
    members: tuple[Experiment, ...] = ()
    seeds: tuple[int, ...] = (0,)

    @property
    def needs_one_size(self) -> bool:
        """Whether all images must have one size after resize and crop."""
        return not self.members and methods.method_class(self.method).needs_one_size

    @property
    def fit_computes(self) -> bool:
        """Whether fitting takes more than reading features."""
        return bool(self.members) or methods.method_class(self.method).fit_computes

    @property
    def merges(self) -> bool:
        """Whether the coreset is merged from those of parts."""
        return self.parameters.get("coreset") == "merge"

    @property
    def part_mb(self) -> float:
        """Megabytes for the projected patches of a part, the picks of all parts, and copies."""
        numbers = self.parameters["part_patches"] * (self.parameters["projection"] + 1)
        return 3 * 4 * numbers / 1e6

    @property
    def merge_mb(self) -> float:
        """Most megabytes that a fit holds which merges coresets; infinite if it does not."""
        if not self.merges:
            return math.inf
        # The bank has at most `part_patches` vectors, and is held twice when it is written.
        return self.part_mb + 2 * 4 * DIMENSIONS * self.parameters["part_patches"] / 1e6

    @classmethod
    def from_config(
        cls,
        name: str,
        settings: Mapping[str, Any],
        extractors: Mapping[str, Extractor],
        catalogue: Mapping[str, Mapping[str, Any]],
        configured: str = "",
    ) -> Experiment:
        """Check the settings of an experiment; its method's constructor fills in the defaults.

        Args:
            name: its name.
            settings: those of the configuration, with a single number of shots.
            extractors: all extractors.
            catalogue: the settings of all experiments, of which an ensemble names some.
            configured: its name in the configuration, if it is another one.

        Raises:
            ConfigError: a parameter or value is not allowed, or a name is unknown.
        """
        given = dict(settings)
        method, result = given.pop("method"), given.pop("published", None)
        seeds = tuple(dict.fromkeys(given.pop("seeds", cls.seeds)))
        configured = configured or name
        key = f"experiments.{configured}"
        if result is not None:
            require_known(f"{key}.published", result, published.results(), "published results")
        if method == methods.Ensemble.method:
            return replace(cls._ensemble(name, given, extractors, catalogue, result), seeds=seeds)
        extractor = given.pop("extractor")
        require_known(f"{key}.extractor", extractor, extractors, "extractors")
        try:
            parameters = dict(methods.create(method, given).parameters)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None
        stored = extractors[extractor].settings["layers"]
        for layer in parameters["layers"] or []:
            require_known(f"{key}.layers", layer, stored, f"layers of {extractor}")
        del parameters["seed"]
        fitted = methods.method_class(method).fit_parameters(parameters)
        text = json.dumps([method, extractor, fitted], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        model = f"{method}-{extractor}-{digest}"
        return cls(name, method, extractor, parameters, model, result, configured, seeds=seeds)

    @classmethod
    def _ensemble(
        cls,
        name: str,
        given: Mapping[str, Any],
        extractors: Mapping[str, Extractor],
        catalogue: Mapping[str, Mapping[str, Any]],
        result: str | None,
    ) -> Experiment:
        """Check the settings of an ensemble and those of its members."""
        key = f"experiments.{name}"
        try:
            parameters = dict(methods.create_ensemble(given).parameters)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None
        del parameters["seed"]
        if parameters["scaling"] == "test" and TRANSDUCTIVE not in name:
            raise ConfigError(
                f"{key}.scaling: test uses the test images, which every table and figure has to "
                f"say: choose a name of the experiment that contains {TRANSDUCTIVE!r}, or "
                "'scaling: training'"
            )
        members = []
        for member in parameters["members"]:
            require_known(f"{key}.members", member, catalogue, "experiments")
            settings = catalogue[member]
            if settings["method"] == methods.Ensemble.method:
                raise ConfigError(
                    f"{key}.members: {member} is an ensemble; name the experiments that it averages"
                )
            runs = one_for_each_number_of_shots(member, settings)
            if list(runs) != [member]:
                raise ConfigError(
                    f"{key}.members: {member} has several numbers of 'shots'; name an experiment "
                    "that has one"
                )
            members.append(cls.from_config(member, runs[member], extractors, catalogue))
        shots = {each.name: each.parameters["shots"] or "all" for each in members}
        if len(set(shots.values())) > 1:
            text = ", ".join(f"{member} {count}" for member, count in shots.items())
            raise ConfigError(
                f"{key}.members: are fitted to different numbers of images ({text}); give all of "
                "them the same 'shots'"
            )
        used = [[each.model, each.parameters] for each in members]
        text = json.dumps([parameters, used], sort_keys=True)
        model = f"ensemble-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        first = members[0].extractor
        return cls(name, "ensemble", first, parameters, model, result, name, tuple(members))

    @property
    def extractors(self) -> list[str]:
        """The names of its extractors: one, or those of an ensemble's members, each once."""
        return list(dict.fromkeys(each.extractor for each in self.members or [self]))


def one_for_each_number_of_shots(
    name: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return an experiment with several ``shots`` as one experiment for each number.

    >>> list(one_for_each_number_of_shots("PaDiM", {"shots": [1, 5, "all"]}))
    ['PaDiM-1shot', 'PaDiM-5shot', 'PaDiM']

    Raises:
        ConfigError: the list is empty, or has a number twice.
    """
    shots = settings.get("shots")
    several = shots if isinstance(shots, list) else [shots]
    if not several or len({str(each) for each in several}) < len(several):
        raise ConfigError(
            f"experiments.{name}.shots: must be a number of images, 'all', or a list of these, "
            f"each once, got {shots!r}"
        )
    rest = {key: value for key, value in settings.items() if key != "shots"}
    result: dict[str, dict[str, Any]] = {}
    for each in several:
        if each in (None, "all"):
            result[name] = rest
        else:
            single = name if len(several) == 1 else f"{name}-{each}shot"
            # A published result is one with all images.
            result[single] = rest | {"shots": each, "published": None}
    return result


def _shared_fit(experiments: Sequence[Experiment]) -> Experiment:
    """Return the fit of experiments that share a model: scoring parameters have their defaults."""
    first = experiments[0]
    if first.members:
        return replace(first, name=first.model, published=None)
    method = methods.method_class(first.method)
    signature = inspect.signature(method).parameters
    defaults = {name: signature[name].default for name in method.score_parameters}
    shared = method.shared_fit([each.parameters for each in experiments])
    return replace(
        first,
        name=first.model,
        published=None,
        parameters={**first.parameters, **defaults, **shared},
        seeds=tuple(dict.fromkeys(seed for each in experiments for seed in each.seeds)),
    )


def _with_members(experiments: Mapping[str, Experiment], results: Path) -> dict[str, Experiment]:
    """Return the experiments and the members of ensembles, by name."""
    scored = dict(experiments)
    for experiment in experiments.values():
        for member in experiment.members:
            known = scored.get(member.name, replace(member, seeds=()))
            seeds = tuple(dict.fromkeys((*known.seeds, *experiment.seeds)))
            scored[member.name] = replace(known, seeds=seeds)
            if known.parameters != member.parameters:
                raise ConfigError(
                    f"experiments.{experiment.name}.members: another experiment with several "
                    f"'shots' is run under the name {member.name}; rename one of them"
                )
    if problem := same_file_problem(scored, results):
        raise ConfigError(f"run.experiments: {problem}")
    return scored


@dataclass(frozen=True)
class Config:
    """A schema-checked configuration, parsed and with all references resolved.

    Attributes:
        results: folder of all products.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: cores that one job of heavy computation may use.
        datasets, experiments: those to run, by name; one experiment for each number of shots.
        scored: the experiments to run and the members of ensembles, by name.
        extractors: all of the configuration, by name.
        models: what to fit, by name of the model: an experiment with the parameters of the fit.
        written: the configuration as it was given, defaults filled in by the schema.
    """

    results: Path
    device: str
    threads: int
    datasets: Mapping[str, Dataset]
    extractors: Mapping[str, Extractor]
    experiments: Mapping[str, Experiment]
    scored: Mapping[str, Experiment]
    models: Mapping[str, Experiment]
    written: Mapping[str, Any]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """Check a configuration whose paths are expanded, fill in the defaults, and parse it.

        Raises:
            ConfigError: naming the key and the values that are allowed.
        """
        check_schema(config)
        return cls.parse(with_defaults(config, project_schema()))

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Config:
        """Parse a configuration whose defaults were filled in by the schema.

        Raises:
            ConfigError: naming the key and the values that are allowed.
        """
        results, run = Path(config["results"]), config["run"]
        if problem := path_problem(str(results)):
            raise ConfigError(f"results: {problem}")
        downloads = Path(config.get("downloads") or results / "downloads")
        for kind in ("datasets", "experiments"):
            for name in run[kind]:
                require_known(f"run.{kind}", name, config.get(kind) or {}, kind)
        if problem := same_file_problem(run["datasets"], results):
            raise ConfigError(f"run.datasets: {problem}")
        extractors = {
            name: Extractor.from_config(name, settings)
            for name, settings in (config.get("extractors") or {}).items()
        }
        experiments = {}
        for configured in run["experiments"]:
            settings = {"seeds": run["seeds"], **config["experiments"][configured]}
            each = one_for_each_number_of_shots(configured, settings)
            for name, settings in each.items():
                if name in experiments:
                    raise ConfigError(
                        f"experiments.{configured}.shots: another experiment is called {name}"
                    )
                experiments[name] = Experiment.from_config(
                    name, settings, extractors, config["experiments"], configured
                )
        scored = _with_members(experiments, results)
        sharing: dict[str, list[Experiment]] = {}
        for experiment in scored.values():
            sharing.setdefault(experiment.model, []).append(experiment)
        return cls(
            results=results,
            device=config["device"],
            threads=config["threads"],
            datasets={
                name: Dataset.from_config(name, config["datasets"][name], results, downloads)
                for name in run["datasets"]
            },
            extractors=extractors,
            experiments=experiments,
            scored=scored,
            models={name: _shared_fit(users) for name, users in sharing.items()},
            written=config,
        )

    @cached_property
    def categories(self) -> list[tuple[str, str]]:
        """The data set and category of everything to run."""
        return [(name, each) for name, data in self.datasets.items() for each in data.categories]

    @cached_property
    def used_extractors(self) -> dict[str, Extractor]:
        """The extractors of the experiments to score, by name."""
        return {each.extractor: self.extractors[each.extractor] for each in self.scored.values()}

    def extractor(self, name: str, dataset: str) -> Extractor:
        """Return an extractor as it is used on a data set."""
        return self.extractors[name].on(self.datasets[dataset])

    def coreset_jobs(self, model: Experiment) -> list[str]:
        """Return the names of the jobs that choose coresets of a model's parts; [] for none."""
        jobs = self.written["coreset_jobs"] if model.merges else 1
        return [f"{job}of{jobs}" for job in range(1, jobs + 1)] if jobs > 1 else []

    def geometries(self, dataset: str) -> dict[str, Geometry]:
        """Return resize and crop of the used extractors on a data set, by name."""
        used = [self.extractor(name, dataset).geometry for name in self.used_extractors]
        return {each.name: each for each in used}

    def of_one_size(self, dataset: str, geometry: str) -> list[str]:
        """Return the experiments with a resize and crop on a data set that need one size."""
        return [
            name
            for name, each in self.scored.items()
            if each.needs_one_size
            and self.extractor(each.extractor, dataset).geometry.name == geometry
        ]

    @cached_property
    def sweeps(self) -> dict[str, dict[str, int | None]]:
        """The experiments with several ``shots``: their runs, and the shots, None for all."""
        runs: dict[str, dict[str, int | None]] = {}
        for name, each in self.experiments.items():
            runs.setdefault(each.configured, {})[name] = each.parameters.get("shots")
        return {name: each for name, each in runs.items() if len(each) > 1}

    @cached_property
    def swept(self) -> dict[str, Experiment]:
        """The experiments that are one number of ``shots`` of several."""
        return {name: self.experiments[name] for runs in self.sweeps.values() for name in runs}

    @cached_property
    def shown(self) -> dict[str, Experiment]:
        """The experiments of tables, pictures and comparisons; of a sweep, the most images."""
        left_out = {
            name
            for runs in self.sweeps.values()
            for name in sorted(runs, key=lambda run: runs[run] or math.inf)[:-1]
        }
        return {name: each for name, each in self.experiments.items() if name not in left_out}
