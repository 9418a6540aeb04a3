"""Decode, resize and crop all images of one category, once for every extractor."""

from pathlib import Path

from indad import manifest, pixels, stage
from indad.images import Geometry
from indad.progress import LoggedProgress


def main(job: stage.Job) -> None:
    pixels.decode(
        manifest.read(Path(job.input.manifest)),
        Path(job.params.folder),
        Path(job.output.pixels),
        geometry=Geometry.from_config(**job.params.geometry),
        threads=job.threads,
        progress=LoggedProgress(f"decode {job.wildcards.category}"),
    )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
