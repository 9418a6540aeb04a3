rule index:
    input:
        receipt=PRODUCTS.receipt,
        settings=settings_file("index"),
    output:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        warnings=f"{RESULTS}/manifests/{CATEGORY}.warnings.json",
        record=f"{RECORDS}/index/{CATEGORY}.json",
    log:
        f"{LOGS}/index/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/index/{CATEGORY}.tsv"
    group:
        "prepare"
    conda:
        "../../environment.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: grow(1000, attempt),
        runtime=lambda wildcards, attempt: grow(30, attempt),
    params:
        settings=settings("index"),
        folder=category_folder,
    script:
        "../../scripts/index.py"
