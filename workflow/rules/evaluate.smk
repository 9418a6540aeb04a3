rule evaluate:
    input:
        table=f"{RESULTS}/scores/{RUN}/scores.csv",
        maps=f"{RESULTS}/scores/{RUN}/maps.h5",
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        # Labels and masks; the features would be a hundred times as much to read.
        pixels=lambda wildcards: pixels_of(
            wildcards, experiment_of(wildcards).extractor
        ),
    output:
        metrics=f"{RESULTS}/metrics/{CATEGORY}/{{experiment}}/seed{{seed}}.csv",
        resamples=f"{RESULTS}/metrics/{CATEGORY}/{{experiment}}/seed{{seed}}.h5",
        record=f"{RESULTS}/metrics/{CATEGORY}/{{experiment}}/seed{{seed}}.json",
    log:
        f"{LOGS}/evaluate/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{RUN}.tsv"
    group:
        "measure"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(evaluate_needs),
        runtime=runtime(evaluate_needs),
    params:
        uncertainty=config["uncertainty"],
        version=[bootstrap.VERSION, resamples.SCHEMA_VERSION, provenance.VERSION],
    script:
        "../../scripts/evaluate.py"
