rule fit:
    input:
        unpack(PRODUCTS.fitted_to),
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        settings=settings_file("fit"),
    output:
        model=f"{RESULTS}/models/{CATEGORY}/{{model}}/seed{{seed}}.safetensors",
        record=f"{RECORDS}/fit/{CATEGORY}/{{model}}/seed{{seed}}.json",
    log:
        f"{LOGS}/fit/{CATEGORY}/{{model}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/fit/{CATEGORY}/{{model}}/seed{{seed}}.tsv"
    conda:
        "../../environment.yaml"
    threads: lambda wildcards: (CONFIG.threads if CONFIG.models[wildcards.model].fit_computes else 1)
    resources:
        # PaDiM's model is at most as large as the features it is fitted on, and held twice.
        # A merged coreset is bounded by the size of its parts.
        mem_mb=lambda wildcards, input, attempt: grow(
            2000
            + CUDA_MB
            + min(
                2 * input.size_mb,
                config["memory_mb"] + CONFIG.models[wildcards.model].merge_mb,
            ),
            attempt,
        ),
        runtime=lambda wildcards, input, attempt: grow(30 + input.size_mb / 20, attempt),
        gpu=lambda wildcards: GPU * CONFIG.models[wildcards.model].fit_computes,
    params:
        settings=settings("fit"),
    script:
        "../../scripts/fit.py"
