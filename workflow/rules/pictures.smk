rule pictures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        # The images as the first experiment's backbone saw them.
        pixels=lambda wildcards: pixels_of(
            wildcards, next(iter(CONFIG.experiments.values())).extractor
        ),
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
        experiments=list(CONFIG.experiments),
    script:
        "../../scripts/pictures.py"
