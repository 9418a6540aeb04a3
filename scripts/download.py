"""Make one category of a data set that is not the user's own folder."""

from pathlib import Path

from indad import sources, stage
from indad.progress import LoggedProgress


def main(job: stage.Job) -> None:
    sources.fetch(
        Path(job.output.folder),
        Path(job.output.receipt),
        source=job.params.request["source"],
        category=job.wildcards.category,
        options=job.params.request["options"],
        progress=LoggedProgress(f"download {job.wildcards.category}", "files"),
    )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
