rule weights:
    input:
        settings=settings_file("weights"),
    output:
        weights=f"{RESULTS}/weights/{{backbone}}.safetensors",
        record=f"{RECORDS}/weights/{{backbone}}.json",
    log:
        f"{LOGS}/weights/{{backbone}}.log",
    benchmark:
        f"{BENCHMARKS}/weights/{{backbone}}.tsv"
    # Cluster nodes may have no network.
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=4000,
        runtime=600,
    params:
        settings=settings("weights"),
    script:
        "../../scripts/weights.py"
