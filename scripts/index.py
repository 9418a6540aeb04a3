"""Index one category: check all images and masks, write the manifest."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.data.folder_layout import Reading
from indad.pipeline.job import Facts, Job, run


def main(job: Job) -> Facts:
    table = manifest.build(
        Path(job.params.folder),
        Reading.from_config(job.params.settings["reading"]),
        threads=job.threads,
        progress=LoggedProgress(f"index {job.wildcards.category}"),
    )
    manifest.write(table, Path(job.output.manifest))
    return {"images": len(table)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
