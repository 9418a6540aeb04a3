"""Index one category: check all images and masks, write the manifest."""

from pathlib import Path

from indad import manifest, stage
from indad.progress import LoggedProgress


def main(job: stage.Job) -> None:
    table = manifest.build(
        Path(job.params.folder),
        threads=job.threads,
        progress=LoggedProgress(f"index {job.wildcards.category}"),
    )
    manifest.write(table, Path(job.output.manifest))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
