"""Draw the sheets of one category: test images with every experiment's anomaly maps."""

from pathlib import Path

from indad.data import manifest
from indad.pipeline.job import Job, run
from indad.reporting import pictures


def main(job: Job) -> None:
    experiments = [
        pictures.Experiment(name, Path(table), Path(maps), Path(pixels))
        for name, table, maps, pixels in zip(
            job.params.experiments, job.input.tables, job.input.maps, job.input.pixels, strict=True
        )
    ]
    title = f"{job.wildcards.dataset} / {job.wildcards.category}"
    if job.params.remark:
        title += f" ({job.params.remark})"
    pictures.sheets(
        manifest.read(Path(job.input.manifest)),
        experiments,
        Path(job.output.sheet),
        Path(job.output.cases),
        title=title,
    )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
