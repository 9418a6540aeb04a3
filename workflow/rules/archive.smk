rule archive:
    input:
        settings=settings_file("archive"),
    output:
        found=f"{RESULTS}/data/{{dataset}}.json",
        record=f"{RECORDS}/archive/{{dataset}}.json",
    log:
        f"{LOGS}/archive/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/archive/{{dataset}}.tsv"
    # The network and the lock on the archive belong to this machine, not to a cluster node.
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=600,
    params:
        settings=settings("archive"),
    script:
        "../../scripts/archive.py"
