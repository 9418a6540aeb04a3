rule evaluate:
    input:
        table=f"{RESULTS}/scores/{RUN}/scores.csv",
        maps=f"{RESULTS}/scores/{RUN}/maps.h5",
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        # For labels and masks: the features have them too, but are a hundred times as large.
        pixels=lambda wildcards: PRODUCTS.pixels(
            CONFIG.experiments[wildcards.experiment].extractor, wildcards.dataset
        ),
        settings=settings_file("evaluate"),
    output:
        metrics=f"{RESULTS}/metrics/{RUN}.csv",
        resamples=f"{RESULTS}/metrics/{RUN}.h5",
        record=f"{RECORDS}/evaluate/{RUN}.json",
    log:
        f"{LOGS}/evaluate/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{RUN}.tsv"
    group:
        "measure"
    conda:
        "../../environment.yaml"
    resources:
        # The pixels are sorted in blocks of a fixed size; counts of each image. At the images' own
        # size, one of 20 megapixels.
        mem_mb=lambda wildcards, input, attempt: grow(
            1000
            + min(20 * os.path.getsize(input.maps) / 1e6, 2500)
            + 2500 * (config["evaluate_at"] == "original"),
            attempt,
        ),
        runtime=lambda wildcards, input, attempt: grow(
            10 + os.path.getsize(input.maps) / 1e7, attempt
        ),
    params:
        settings=settings("evaluate"),
        folder=category_folder,
    script:
        "../../scripts/evaluate.py"
