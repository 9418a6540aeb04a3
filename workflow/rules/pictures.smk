rule pictures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        tables=expand(
            f"{RESULTS}/scores/{CATEGORY}/{{experiment}}/seed{{seed}}/scores.csv",
            experiment=CONFIG.experiments,
            seed=CONFIG.seeds[0],
            allow_missing=True,
        ),
        maps=expand(
            f"{RESULTS}/scores/{CATEGORY}/{{experiment}}/seed{{seed}}/maps.h5",
            experiment=CONFIG.experiments,
            seed=CONFIG.seeds[0],
            allow_missing=True,
        ),
    output:
        sheet=report(
            f"{RESULTS}/pictures/{CATEGORY}.png",
            caption="../report/sheet.rst",
            category="Anomaly maps",
            labels={"dataset": "{dataset}", "category": "{category}"},
        ),
    log:
        f"{LOGS}/pictures/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/pictures/{CATEGORY}.tsv"
    conda:
        ENVIRONMENT
    params:
        folder=category_folder,
        experiments=list(CONFIG.experiments),
        geometry=lambda wildcards: [
            {
                key: CONFIG.extractor(experiment.extractor)[key]
                for key in ("resize", "crop")
            }
            for experiment in CONFIG.experiments.values()
        ],
    script:
        "../../scripts/pictures.py"
