"""Draw a sheet of test images of one category with every experiment's anomaly maps."""

from pathlib import Path

from indad import manifest, pictures, stage


def main(job: stage.Job) -> None:
    pictures.sheet(
        manifest.read(Path(job.input.manifest)),
        Path(job.params.folder),
        [
            pictures.Experiment(name, Path(table), Path(maps), geometry["resize"], geometry["crop"])
            for name, table, maps, geometry in zip(
                job.params.experiments,
                job.input.tables,
                job.input.maps,
                job.params.geometry,
                strict=True,
            )
        ],
        Path(job.output.sheet),
        title=f"{job.wildcards.dataset} / {job.wildcards.category}",
    )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
