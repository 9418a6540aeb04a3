"""Count the images behind each value, a row a category."""

from pathlib import Path

import pandas as pd

from indad import counts, evaluation, manifest, resamples, stage


def main(job: stage.Job) -> None:
    rows = [
        counts.row(resamples.read(Path(run)), manifest.read(Path(listed)))
        for run, listed in zip(job.input.resamples, job.input.manifests, strict=True)
    ]
    evaluation.write(pd.DataFrame(rows, columns=list(counts.COLUMNS)), Path(job.output.counts))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
