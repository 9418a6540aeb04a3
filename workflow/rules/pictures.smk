rule pictures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=shown_pixels,
        tables=shown_scores("scores.csv"),
        maps=shown_scores("maps.h5"),
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
    log:
        f"{LOGS}/pictures/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/pictures/{CATEGORY}.tsv"
    group:
        "measure"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(pictures_needs),
        runtime=runtime(pictures_needs),
    params:
        experiments=list(CONFIG.experiments),
        remark=shown_seed(),
    script:
        "../../scripts/pictures.py"
