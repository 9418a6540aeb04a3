# A target to ask for: `snakemake readme`. The document is changed in place, between its markers,
# so it is no output: Snakemake would delete it first.
rule readme:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        pictures=[
            f"{RESULTS}/pictures/{name}.png" for name in config["readme"]["pictures"]
        ],
    output:
        rendered=f"{RESULTS}/tables/readme.md",
    log:
        f"{LOGS}/readme.log",
    benchmark:
        f"{BENCHMARKS}/readme.tsv"
    conda:
        ENVIRONMENT
    params:
        readme=config["readme"],
        experiments=list(CONFIG.experiments),
        notes=CONFIG.notes,
    script:
        "../../scripts/update_readme.py"


localrules:
    readme,
