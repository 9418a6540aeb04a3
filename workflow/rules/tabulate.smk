rule tabulate:
    input:
        metrics=all_metrics,
        manifests=all_manifests,
        pixels=all_pixels,
        records=all_records,
    output:
        metrics=report(
            f"{RESULTS}/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "all metrics, tidy"},
        ),
        # A table a metric for reading, for a paper and for programs; the document that holds them
        # all; the one to look at first.
        pages=expand(f"{RESULTS}/tables/{{metric}}.md", metric=tables.TITLES),
        latex=expand(f"{RESULTS}/tables/{{metric}}.tex", metric=tables.TITLES),
        data=[
            report(
                f"{RESULTS}/tables/{metric}.csv",
                caption="../report/table.rst",
                category="Tables",
                labels={"table": title},
            )
            for metric, title in tables.TITLES.items()
        ],
        published=report(
            f"{RESULTS}/tables/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published values beside ours"},
        ),
        images=f"{RESULTS}/tables/images.csv",
        document=report(
            f"{RESULTS}/tables/results.md",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "all tables"},
        ),
        summary=f"{RESULTS}/tables/summary.md",
        provenance=f"{RESULTS}/provenance.json",
    log:
        f"{LOGS}/tabulate.log",
    benchmark:
        f"{BENCHMARKS}/tabulate.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        layout=CONFIG.layout,
        published=published.fingerprint(),
        runs=all_runs,
    script:
        "../../scripts/write_tables.py"


localrules:
    tabulate,
