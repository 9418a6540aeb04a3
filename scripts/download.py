"""Download or draw one category of a data set that is not a folder of the user."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.data.public import archives, sources
from indad.pipeline.config import Config
from indad.pipeline.job import Facts, Job, run


def main(job: Job) -> Facts:
    name, category = job.wildcards.dataset, job.wildcards.category
    folder, receipt = Path(job.output.folder), Path(job.output.receipt)
    request, download = job.params.settings["request"], None
    if archive := job.input.get("archive"):
        dataset = Config.parse(job.config).datasets[name]
        missing = [
            each
            for each in dataset.categories
            if each != category and not (receipt.parent / f"{each}.json").exists()
        ]
        progress = LoggedProgress(f"unpack {name}", "MB")
        download = archives.Download(
            Path(archive), [category, *missing], dataset.archives, progress
        )
    sources.fetch(
        folder,
        receipt,
        source=request["source"],
        category=category,
        options=request["options"],
        download=download,
        progress=LoggedProgress(f"prepare {category}", "files"),
    )
    files = (path for split in ("train", "test") for path in (folder / split).rglob("*"))
    return {"images": sum(path.is_file() for path in files)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
