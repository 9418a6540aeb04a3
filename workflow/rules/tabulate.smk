rule tabulate:
    input:
        metrics=all_metrics,
    output:
        metrics=report(
            f"{RESULTS}/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "all metrics, tidy"},
        ),
        # One table a metric, and the document that holds them all.
        tables=expand(f"{RESULTS}/tables/{{metric}}.md", metric=tables.TITLES),
        document=f"{RESULTS}/tables/results.md",
    log:
        f"{LOGS}/tabulate.log",
    benchmark:
        f"{BENCHMARKS}/tabulate.tsv"
    conda:
        ENVIRONMENT
    params:
        experiments=list(CONFIG.experiments),
        notes=CONFIG.notes,
    script:
        "../../scripts/write_tables.py"


localrules:
    tabulate,
