"""The configuration, and helpers that name products."""

import os
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

sys.path.insert(0, str(Path(workflow.basedir).parent / "scripts"))

from indad import bootstrap, manifest, methods, pixels, published, tables, weights
from indad.config import Config, check_schema
from indad.errors import IndadError
from indad.extractor import EXTRACT_VERSION
from indad.report import VERSION as REPORT_VERSION

SCHEMA = Path(workflow.basedir) / "schemas/config.schema.yaml"

try:
    # First in words of ours, which name the key and what is allowed; then defaults are filled in.
    check_schema(config, yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    validate(config, schema=str(SCHEMA))
    CONFIG = Config(config)
except IndadError as error:
    raise WorkflowError(f"indad: configuration: {error}") from None

ENVIRONMENT = str(Path(workflow.basedir).parent / "environment.yaml")
RESULTS = str(CONFIG.results)
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
# A job that may use a GPU claims one unless the configuration rules it out, so that
# `--resources gpu=1` bounds how many of them run at once.
GPU = int(CONFIG.device != "cpu")
CATEGORY = "{dataset}/{category}"
RUN = f"{CATEGORY}/{{experiment}}/seed{{seed}}"


def require_writable(folder):
    """Say at once that the results cannot be written, not from every job."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise WorkflowError(
            f"indad: {folder}: cannot be written to (read-only disk, or no permission for "
            f"{place}); make it writable or choose another 'results' folder"
        )


wildcard_constraints:
    dataset="[^/]+",
    category="[^/]+",
    extractor="[^/]+",
    geometry="[^/]+",
    model="[^/]+",
    experiment="[^/]+",
    seed="[0-9]+",


def datasets():
    """The categories of each data set to run; missing data is an error of the configuration."""
    try:
        return CONFIG.datasets
    except IndadError as error:
        raise WorkflowError(f"indad: {error}") from None


def expand_categories(pattern):
    """Fill in every dataset and category to run."""
    return [
        pattern.format(dataset=dataset, category=category)
        for dataset, categories in datasets().items()
        for category in categories
    ]


def all_metrics(wildcards):
    """The metrics file of every category, experiment and seed to run."""
    return [
        f"{each}/{experiment}/seed{seed}.csv"
        for each in expand_categories(f"{RESULTS}/metrics/{CATEGORY}")
        for experiment in CONFIG.experiments
        for seed in CONFIG.seeds
    ]


def all_manifests(wildcards):
    """The manifest of every category to run."""
    return expand_categories(f"{RESULTS}/manifests/{CATEGORY}.csv")


def all_resamples(wildcards):
    """What every metrics file has beside it for comparisons."""
    return [str(Path(path).with_suffix(".h5")) for path in all_metrics(wildcards)]


def all_pictures(wildcards):
    """The sheets of anomaly maps of every category to run."""
    return [
        f"{each}{sheet}.png"
        for each in expand_categories(f"{RESULTS}/pictures/{CATEGORY}")
        for sheet in ("", "_cases")
    ]


def all_figures(wildcards):
    """The figures of every category to run, and the one of all."""
    each = expand_categories(f"{RESULTS}/figures/{CATEGORY}/curves.png")
    return [*each, f"{RESULTS}/figures/tradeoff.png"]


def category_folder(wildcards):
    """The folder of a category's images."""
    return str(CONFIG.folder(wildcards.dataset, wildcards.category))


def category_receipt(wildcards):
    """The receipt of a category that the workflow makes; nothing for a folder of the user's."""
    if CONFIG.source(wildcards.dataset) is None:
        return []
    return f"{RESULTS}/data/{wildcards.dataset}/{wildcards.category}.json"


def archive_record(wildcards):
    """Where a public data set was found; nothing for one that is made here.

    Found anew elsewhere, it is the same data: no reason to make a category again.
    """
    if CONFIG.source(wildcards.dataset) is None or not CONFIG.entry(wildcards.dataset):
        return []
    return ancient(f"{RESULTS}/data/{wildcards.dataset}.json")


def experiment_of(wildcards):
    """The experiment a wildcard names."""
    return CONFIG.experiments[wildcards.experiment]


def store_of_experiment(wildcards):
    """The feature store an experiment scores."""
    extractor = experiment_of(wildcards).extractor
    return f"{RESULTS}/features/{wildcards.dataset}/{wildcards.category}/{extractor}.h5"


def pixels_of(wildcards, extractor):
    """The decoded images an extractor sees."""
    geometry = CONFIG.geometry(extractor)
    return f"{RESULTS}/pixels/{wildcards.dataset}/{wildcards.category}/{geometry}.h5"


def shown_scores(name):
    """A product of scoring of every experiment, for the pictures of a category: the first seed's."""
    return [
        f"{RESULTS}/scores/{CATEGORY}/{experiment}/seed{CONFIG.seeds[0]}/{name}"
        for experiment in CONFIG.experiments
    ]


def shown_pixels(wildcards):
    """The decoded images that each experiment's backbone saw."""
    return [
        pixels_of(wildcards, each.extractor) for each in CONFIG.experiments.values()
    ]


def shown_seed():
    """What a picture says of its seed, where there are several."""
    first, *others = CONFIG.seeds
    return f"seed {first} of {1 + len(others)} seeds" if others else ""


def weights_file(wildcards):
    """The weights, when they are a file of the user's: a changed file is another extractor."""
    named = CONFIG.extractor(wildcards.extractor)["weights"]
    try:
        path = weights.resolve_weights_file(named)
    except IndadError as error:
        raise WorkflowError(
            f"indad: extractors.{wildcards.extractor}.weights: {error}"
        ) from None
    return [] if path is None or named.startswith(weights.PACKAGE) else str(path)


def store_of_model(wildcards):
    """The feature store a model is fitted on."""
    extractor = CONFIG.models[wildcards.model]["extractor"]
    return f"{RESULTS}/features/{wildcards.dataset}/{wildcards.category}/{extractor}.h5"


def model_of_experiment(wildcards):
    """The fitted model an experiment scores with."""
    model = experiment_of(wildcards).model
    return (
        f"{RESULTS}/models/{wildcards.dataset}/{wildcards.category}/{model}/"
        f"seed{wildcards.seed}.safetensors"
    )


def jobs_of(dataset, category):
    """The jobs on one category, each with its product: what to look up, and to wait for."""
    at = f"{dataset}/{category}"

    def job(stage, product, name="", seed=None, **more):
        which = {"stage": stage, "dataset": dataset, "category": category}
        return which | {"name": name, "seed": seed, "product": product} | more

    extractors = dict.fromkeys(each.extractor for each in CONFIG.experiments.values())
    geometries = dict.fromkeys(CONFIG.geometry(name) for name in extractors)
    if CONFIG.source(dataset):
        yield job("download", f"{RESULTS}/data/{at}.json")
    yield job("index", f"{RESULTS}/manifests/{at}.csv")
    for name in geometries:
        yield job("decode", f"{RESULTS}/pixels/{at}/{name}.h5", name)
    for name in extractors:
        yield job("extract", f"{RESULTS}/features/{at}/{name}.h5", name)
    for seed in CONFIG.seeds:
        for name in CONFIG.models:
            model = f"{RESULTS}/models/{at}/{name}/seed{seed}.safetensors"
            yield job("fit", model, name, seed)
        for name, experiment in CONFIG.experiments.items():
            run = f"{at}/{name}/seed{seed}"
            store = f"{RESULTS}/features/{at}/{experiment.extractor}.h5"
            yield job(
                "score",
                f"{RESULTS}/scores/{run}/maps.h5",
                name,
                seed,
                model=f"{RESULTS}/models/{at}/{experiment.model}/seed{seed}.safetensors",
                share=CONFIG.scored_share(name),
                gallery=store if experiment.needs_gallery else "",
                layers=experiment.parameters["layers"],
            )
            yield job("evaluate", f"{RESULTS}/metrics/{run}.csv", name, seed)
    yield job("pictures", f"{RESULTS}/pictures/{at}.png")
    yield job("figures", f"{RESULTS}/figures/{at}/curves.png")


def recorded_jobs(wildcards):
    """All jobs of this configuration; those of others that left records are none of them."""
    return [
        job
        for dataset, categories in datasets().items()
        for category in categories
        for job in jobs_of(dataset, category)
    ]


def fitted_models():
    """The model and the extractor of each experiment, by name."""
    return {
        name: (experiment.model, experiment.extractor)
        for name, experiment in CONFIG.experiments.items()
    }
