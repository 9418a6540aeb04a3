rule runtime:
    input:
        records=lambda wildcards: [
            f"{RECORDS}/{job}.json" for job in category_jobs(CONFIG)
        ],
        settings=settings_file("runtime"),
    output:
        table=f"{RESULTS}/runtime.csv",
        document=report(
            f"{RESULTS}/tables/runtime.md",
            caption="../report/runtime.rst",
            category="Tables",
            labels={"table": "run time and memory"},
        ),
        record=f"{RECORDS}/runtime.json",
    log:
        f"{LOGS}/runtime.log",
    benchmark:
        f"{BENCHMARKS}/runtime.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("runtime"),
        records=lambda wildcards, input: RECORDS,
        benchmarks=lambda wildcards, input: BENCHMARKS,
    script:
        "../../scripts/runtime.py"
