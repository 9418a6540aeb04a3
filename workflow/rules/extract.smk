rule extract:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=lambda wildcards: pixels_of(wildcards, wildcards.extractor),
        weights=weights_file,
    output:
        features=f"{RESULTS}/features/{CATEGORY}/{{extractor}}.h5",
    log:
        f"{LOGS}/extract/{CATEGORY}/{{extractor}}.log",
    benchmark:
        f"{BENCHMARKS}/extract/{CATEGORY}/{{extractor}}.tsv"
    conda:
        ENVIRONMENT
    # One thread computes some convolutions by another library, with other last digits (see the
    # script): two are the least, and are counted here.
    threads: max(2, CONFIG.threads)
    resources:
        mem_mb=memory(extract_needs),
        runtime=runtime(extract_needs),
        gpu=GPU,
    params:
        extractor=lambda wildcards: CONFIG.extractor(wildcards.extractor),
        version=[EXTRACT_VERSION, store.SCHEMA_VERSION],
    script:
        "../../scripts/extract.py"
