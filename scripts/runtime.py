"""Gather the run time and memory of all jobs into one CSV file and a document."""

from pathlib import Path

from indad.core import atomic
from indad.core.csv_files import write_csv
from indad.pipeline.job import Job, run
from indad.reporting import runtime, tables


def main(job: Job) -> None:
    settings = job.params.settings
    records, benchmarks = Path(job.params.records), Path(job.params.benchmarks)
    table = runtime.collect(map(Path, job.input.records), records, benchmarks)
    write_csv(table, Path(job.output.table))
    text = runtime.document(table, settings["models"], tables.Layout(**settings["layout"]))
    atomic.write_text(job.output.document, text)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
