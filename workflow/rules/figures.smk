rule figures:
    input:
        manifest=f"{RESULTS}/manifests/{CATEGORY}.csv",
        pixels=shown_pixels,
        tables=shown_scores("scores.csv"),
        maps=shown_scores("maps.h5"),
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
    log:
        f"{LOGS}/figures/{CATEGORY}.log",
    benchmark:
        f"{BENCHMARKS}/figures/{CATEGORY}.tsv"
    group:
        "measure"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(figures_needs),
        runtime=runtime(figures_needs),
    params:
        experiments=list(CONFIG.experiments),
        remark=shown_seed(),
    script:
        "../../scripts/figures.py"


rule tradeoff:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        times=f"{RESULTS}/runtime.csv",
    output:
        figure=report(
            f"{RESULTS}/figures/tradeoff.png",
            caption="../report/tradeoff.rst",
            category="Figures",
            subcategory="all data sets",
            labels={"figure": "accuracy against time"},
        ),
    log:
        f"{LOGS}/tradeoff.log",
    benchmark:
        f"{BENCHMARKS}/tradeoff.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        models=fitted_models(),
    script:
        "../../scripts/tradeoff.py"


localrules:
    tradeoff,
