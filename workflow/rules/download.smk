rule archive:
    output:
        record=f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{LOGS}/archive/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/archive/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=resources.LEAST_MB,
        runtime=resources.FETCH_MINUTES,
    params:
        source=lambda wildcards: CONFIG.source(wildcards.dataset)["source"],
    script:
        "../../scripts/archive.py"


rule download:
    input:
        record=archive_record,
    output:
        folder=directory(f"{RESULTS}/data/{CATEGORY}"),
        receipt=f"{RESULTS}/data/{CATEGORY}.json",
    log:
        f"{LOGS}/download/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/download/{CATEGORY}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=resources.LEAST_MB,
        runtime=resources.FETCH_MINUTES,
    params:
        request=lambda wildcards: CONFIG.source(wildcards.dataset),
    script:
        "../../scripts/download.py"


rule weights:
    output:
        weights=f"{RESULTS}/weights/{{backbone}}.safetensors",
    log:
        f"{LOGS}/weights/{{backbone}}.log",
    benchmark:
        f"{BENCHMARKS}/weights/{{backbone}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2 * resources.EXTRACT_MB,
        runtime=resources.FETCH_MINUTES,
    script:
        "../../scripts/weights.py"


# The network and the archive's lock are this machine's business, not a cluster node's.
localrules:
    archive,
    download,
    weights,
