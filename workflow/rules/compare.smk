rule compare:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        resamples=per_run(f"{RESULTS}/metrics/{RUN}.h5", CONFIG.shown),
        settings=settings_file("compare"),
    output:
        comparisons=report(
            f"{RESULTS}/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Comparisons",
            labels={"table": "all pairs of experiments"},
        ),
        ranks=report(
            f"{RESULTS}/ranks.csv",
            caption="../report/ranks.rst",
            category="Comparisons",
            labels={"table": "mean ranks over categories"},
        ),
        document=report(
            f"{RESULTS}/tables/comparisons.md",
            caption="../report/comparisons.rst",
            category="Comparisons",
            labels={"table": "which experiments differ significantly"},
        ),
        figures=report(
            directory(f"{RESULTS}/figures/critical_difference"),
            patterns=["{name}.png"],
            caption="../report/critical_difference.rst",
            category="Comparisons",
            labels={"table": "critical difference, {name}"},
        ),
        record=f"{RECORDS}/compare.json",
    log:
        f"{LOGS}/compare.log",
    benchmark:
        f"{BENCHMARKS}/compare.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("compare"),
    script:
        "../../scripts/compare.py"
