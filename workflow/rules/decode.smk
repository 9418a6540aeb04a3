rule decode:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        warnings=f"{RESULTS}/manifests/{CATEGORY}.warnings.json",
        settings=settings_file("decode"),
    output:
        pixels=f"{RESULTS}/pixels/{CATEGORY}/{{geometry}}.h5",
        # Those of the manifest, and those about the pixels.
        warnings=f"{RESULTS}/pixels/{CATEGORY}/{{geometry}}.warnings.json",
        record=f"{RECORDS}/decode/{CATEGORY}/{{geometry}}.json",
    log:
        f"{LOGS}/decode/{CATEGORY}/{{geometry}}.log",
    benchmark:
        f"{BENCHMARKS}/decode/{CATEGORY}/{{geometry}}.tsv"
    group:
        "prepare"
    conda:
        "../../environment.yaml"
    threads: 4
    resources:
        # Four threads, each with a photo of 20 megapixels.
        mem_mb=lambda wildcards, attempt: grow(1500, attempt),
        runtime=lambda wildcards, attempt: grow(60, attempt),
    params:
        settings=settings("decode"),
        folder=category_folder,
        one_size=experiments_of_one_size,
    script:
        "../../scripts/decode.py"
