rule fit:
    input:
        features=store_of_model,
    output:
        model=f"{RESULTS}/models/{CATEGORY}/{{model}}/seed{{seed}}.safetensors",
    log:
        f"{LOGS}/fit/{CATEGORY}/{{model}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/fit/{CATEGORY}/{{model}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads:
        lambda wildcards: resources.threads(
            CONFIG.models[wildcards.model]["method"], CONFIG.threads
        )
    resources:
        mem_mb=memory(fit_needs),
        runtime=runtime(fit_needs),
        gpu=GPU,
    params:
        model=lambda wildcards: CONFIG.models[wildcards.model],
        extractor=lambda wildcards: CONFIG.extractor(
            CONFIG.models[wildcards.model]["extractor"]
        ),
        version=lambda wildcards: [
            methods.version(CONFIG.models[wildcards.model]["method"]),
            methods.SCHEMA_VERSION,
        ],
    script:
        "../../scripts/fit.py"
