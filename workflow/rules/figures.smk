rule figures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=PRODUCTS.shown_pixels,
        tables=shown(f"{RESULTS}/scores/{RUN}/scores.csv"),
        maps=shown(f"{RESULTS}/scores/{RUN}/maps.h5"),
        settings=settings_file("figures"),
    output:
        curves=report(
            f"{RESULTS}/figures/{CATEGORY}/curves.png",
            caption="../report/curves.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"category": "{category}", "figure": "curves"},
        ),
        scores=report(
            f"{RESULTS}/figures/{CATEGORY}/scores.png",
            caption="../report/scores.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"category": "{category}", "figure": "scores by defect"},
        ),
        defects=report(
            f"{RESULTS}/figures/{CATEGORY}/defects.png",
            caption="../report/defects.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"category": "{category}", "figure": "AUROC by defect"},
        ),
        table=f"{RESULTS}/figures/{CATEGORY}/defects.csv",
        record=f"{RECORDS}/figures/{CATEGORY}.json",
    log:
        f"{LOGS}/figures/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/figures/{CATEGORY}.tsv"
    group:
        "measure"
    conda:
        "../../environment.yaml"
    resources:
        # The pixels of one experiment after the other are sorted, in blocks of a fixed size.
        mem_mb=lambda wildcards, input, attempt: grow(
            1000
            + min(20 * max(map(os.path.getsize, input.maps)) / 1e6, 2500)
            + 2500 * (config["evaluate_at"] == "original"),
            attempt,
        ),
        runtime=lambda wildcards, attempt: grow(10 + 5 * len(CONFIG.shown), attempt),
    params:
        settings=settings("figures"),
        folder=category_folder,
    script:
        "../../scripts/figures.py"
