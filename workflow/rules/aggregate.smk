rule aggregate:
    input:
        metrics=per_run(f"{RESULTS}/metrics/{RUN}.csv"),
        scored=per_run(f"{RECORDS}/score/{RUN}.json"),
        evaluated=per_run(f"{RECORDS}/evaluate/{RUN}.json"),
        manifests=per_category(f"{RESULTS}/manifests/{CATEGORY}.csv"),
        warnings=data_warnings,
        settings=settings_file("aggregate"),
    output:
        metrics=report(
            f"{RESULTS}/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "all metrics, tidy"},
        ),
        averages=report(
            f"{RESULTS}/averages.csv",
            caption="../report/averages.rst",
            category="Tables",
            labels={"table": "averages over categories, tidy"},
        ),
        # One table for each metric, to read, for a paper and for programs; all of them in one
        # document; and the most important ones.
        pages=expand(f"{RESULTS}/tables/{{metric}}.md", metric=TITLES),
        latex=expand(f"{RESULTS}/tables/{{metric}}.tex", metric=TITLES),
        data=[
            report(
                f"{RESULTS}/tables/{metric}.csv",
                caption="../report/table.rst",
                category="Tables",
                labels={"table": title},
            )
            for metric, title in TITLES.items()
        ],
        published=report(
            f"{RESULTS}/tables/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published values and ours"},
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
        record=f"{RECORDS}/aggregate.json",
    log:
        f"{LOGS}/aggregate.log",
    benchmark:
        f"{BENCHMARKS}/aggregate.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("aggregate"),
    script:
        "../../scripts/aggregate.py"
