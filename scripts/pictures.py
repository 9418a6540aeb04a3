"""Draw the sheets of one category: test images with every experiment's anomaly maps."""

from pathlib import Path

from indad.data import manifest
from indad.evaluation.scores import ScoreFiles
from indad.pipeline.job import Job, run
from indad.reporting import pictures, style


def main(job: Job) -> None:
    at, settings = job.wildcards, job.params.settings
    experiments = {
        name: ScoreFiles(*map(Path, paths))
        for name, *paths in zip(
            settings["models"], job.input.tables, job.input.maps, job.input.pixels, strict=True
        )
    }
    pictures.sheets(
        manifest.read(Path(job.input.manifest)),
        experiments,
        Path(job.output.sheet),
        Path(job.output.cases),
        title=style.category_title(at.dataset, at.category, settings["remark"]),
    )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
