"""Gather the run-time records of this configuration's jobs into one CSV and a document."""

from pathlib import Path

from indad.core import atomic
from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.evaluation import counts
from indad.pipeline.job import Job, run
from indad.reporting import runtime, tables


def main(job: Job) -> None:
    manifests = {
        (path.parent.name, path.stem): manifest.read(path)
        for path in map(Path, job.input.manifests)
    }
    params = job.params
    table = runtime.collect(
        params.jobs, Path(params.benchmarks), Path(params.logs), counts.images(manifests)
    )
    write_csv(table, Path(job.output.table))
    text = runtime.document(table, params.models, tables.Layout(**params.layout))
    atomic.write_text(job.output.document, text)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
