"""Find a place that has a public data set, download its archive if necessary, and check it."""

import sys
from pathlib import Path

from indad.core import checksum
from indad.core.progress import LoggedProgress
from indad.data.public import archives
from indad.pipeline.config import Config
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    name = job.wildcards.dataset
    # Mirrors come from the configuration and are not a setting of the job: another mirror is no
    # reason to fetch again what is there.
    dataset = Config.parse(job.config).datasets[name]
    entry = dataset.entry
    assert entry is not None  # the rule is for public data sets
    print(f"licence: {entry.title}: {entry.credit}", file=sys.stderr)
    found = archives.obtain(
        entry,
        dataset.mirrors,
        dataset.categories,
        dataset.archives,
        progress=LoggedProgress(f"archive {name}", "MB"),
    )
    checksum.write_json(Path(job.output.found), found | {"credit": entry.credit})


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
