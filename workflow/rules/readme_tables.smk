# The text between the markers of the document `readme.file`.
rule readme_tables:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        curves=f"{RESULTS}/learning_curves.csv" if CONFIG.sweeps else [],
        settings=settings_file("readme_tables"),
    output:
        rendered=f"{RESULTS}/tables/readme.md",
        record=f"{RECORDS}/readme_tables.json",
    log:
        f"{LOGS}/readme_tables.log",
    benchmark:
        f"{BENCHMARKS}/readme_tables.tsv"
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=settings("readme_tables"),
    script:
        "../../scripts/readme_tables.py"
