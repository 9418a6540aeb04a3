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
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("count"),
    script:
        "../../scripts/count.py"
