"""The configuration, and helpers that name products."""

import os
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import LocalGitFile
from snakemake.utils import validate

# The folder of the rules: on disk, or an address if Snakemake fetches the module with git.
BASE = workflow.current_basedir
# In a checkout the library lies next to the workflow; otherwise it is an installed package.
SCRIPTS = Path(BASE.get_path_or_uri(secret_free=True)).parents[1] / "scripts"
if (SCRIPTS / "indad").is_dir():
    sys.path.insert(0, str(SCRIPTS))
if isinstance(BASE, LocalGitFile):
    # Snakemake 9.27 looks for a rule's script with a path object that this method cannot join.
    join = LocalGitFile.join
    LocalGitFile.join = lambda self, path: join(self, str(path))

from indad import methods
from indad.core import provenance
from indad.core.errors import IndadError
from indad.data import decode as pixels
from indad.data import manifest
from indad.data.images import Geometry
from indad.evaluation import bootstrap, calibration, resamples, scores
from indad.features import store, weights
from indad.features.settings import EXTRACT_VERSION
from indad.pipeline import lock, resources
from indad.pipeline.config import Config, check_schema
from indad.reporting import published, tables
from indad.reporting.report import VERSION as REPORT_VERSION
from indad.reporting.runtime import VERSION as RUNTIME_VERSION

SCHEMA = Path(workflow.source_path("../schemas/config.schema.yaml"))

try:
    # First in words of ours, which name the key and what is allowed; then defaults are filled in.
    check_schema(config, yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    validate(config, schema="../schemas/config.schema.yaml")
    CONFIG = Config(config)
except IndadError as error:
    raise WorkflowError(f"indad: configuration: {error}") from None

ENVIRONMENT = "../../environment.yaml"
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
    backbone="[^/]+",
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


def claim_results():
    """Keep other runs out of the results folder, from other directories and hosts too."""
    try:
        lock.claim(CONFIG.results)
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


def all_pixels(wildcards):
    """The decoded images of every category to run, for each resize and crop."""
    used = {
        CONFIG.geometry(each.extractor): None for each in CONFIG.experiments.values()
    }
    return [
        f"{each}/{geometry}.h5"
        for each in expand_categories(f"{RESULTS}/pixels/{CATEGORY}")
        for geometry in used
    ]


def all_records(wildcards):
    """What each of these metrics was made with, in the same order."""
    return [str(Path(each).with_suffix(".json")) for each in all_metrics(wildcards)]


def all_runs(wildcards):
    """The product files of each of these metrics, below the results, and the images' folder."""
    runs = []
    for record in all_records(wildcards):
        *_, dataset, category, experiment, seed = Path(record).with_suffix("").parts
        settings = CONFIG.experiments[experiment]
        where = f"{dataset}/{category}"
        geometry = CONFIG.geometry(settings.extractor)
        runs.append(
            {
                "folder": str(CONFIG.folder(dataset, category)),
                "manifest": f"manifests/{where}.csv",
                "pixels": f"pixels/{where}/{geometry}.h5",
                "features": f"features/{where}/{settings.extractor}.h5",
                "model": f"models/{where}/{settings.model}/{seed}.safetensors",
                "scores": f"scores/{where}/{experiment}/{seed}/scores.csv",
                "maps": f"scores/{where}/{experiment}/{seed}/maps.h5",
                "calibration": f"scores/{where}/{experiment}/{seed}/calibration.json",
                "metrics": f"metrics/{where}/{experiment}/{seed}.csv",
                "resamples": f"metrics/{where}/{experiment}/{seed}.h5",
            }
        )
    return runs


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


@cache
def weights_path(extractor):
    """The file of an extractor's weights, if they are one of the user's or of a package."""
    try:
        return weights.resolve_weights_file(CONFIG.extractor(extractor)["weights"])
    except IndadError as error:
        raise WorkflowError(f"indad: extractors.{extractor}.weights: {error}") from None


def weights_file(wildcards):
    """The weights, when they are a file of the user's or timm's: another file, other features."""
    settings = CONFIG.extractor(wildcards.extractor)
    if settings["weights"] is None:
        return f"{RESULTS}/weights/{settings['backbone']}.safetensors"
    path = weights_path(wildcards.extractor)
    packed = path is None or settings["weights"].startswith(weights.PACKAGE)
    return [] if packed else str(path)


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


# What a job asks for, estimated from its input (see indad.resources). Where the input is not there
# yet, Snakemake asks again once it is.


def memory(needs):
    """The memory of a job: `needs` returns it with the time; twice as much at each retry."""
    return lambda wildcards, input, attempt, threads: resources.grown(
        needs(wildcards, input, threads).mem_mb, attempt
    )


def runtime(needs):
    """The time of a job, as `memory`."""
    return lambda wildcards, input, attempt, threads: resources.grown(
        needs(wildcards, input, threads).runtime, attempt
    )


def index_needs(wildcards, input, threads):
    """What indexing a category needs."""
    return resources.index()


def decode_needs(wildcards, input, threads):
    """What decoding a category needs; in a group with its index, what indexing does."""
    try:
        images = resources.images_of(input.manifest)
    except FileNotFoundError:
        return resources.index()
    geometry = Geometry.from_config(**CONFIG.geometries[wildcards.geometry])
    size = geometry.output(images.height, images.width)
    return resources.decode(images, size, threads)


def extract_needs(wildcards, input, threads):
    """What extracting the features of a category needs."""
    images = resources.images_of(input.manifest)
    settings = CONFIG.extractor(wildcards.extractor)
    geometry = Geometry.from_config(settings["resize"], settings["crop"])
    file = input.get("weights") or weights_path(wildcards.extractor)
    return resources.extract(
        images,
        geometry.output(images.height, images.width),
        weights_mb=os.stat(file).st_size / 1e6 if file else resources.WEIGHTS_MB,
        batch_size=config["batch_size"],
        gpu=GPU > 0,
        threads=threads,
    )


def fit_needs(wildcards, input, threads):
    """What fitting a model needs."""
    features = resources.features_of(input.features)
    model = CONFIG.models[wildcards.model]
    return resources.fit(
        model["method"], model["parameters"], features, gpu=GPU > 0, threads=threads
    )


def score_needs(wildcards, input, threads):
    """What scoring a category needs."""
    features = resources.features_of(input.features)
    experiment = experiment_of(wildcards)
    return resources.score(
        experiment.method,
        resources.score_parameters(
            experiment.parameters, CONFIG.models[experiment.model]["parameters"]
        ),
        features,
        memory_mb=config["memory_mb"],
        gpu=GPU > 0,
        threads=threads,
    )


def evaluate_needs(wildcards, input, threads):
    """What the metrics of an experiment need."""
    images = resources.images_of(input.manifest)
    settings = CONFIG.extractor(experiment_of(wildcards).extractor)
    geometry = Geometry.from_config(settings["resize"], settings["crop"])
    return resources.evaluate(images, geometry.output(images.height, images.width))


def pictures_needs(wildcards, input, threads):
    """What a sheet of pictures needs."""
    return resources.pictures(len(CONFIG.experiments))


def figures_needs(wildcards, input, threads):
    """What the figures of a category need."""
    images = resources.images_of(input.manifest)
    sizes = (
        Geometry.from_config(**each).output(images.height, images.width)
        for each in CONFIG.geometries.values()
    )
    return resources.figures(images, max(sizes), len(CONFIG.experiments))


def table_needs(wildcards, input, threads):
    """What the tables need."""
    return resources.tables(len(input))
