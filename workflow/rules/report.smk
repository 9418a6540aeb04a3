rule html_report:
    input:
        metrics=expand(f"{RESULTS}/tables/{{metric}}.csv", metric=tables.TITLES),
        images=f"{RESULTS}/tables/images.csv",
        counts=f"{RESULTS}/counts.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
        ranks=f"{RESULTS}/ranks.csv",
        diagrams=f"{RESULTS}/figures/critical_difference",
        runtime=f"{RESULTS}/runtime.csv",
        provenance=f"{RESULTS}/provenance.json",
        typical=lambda wildcards: expand_categories(
            f"{RESULTS}/pictures/{CATEGORY}.png"
        ),
        cases=lambda wildcards: expand_categories(
            f"{RESULTS}/pictures/{CATEGORY}_cases.png"
        ),
        curves=lambda wildcards: expand_categories(
            f"{RESULTS}/figures/{CATEGORY}/curves.png"
        ),
        scores=lambda wildcards: expand_categories(
            f"{RESULTS}/figures/{CATEGORY}/scores.png"
        ),
        defects=lambda wildcards: expand_categories(
            f"{RESULTS}/figures/{CATEGORY}/defects.csv"
        ),
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "all results in one file"},
        ),
    log:
        f"{LOGS}/html_report.log",
    benchmark:
        f"{BENCHMARKS}/html_report.tsv"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        categories=lambda wildcards: [
            (dataset, category)
            for dataset, categories in datasets().items()
            for category in categories
        ],
        described=CONFIG.described,
        notes=CONFIG.notes,
        config=CONFIG.used | {"uncertainty": config["uncertainty"]},
        level=config["uncertainty"]["level"],
        version=REPORT_VERSION,
    script:
        "../../scripts/write_report.py"


localrules:
    html_report,
