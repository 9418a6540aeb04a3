"""Find a place that has a public data set, download its archive if need be, and check it."""

import sys
from pathlib import Path

from indad.core import atomic
from indad.core.progress import LoggedProgress
from indad.data.public import archives
from indad.pipeline.config import Config
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    dataset = job.wildcards.dataset
    # From the whole configuration and not from parameters: another mirror is no reason to fetch
    # again what is there.
    config = Config(job.config)
    entry = config.entry(dataset)
    assert entry is not None  # the rule is for public data sets
    print(f"licence: {entry.title}: {entry.credit}", file=sys.stderr)
    found = archives.obtain(
        entry,
        config.mirrors(dataset),
        config.categories(dataset),
        config.downloads(dataset),
        progress=LoggedProgress(f"archive {dataset}", "MB"),
    )
    atomic.write_json(Path(job.output.record), found | {"credit": entry.credit})


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
