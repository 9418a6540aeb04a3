"""Extract the features of one category with one backbone into an HDF5 store."""

from pathlib import Path

from indad import manifest, stage
from indad.progress import LoggedProgress


def main(job: stage.Job) -> None:
    # With a single thread torch computes 1 x 1 convolutions by another library, which rounds
    # otherwise: never one, so that the features of `--cores 1` are those of any other number.
    device = stage.use_device(job.config, max(2, job.threads))
    from indad.extract import extract

    file = job.input.get("weights")
    extract(
        manifest.read(Path(job.input.manifest)),
        Path(job.input.pixels),
        Path(job.output.features),
        extractor=job.params.extractor,
        weights=Path(file) if file else None,
        device=device,
        batch_size=job.config["batch_size"],
        progress=LoggedProgress(f"extract {job.wildcards.category} {job.wildcards.extractor}"),
    )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
