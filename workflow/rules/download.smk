rule download:
    output:
        folder=directory(f"{RESULTS}/data/{CATEGORY}"),
        receipt=f"{RESULTS}/data/{CATEGORY}.json",
    log:
        f"{LOGS}/download/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/download/{CATEGORY}.tsv"
    conda:
        ENVIRONMENT
    params:
        request=lambda wildcards: CONFIG.source(wildcards.dataset),
    script:
        "../../scripts/download.py"
