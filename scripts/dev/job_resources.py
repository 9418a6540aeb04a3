"""Compare the memory and time that jobs ask for with what they used: docs/resources.md.

    snakemake --benchmark-extended --configfile FILE ...    a finished run with device: cpu
    python scripts/dev/job_resources.py results/bottle

``--benchmark-extended`` makes Snakemake write what each job asked for beside what was measured.
"""

import argparse
import ast
import csv
import sys
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from indad.core import atomic

#: Memory of the two Snakemake processes that start a script within a cluster's job, in MB.
SNAKEMAKE_MB = 300
#: The text of the page, with places for its tables.
PAGE = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")


def read_jobs(results: Path) -> pd.DataFrame:
    """Read the benchmark files of a run, except those of jobs that run on the head node.

    Returns:
        For each job its ``name``, ``asked_mb``, ``measured_mb``, ``asked_minutes`` and
        ``measured_minutes``.

    Raises:
        SystemExit: the run was made without ``--benchmark-extended``.
    """
    jobs = []
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        name = path.relative_to(results / "benchmarks").with_suffix("")
        if len(name.parts) < 3 or name.parts[0] == "download":
            continue
        with path.open(encoding="utf-8", newline="") as file:
            (record,) = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if "resources" not in record:
            sys.exit(f"{path}: has no column 'resources'; run with --benchmark-extended")
        if record["max_rss"] == "NA":  # ended before Snakemake measured it
            continue
        asked = ast.literal_eval(record["resources"])
        jobs.append(
            {
                "name": name.as_posix(),
                "asked_mb": asked["mem_mb"],
                "measured_mb": float(record["max_rss"]) + SNAKEMAKE_MB,
                "asked_minutes": asked["runtime"],
                "measured_minutes": float(record["s"]) / 60,
            }
        )
    return pd.DataFrame(jobs)


def page(jobs: pd.DataFrame, results: Path) -> str:
    """Return the comparison as Markdown."""
    cells = [
        [
            job.name,
            f"{job.asked_mb:,}",
            f"{job.measured_mb:,.0f}",
            f"{job.asked_mb / job.measured_mb:.1f}",
            str(job.asked_minutes),
            f"{job.measured_minutes:.1f}",
        ]
        for job in jobs.itertuples()
    ]
    headers = ["job", "asked MB", "measured MB", "ratio", "asked minutes", "measured minutes"]
    table = tabulate(cells, headers, tablefmt="github", disable_numparse=True)
    return PAGE.format(results=results, snakemake=SNAKEMAKE_MB, table=table)


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("results", type=Path, help="results folder of a finished run")
    parse.add_argument("--output", type=Path, default=Path("docs/resources.md"), metavar="FILE")
    given = parse.parse_args()
    atomic.write_text(given.output, page(read_jobs(given.results), given.results))


if __name__ == "__main__":
    main()
