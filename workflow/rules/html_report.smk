rule html_report:
    input:
        metrics=expand(f"{RESULTS}/tables/{{metric}}.csv", metric=TITLES),
        images=f"{RESULTS}/tables/images.csv",
        counts=f"{RESULTS}/counts.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
        ranks=f"{RESULTS}/ranks.csv",
        diagrams=f"{RESULTS}/figures/critical_difference",
        runtime=f"{RESULTS}/runtime.csv",
        tradeoff=f"{RESULTS}/figures/tradeoff.png",
        provenance=f"{RESULTS}/provenance.json",
        typical=per_category(f"{RESULTS}/pictures/{CATEGORY}.png"),
        cases=per_category(f"{RESULTS}/pictures/{CATEGORY}_cases.png"),
        curves=per_category(f"{RESULTS}/figures/{CATEGORY}/curves.png"),
        scores=per_category(f"{RESULTS}/figures/{CATEGORY}/scores.png"),
        defects=per_category(f"{RESULTS}/figures/{CATEGORY}/defects.csv"),
        warnings=data_warnings,
        points=f"{RESULTS}/learning_curves.csv" if CONFIG.sweeps else [],
        learning=f"{RESULTS}/figures/learning_curves" if CONFIG.sweeps else [],
        settings=settings_file("html_report"),
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "all results in one file"},
        ),
        record=f"{RECORDS}/html_report.json",
    log:
        f"{LOGS}/html_report.log",
    benchmark:
        f"{BENCHMARKS}/html_report.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    threads: 4
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("html_report"),
        categories=lambda wildcards, input: CONFIG.categories,
    script:
        "../../scripts/html_report.py"
