"""Index one category: check all images and masks, write the manifest."""

from pathlib import Path

from indad import manifest, stage
from indad.progress import LoggedProgress
from indad.reading import Reading


def main(job: stage.Job) -> None:
    table = manifest.build(
        Path(job.params.folder),
        Reading.from_config(job.params.get("reading", {})),
        threads=job.threads,
        progress=LoggedProgress(f"index {job.wildcards.category}"),
    )
    manifest.write(table, Path(job.output.manifest))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
