"""Draw a sheet of test images of one category with every experiment's anomaly maps."""

from pathlib import Path

from indad import manifest, pictures, stage
from indad.pixels import Pixels


def main(job: stage.Job) -> None:
    with Pixels(Path(job.input.pixels)) as pixels:
        pictures.sheet(
            manifest.read(Path(job.input.manifest)),
            pixels,
            [
                pictures.Experiment(name, Path(table), Path(maps))
                for name, table, maps in zip(
                    job.params.experiments, job.input.tables, job.input.maps, strict=True
                )
            ],
            Path(job.output.sheet),
            title=f"{job.wildcards.dataset} / {job.wildcards.category}",
        )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
