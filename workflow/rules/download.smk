rule download:
    input:
        archive=archive_record,
        settings=settings_file("download"),
    output:
        folder=directory(f"{RESULTS}/data/{CATEGORY}"),
        receipt=f"{RESULTS}/data/{CATEGORY}.json",
        record=f"{RECORDS}/download/{CATEGORY}.json",
    log:
        f"{LOGS}/download/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/download/{CATEGORY}.tsv"
    # The network and the lock on the archive belong to this machine, not to a cluster node.
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=600,
    params:
        settings=settings("download"),
    script:
        "../../scripts/download.py"
