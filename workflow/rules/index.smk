rule index:
    input:
        receipt=category_receipt,
    output:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
    log:
        f"{LOGS}/index/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/index/{CATEGORY}.tsv"
    group:
        "prepare"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=memory(index_needs),
        runtime=runtime(index_needs),
    params:
        folder=category_folder,
        reading=lambda wildcards: CONFIG.reading(wildcards.dataset).settings,
        # Folders of the user's change under our feet: their names, sizes and times are compared.
        fingerprint=lambda wildcards: (
            ""
            if CONFIG.source(wildcards.dataset)
            else manifest.fingerprint(
                CONFIG.folder(wildcards.dataset, wildcards.category),
                CONFIG.reading(wildcards.dataset),
            )
        ),
        version=manifest.VERSION,
    script:
        "../../scripts/index.py"
