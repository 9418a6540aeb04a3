rule count:
    input:
        manifests=lambda wildcards: expand_categories(
            f"{RESULTS}/manifests/{CATEGORY}.csv"
        ),
        # As the first experiment's backbone sees them.
        resamples=lambda wildcards: expand_categories(
            f"{RESULTS}/metrics/{CATEGORY}/{next(iter(CONFIG.experiments))}/seed{CONFIG.seeds[0]}.h5"
        ),
    output:
        counts=report(
            f"{RESULTS}/counts.csv",
            caption="../report/counts.rst",
            category="Tables",
            labels={"table": "images of each category"},
        ),
    log:
        f"{LOGS}/count.log",
    benchmark:
        f"{BENCHMARKS}/count.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    script:
        "../../scripts/count.py"


rule compare:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        resamples=all_resamples,
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
            labels={"table": "who is best, and whether that is sure"},
        ),
        figures=report(
            directory(f"{RESULTS}/figures/critical_difference"),
            patterns=["{name}.png"],
            caption="../report/critical_difference.rst",
            category="Comparisons",
            labels={"table": "critical difference, {name}"},
        ),
    log:
        f"{LOGS}/compare.log",
    benchmark:
        f"{BENCHMARKS}/compare.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        experiments=list(CONFIG.experiments),
        level=config["uncertainty"]["level"],
    script:
        "../../scripts/compare.py"


localrules:
    count,
    compare,
