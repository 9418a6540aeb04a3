"""Rewrite the result tables of the README between their markers, and copy its pictures; or check
that they are up to date and change nothing.
"""

from pathlib import Path

from indad.core.errors import DataError
from indad.pipeline.job import Job, run
from indad.reporting import readme


def main(job: Job) -> None:
    settings = job.params.readme
    document, block = Path(settings["file"]), settings["block"]
    rendered = Path(job.input.rendered).read_text(encoding="utf-8")
    if job.params.check:
        if changes := readme.difference(document, block, rendered):
            raise DataError(
                f"{document}: block '{block}' is not what {job.input.rendered} has. Run "
                "`snakemake readme` with the same configuration, or keep the block as a record of "
                f"another run. The document (-) and the results (+):\n{changes}"
            )
        return
    readme.update(document, block, rendered)
    pictures = dict(zip(settings["pictures"], map(Path, job.input.pictures), strict=True))
    if job.input.curves:
        figures = Path(job.input.curves).glob("*.png")
        pictures |= {f"learning_curves/{figure.stem}": figure for figure in figures}
    docs = document.parent if document.parent.name == "docs" else document.parent / "docs"
    for name, picture in pictures.items():
        readme.shrink(picture, docs / block / f"{name.replace('/', '_')}.png")


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
