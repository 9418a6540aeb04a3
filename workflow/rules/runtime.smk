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


def recorded_jobs(wildcards):
    """All jobs of this configuration; those of others that left records are none of them."""
    return [
        job
        for dataset, categories in datasets().items()
        for category in categories
        for job in jobs_of(dataset, category)
    ]


# Records are no outputs, so what they are of is waited for, and a job that runs again, whose
# product is then newer, makes this run again.
rule runtime:
    input:
        manifests=all_manifests,
        products=lambda wildcards: [job["product"] for job in recorded_jobs(wildcards)],
    output:
        table=f"{RESULTS}/runtime.csv",
        document=report(
            f"{RESULTS}/tables/runtime.md",
            caption="../report/runtime.rst",
            category="Tables",
            labels={"table": "run time and memory"},
        ),
    log:
        f"{LOGS}/runtime.log",
    benchmark:
        f"{BENCHMARKS}/runtime.tsv"
    conda:
        ENVIRONMENT
    params:
        jobs=recorded_jobs,
        models={
            name: (experiment.model, experiment.extractor)
            for name, experiment in CONFIG.experiments.items()
        },
        benchmarks=BENCHMARKS,
        logs=LOGS,
        layout=CONFIG.layout,
        published=published.fingerprint(),
    script:
        "../../scripts/collect_runtime.py"


localrules:
    runtime,
