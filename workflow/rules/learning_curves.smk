rule learning_curves:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        images=f"{RESULTS}/tables/images.csv",
        resamples=per_run(f"{RESULTS}/metrics/{RUN}.h5", CONFIG.swept),
        settings=settings_file("learning_curves"),
    output:
        table=report(
            f"{RESULTS}/learning_curves.csv",
            caption="../report/learning_curves.rst",
            category="Tables",
            labels={"table": "accuracy by number of training images"},
        ),
        document=report(
            f"{RESULTS}/tables/learning_curves.md",
            caption="../report/learning_curves.rst",
            category="Tables",
            labels={"table": "accuracy by number of training images, to read"},
        ),
        figures=report(
            directory(f"{RESULTS}/figures/learning_curves"),
            patterns=["{name}.png"],
            caption="../report/learning_curves.rst",
            category="Figures",
            subcategory="all data sets",
            labels={"figure": "learning curves, {name}"},
        ),
        record=f"{RECORDS}/learning_curves.json",
    log:
        f"{LOGS}/learning_curves.log",
    benchmark:
        f"{BENCHMARKS}/learning_curves.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("learning_curves"),
    script:
        "../../scripts/learning_curves.py"
