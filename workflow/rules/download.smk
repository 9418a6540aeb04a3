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
        folders=lambda wildcards: list(
            map(str, CONFIG.mirror_folders(wildcards.dataset))
        ),
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
        # Files in the user's folders may change under our feet, as those of a `path` may.
        fingerprint=lambda wildcards: CONFIG.mirror_fingerprint(
            wildcards.dataset, wildcards.category
        ),
    script:
        "../../scripts/download.py"


# The network and the archive's lock are this machine's business, not a cluster node's.
localrules:
    archive,
    download,
