"""Run anomaly-detection methods on a data set and show the results: ``run.py --help``.

The same as the command ``indad`` of the installed package. It drives the same workflow as
``snakemake`` does: the same cache, the same products, and a second run computes only what changed.
"""

from indad.cli.main import run_and_exit

if __name__ == "__main__":
    run_and_exit()
