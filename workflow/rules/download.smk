rule archive:
    output:
        record=f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{LOGS}/archive/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/archive/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
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
    params:
        request=lambda wildcards: CONFIG.source(wildcards.dataset),
    script:
        "../../scripts/download.py"


# The network and the archive's lock are this machine's business, not a cluster node's.
localrules:
    archive,
    download,
