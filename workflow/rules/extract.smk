rule extract:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=lambda wildcards: PRODUCTS.pixels(wildcards.extractor, wildcards.dataset),
        weights=PRODUCTS.weights,
        settings=settings_file("extract"),
    output:
        features=f"{RESULTS}/features/{CATEGORY}/{{extractor}}.h5",
        record=f"{RECORDS}/extract/{CATEGORY}/{{extractor}}.json",
    log:
        f"{LOGS}/extract/{CATEGORY}/{{extractor}}.log",
    benchmark:
        f"{BENCHMARKS}/extract/{CATEGORY}/{{extractor}}.tsv"
    conda:
        "../../environment.yaml"
    # With one thread some convolutions are computed by another library, and the last digits differ
    # (see the script): at least two, which are counted here.
    threads: max(2, CONFIG.threads)
    resources:
        # The network, and batches with their maps; of the input, the weights count most.
        mem_mb=lambda wildcards, input, attempt: grow(
            2500 + 2 * CUDA_MB + 3 * input.size_mb, attempt
        ),
        runtime=lambda wildcards, input, attempt: grow(30 + input.size_mb, attempt),
        gpu=GPU,
    params:
        settings=settings("extract"),
    script:
        "../../scripts/extract.py"
