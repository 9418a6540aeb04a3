"""Decode, resize and crop all images of one category, once for every extractor."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data import decode, manifest
from indad.data.data_warnings import read_warnings, write_warnings
from indad.data.images import Geometry
from indad.pipeline.job import Facts, Job, run


def main(job: Job) -> Facts:
    images, settings = manifest.read(Path(job.input.manifest)), job.params.settings
    warnings = decode.decode(
        images,
        Path(job.params.folder),
        Path(job.output.pixels),
        one_size=job.params.one_size,
        geometry=Geometry.from_config(settings["resize"], settings["crop"]),
        threads=job.threads,
        progress=LoggedProgress(f"decode {job.wildcards.category}"),
    )
    indexed = read_warnings(Path(job.input.warnings))
    write_warnings([*indexed, *warnings], Path(job.output.warnings))
    return {"images": len(images)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
