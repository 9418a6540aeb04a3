rule score:
    input:
        unpack(PRODUCTS.scored_from),
        model=lambda wildcards: PRODUCTS.model(CONFIG.scored[wildcards.experiment]),
        settings=settings_file("score"),
    output:
        table=f"{RESULTS}/scores/{RUN}/scores.csv",
        maps=f"{RESULTS}/scores/{RUN}/maps.h5",
        calibration=f"{RESULTS}/scores/{RUN}/calibration.json",
        record=f"{RECORDS}/score/{RUN}.json",
    log:
        f"{LOGS}/score/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/score/{RUN}.tsv"
    conda:
        "../../environment.yaml"
    threads: CONFIG.threads
    resources:
        # The model, the galleries or a copy of the bank, and what a search may take.
        mem_mb=lambda wildcards, input, attempt: grow(
            1500 + CUDA_MB + config["memory_mb"] + 1.5 * input.size_mb, attempt
        ),
        runtime=lambda wildcards, input, attempt: grow(30 + input.size_mb / 5, attempt),
        # The scores of an ensemble's members are only averaged.
        gpu=lambda wildcards: 0 if CONFIG.scored[wildcards.experiment].members else GPU,
    params:
        settings=settings("score"),
    script:
        "../../scripts/score.py"
