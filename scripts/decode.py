"""Decode, resize and crop all images of one category, once for every extractor."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data import decode, manifest
from indad.data.images import Geometry
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    decode.decode(
        manifest.read(Path(job.input.manifest)),
        Path(job.params.folder),
        Path(job.output.pixels),
        geometry=Geometry.from_config(**job.params.geometry),
        threads=job.threads,
        progress=LoggedProgress(f"decode {job.wildcards.category}"),
    )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
