"""Count the images that each value is computed from, one row per category."""

from pathlib import Path

import pandas as pd

from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.evaluation import counts, resamples
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    rows = [
        counts.row(resamples.read(Path(run)), manifest.read(Path(listed)))
        for run, listed in zip(job.input.resamples, job.input.manifests, strict=True)
    ]
    write_csv(pd.DataFrame(rows, columns=list(counts.COLUMNS)), Path(job.output.counts))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
