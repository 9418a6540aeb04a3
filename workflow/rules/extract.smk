rule extract:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        weights=weights_file,
    output:
        features=f"{RESULTS}/features/{CATEGORY}/{{extractor}}.h5",
    log:
        f"{LOGS}/extract/{CATEGORY}/{{extractor}}.log",
    benchmark:
        f"{BENCHMARKS}/extract/{CATEGORY}/{{extractor}}.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        folder=category_folder,
        extractor=lambda wildcards: CONFIG.extractor(wildcards.extractor),
        version=EXTRACT_VERSION,
    script:
        "../../scripts/extract.py"
