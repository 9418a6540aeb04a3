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
        # One table a metric, the document that holds them all, and the one to look at first.
        tables=expand(f"{RESULTS}/tables/{{metric}}.md", metric=tables.TITLES),
        document=report(
            f"{RESULTS}/tables/results.md",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "all tables"},
        ),
        summary=f"{RESULTS}/tables/summary.md",
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
