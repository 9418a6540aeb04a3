"""Make one category of a data set that is not the user's own folder."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data.public import fetch
from indad.pipeline.config import Config
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    dataset, category = job.wildcards.dataset, job.wildcards.category
    receipt = Path(job.output.receipt)
    download = None
    if record := job.input.get("record"):
        config = Config(job.config)
        others = (each for each in config.categories(dataset) if each != category)
        download = fetch.Download(
            Path(record),
            [
                category,
                *(each for each in others if not (receipt.parent / f"{each}.json").exists()),
            ],
            config.downloads(dataset),
            LoggedProgress(f"unpack {dataset}", "MB"),
        )
    fetch.fetch(
        Path(job.output.folder),
        receipt,
        source=job.params.request["source"],
        category=category,
        options=job.params.request["options"],
        download=download,
        progress=LoggedProgress(f"prepare {category}", "files"),
    )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
