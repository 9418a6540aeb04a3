rule pictures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=PRODUCTS.shown_pixels,
        tables=shown(f"{RESULTS}/scores/{RUN}/scores.csv"),
        maps=shown(f"{RESULTS}/scores/{RUN}/maps.h5"),
        settings=settings_file("pictures"),
    output:
        sheet=report(
            f"{RESULTS}/pictures/{CATEGORY}.png",
            caption="../report/sheet.rst",
            category="Anomaly maps",
            subcategory="{dataset}",
            labels={"category": "{category}", "images": "typical"},
        ),
        cases=report(
            f"{RESULTS}/pictures/{CATEGORY}_cases.png",
            caption="../report/cases.rst",
            category="Anomaly maps",
            subcategory="{dataset}",
            labels={"category": "{category}", "images": "clearest, hardest, errors"},
        ),
        record=f"{RECORDS}/pictures/{CATEGORY}.json",
    log:
        f"{LOGS}/pictures/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/pictures/{CATEGORY}.tsv"
    group:
        "measure"
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grow(1000 + 20 * len(CONFIG.shown), attempt),
        runtime=lambda wildcards, attempt: grow(10 + len(CONFIG.shown), attempt),
    params:
        settings=settings("pictures"),
    script:
        "../../scripts/pictures.py"
