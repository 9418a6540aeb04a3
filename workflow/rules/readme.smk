# What belongs between the markers of the document `readme.file`.
rule readme_tables:
    input:
        metrics=f"{RESULTS}/metrics.csv",
    output:
        rendered=f"{RESULTS}/tables/readme.md",
    log:
        f"{LOGS}/readme_tables.log",
    benchmark:
        f"{BENCHMARKS}/readme_tables.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        metrics=config["readme"]["metrics"],
        layout=CONFIG.layout,
        published=published.fingerprint(),
    script:
        "../../scripts/render_readme.py"


# Targets to ask for: `snakemake readme` and `snakemake readme_check`. The document is changed in
# place, so it is no output: Snakemake would delete it first. Without one they run whenever asked;
# a benchmark file would count as one, and a check that once passed would not look again.
rule readme:
    input:
        rendered=f"{RESULTS}/tables/readme.md",
        pictures=[
            f"{RESULTS}/pictures/{name}.png" for name in config["readme"]["pictures"]
        ],
    log:
        f"{LOGS}/readme.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory(table_needs),
        runtime=runtime(table_needs),
    params:
        readme=config["readme"],
        check=False,
    script:
        "../../scripts/update_readme.py"


use rule readme as readme_check with:
    input:
        rendered=f"{RESULTS}/tables/readme.md",
    log:
        f"{LOGS}/readme_check.log",
    params:
        readme=config["readme"],
        check=True,


localrules:
    readme_tables,
    readme,
    readme_check,
