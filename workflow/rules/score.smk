rule score:
    input:
        features=store_of_experiment,
        model=model_of_experiment,
    output:
        table=f"{RESULTS}/scores/{RUN}/scores.csv",
        maps=f"{RESULTS}/scores/{RUN}/maps.h5",
        calibration=f"{RESULTS}/scores/{RUN}/calibration.json",
    log:
        f"{LOGS}/score/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/score/{RUN}.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        mem_mb=memory(score_needs),
        runtime=runtime(score_needs),
        gpu=GPU,
    params:
        parameters=lambda wildcards: methods.score_parameters(
            experiment_of(wildcards).method, experiment_of(wildcards).parameters
        ),
        extractor=lambda wildcards: CONFIG.extractor(experiment_of(wildcards).extractor),
        version=[scores.SCHEMA_VERSION, calibration.SCHEMA_VERSION],
    script:
        "../../scripts/score.py"
