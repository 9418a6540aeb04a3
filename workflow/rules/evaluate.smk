rule evaluate:
    input:
        table=f"{RESULTS}/scores/{RUN}/scores.csv",
        maps=f"{RESULTS}/scores/{RUN}/maps.h5",
        features=store_of_experiment,
    output:
        metrics=f"{RESULTS}/metrics/{CATEGORY}/{{experiment}}/seed{{seed}}.csv",
    log:
        f"{LOGS}/evaluate/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{RUN}.tsv"
    conda:
        ENVIRONMENT
    script:
        "../../scripts/evaluate.py"
