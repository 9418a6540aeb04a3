rule coreset:
    input:
        features=lambda wildcards: PRODUCTS.features(
            CONFIG.models[wildcards.model].extractor
        ),
        settings=settings_file("coreset"),
    output:
        coresets=f"{RESULTS}/coresets/{CATEGORY}/{{model}}/seed{{seed}}/{{part}}.safetensors",
        record=f"{RECORDS}/coreset/{CATEGORY}/{{model}}/seed{{seed}}/{{part}}.json",
    log:
        f"{LOGS}/coreset/{CATEGORY}/{{model}}/seed{{seed}}/{{part}}.log",
    benchmark:
        f"{BENCHMARKS}/coreset/{CATEGORY}/{{model}}/seed{{seed}}/{{part}}.tsv"
    conda:
        "../../environment.yaml"
    threads: CONFIG.threads
    resources:
        # The projected patches of one part at a time, and what a search may take.
        mem_mb=lambda wildcards, attempt: grow(
            2000
            + CUDA_MB
            + config["memory_mb"]
            + CONFIG.models[wildcards.model].part_mb,
            attempt,
        ),
        runtime=lambda wildcards, input, attempt: grow(30 + input.size_mb / 20, attempt),
        gpu=GPU,
    params:
        settings=settings("coreset"),
        # Decides only the second choice, in fit: the files serve every ratio.
        coreset_ratio=lambda wildcards, input: CONFIG.models[
            wildcards.model
        ].parameters["coreset_ratio"],
    script:
        "../../scripts/coreset.py"
