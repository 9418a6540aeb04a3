# Targets: `snakemake readme` and `snakemake readme_check`. The document is changed in place, so it is
# not an output, which Snakemake would delete first. Rules without output or benchmark run whenever
# they are asked for, so the check always compares the document with the results.
rule readme:
    input:
        rendered=f"{RESULTS}/tables/readme.md",
        pictures=[
            f"{RESULTS}/pictures/{name}.png" for name in config["readme"]["pictures"]
        ],
        curves=f"{RESULTS}/figures/learning_curves" if CONFIG.sweeps else [],
    log:
        f"{LOGS}/readme.log",
    localrule: True
    conda:
        "../../environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        readme=config["readme"],
        check=False,
    script:
        "../../scripts/readme.py"


use rule readme as readme_check with:
    input:
        rendered=f"{RESULTS}/tables/readme.md",
    log:
        f"{LOGS}/readme_check.log",
    localrule: True
    params:
        readme=config["readme"],
        check=True,
