rule tradeoff:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        times=f"{RESULTS}/runtime.csv",
        settings=settings_file("tradeoff"),
    output:
        figure=report(
            f"{RESULTS}/figures/tradeoff.png",
            caption="../report/tradeoff.rst",
            category="Figures",
            subcategory="all data sets",
            labels={"figure": "accuracy against time"},
        ),
        record=f"{RECORDS}/tradeoff.json",
    log:
        f"{LOGS}/tradeoff.log",
    benchmark:
        f"{BENCHMARKS}/tradeoff.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("tradeoff"),
    script:
        "../../scripts/tradeoff.py"
