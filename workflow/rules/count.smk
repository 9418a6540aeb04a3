rule count:
    input:
        manifests=per_category(f"{RESULTS}/manifests/{CATEGORY}.csv"),
        # Masks and regions are those visible after the first experiment's crop.
        resamples=per_category(shown(f"{RESULTS}/metrics/{RUN}.h5")[0]),
        settings=settings_file("count"),
    output:
        counts=report(
            f"{RESULTS}/counts.csv",
            caption="../report/counts.rst",
            category="Tables",
            labels={"table": "images of each category"},
        ),
        record=f"{RECORDS}/count.json",
    log:
        f"{LOGS}/count.log",
    benchmark:
        f"{BENCHMARKS}/count.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grow(1000, attempt),
        runtime=lambda wildcards, attempt: grow(30, attempt),
    params:
        settings=settings("count"),
    script:
        "../../scripts/count.py"
