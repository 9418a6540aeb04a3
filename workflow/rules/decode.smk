rule decode:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
    output:
        pixels=f"{RESULTS}/pixels/{CATEGORY}/{{geometry}}.h5",
    log:
        f"{LOGS}/decode/{CATEGORY}/{{geometry}}.log",
    benchmark:
        f"{BENCHMARKS}/decode/{CATEGORY}/{{geometry}}.tsv"
    group:
        "prepare"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=memory(decode_needs),
        runtime=runtime(decode_needs),
    params:
        folder=category_folder,
        geometry=lambda wildcards: CONFIG.geometries[wildcards.geometry],
        version=pixels.VERSION,
    script:
        "../../scripts/decode.py"
