"""The configuration, the folders of all products, and look-ups by wildcards."""

import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import LocalGitFile

# The folder of the rules: on disk, or an address if Snakemake fetches the module with git.
BASE = workflow.current_basedir
# In a checkout the library is next to the workflow; otherwise it is an installed package.
SCRIPTS = Path(BASE.get_path_or_uri(secret_free=True)).parents[1] / "scripts"
if (SCRIPTS / "indad").is_dir():
    sys.path.insert(0, str(SCRIPTS))
if isinstance(BASE, LocalGitFile):
    # Snakemake 9.27 looks for a rule's script with a path object that this method cannot join.
    join = LocalGitFile.join
    LocalGitFile.join = lambda self, path: join(self, str(path))

from indad.core.disk import explain_disk_errors
from indad.core.errors import IndadError
from indad.pipeline import cost, lock, presentation
from indad.pipeline.config import Config
from indad.pipeline.config_files import (
    check_schema,
    expand_paths,
    read_yaml,
    with_defaults,
)
from indad.pipeline.currency import Planner, job_name
from indad.pipeline.products import CATEGORY, RUN, Products
from indad.pipeline.settings import category_jobs, job_settings
from indad.reporting import tables


@contextmanager
def workflow_errors(key=""):
    """Show the library's errors, and those of a disk, as their message alone."""
    try:
        with explain_disk_errors():
            yield
    except IndadError as error:
        raise WorkflowError(f"indad: {key}{error}") from None


with workflow_errors("configuration: "):
    # Not Snakemake's `validate`: the library's messages name the key and what is allowed.
    schema = read_yaml(Path(workflow.source_path("../schemas/config.schema.yaml")))
    check_schema(config, schema)
    config.update(with_defaults(expand_paths(config), schema))
    CONFIG = Config.parse(config)

PRODUCTS = Products(CONFIG)
# The metrics that have tables, and their headings.
TITLES = tables.Layout(**presentation.layout(CONFIG)).titles
RESULTS = str(CONFIG.results)
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
RECORDS = f"{RESULTS}/records"
# A job that may use a GPU claims one unless the configuration rules it out, so that
# `--resources gpu=1` bounds how many of them run at once.
GPU = int(CONFIG.device != "cpu")
# Host memory of a CUDA context, in MB.
CUDA_MB = 3000 * GPU


wildcard_constraints:
    dataset="[^/]+",
    category="[^/]+",
    backbone="[^/]+",
    extractor="[^/]+",
    geometry="[^/]+",
    model="[^/]+",
    part="[0-9]+of[0-9]+",
    experiment="[^/]+",
    seed="[0-9]+",


def settings(rule):
    """The settings that decide the result of a rule's job, for its script.

    Snakemake does not compare parameters that take `input` with those it remembers in
    `.snakemake`. The settings file does that, from any folder (see indad.pipeline.currency).
    """
    return lambda wildcards, input: job_settings(CONFIG, rule, wildcards)


@cache
def planner():
    """The comparison of all jobs with their records."""
    return Planner(CONFIG.results, SCRIPTS if SCRIPTS.is_dir() else None)


def settings_file(rule):
    """The input that makes a job run when its settings differ from the recorded ones."""
    if not workflow.is_main_process:  # in the process of a job everything is planned
        return []
    return workflow_errors()(
        lambda wildcards: planner().settings_file(
            job_name(rule, wildcards), job_settings(CONFIG, rule, wildcards)
        )
    )


def grow(amount, attempt):
    """Memory or time of a job: twice as much at each attempt."""
    return int(amount) << (attempt - 1)


def per_category(*patterns):
    """An input function: the patterns for every category to run."""
    return lambda wildcards: [
        pattern.format(dataset=dataset, category=category)
        for dataset, category in CONFIG.categories
        for pattern in patterns
    ]


def per_run(pattern, experiments=CONFIG.experiments):
    """An input function: the pattern for every category, experiment and seed to run."""
    runs = [(name, seed) for name, each in experiments.items() for seed in each.seeds]
    return per_category(*of_runs(pattern, runs))


def shown(pattern):
    """The pattern for every experiment of the pictures, with its first seed."""
    return of_runs(
        pattern, [(name, each.seeds[0]) for name, each in CONFIG.shown.items()]
    )


def of_runs(pattern, runs):
    """The pattern for these experiments and seeds."""
    return [
        expand(pattern, experiment=name, seed=seed, allow_missing=True)[0]
        for name, seed in runs
    ]


def category_folder(wildcards, input):
    """The folder of a category's images."""
    return str(CONFIG.datasets[wildcards.dataset].category_folder(wildcards.category))


def experiments_of_one_size(wildcards, input):
    """The experiments on a geometry that need images of one size."""
    return CONFIG.of_one_size(wildcards.dataset, wildcards.geometry)


def archive_record(wildcards):
    """Where a public data set was found; nothing for one that is made here.

    Found again elsewhere, it is the same data: no reason to make a category again.
    """
    public = CONFIG.datasets[wildcards.dataset].entry is not None
    return ancient(f"{RESULTS}/data/{{dataset}}.json") if public else []


def data_warnings(wildcards):
    """The lists of data warnings of every category to run."""
    return [
        f"{RESULTS}/pixels/{dataset}/{category}/{geometry}.warnings.json"
        for dataset, category in CONFIG.categories
        for geometry in CONFIG.geometries(dataset)
    ]
