"""Index one category: check all images and masks, write the manifest."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.data.data_warnings import write_warnings
from indad.data.folder_layout import Reading
from indad.pipeline.job import Facts, Job, run


def main(job: Job) -> Facts:
    found = manifest.index(
        Path(job.params.folder),
        Reading.from_config(job.params.settings["reading"]),
        threads=job.threads,
        progress=LoggedProgress(f"index {job.wildcards.category}"),
    )
    write_warnings(found.warnings, Path(job.output.warnings))
    manifest.write(found.table, Path(job.output.manifest))
    return {"images": len(found.table)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
