# Records are no outputs, so what they are of is waited for, and a job that runs again, whose
# product is then newer, makes this run again.
rule runtime:
    input:
        manifests=all_manifests,
        products=lambda wildcards: [job["product"] for job in recorded_jobs(wildcards)],
    output:
        table=f"{RESULTS}/runtime.csv",
        document=report(
            f"{RESULTS}/tables/runtime.md",
            caption="../report/runtime.rst",
            category="Tables",
            labels={"table": "run time and memory"},
        ),
    log:
        f"{LOGS}/runtime.log",
    benchmark:
        f"{BENCHMARKS}/runtime.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        jobs=recorded_jobs,
        models=fitted_models(),
        benchmarks=BENCHMARKS,
        logs=LOGS,
        layout=CONFIG.layout,
        published=published.fingerprint(),
        version=RUNTIME_VERSION,
    script:
        "../../scripts/collect_runtime.py"


localrules:
    runtime,
