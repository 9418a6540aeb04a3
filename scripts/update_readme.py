"""Rewrite the result tables of the README between their markers, and copy its pictures."""

import shutil
from pathlib import Path

from indad import atomic, evaluation, readme, stage, tables


def main(job: stage.Job) -> None:
    settings = job.params.readme
    metrics = evaluation.read([Path(job.input.metrics)])
    text = tables.document(
        metrics,
        job.params.experiments,
        selected=settings["metrics"],
        notes=job.params.notes,
        heading="####",
    )
    readme.update(Path(settings["file"]), settings["block"], text)
    if settings.get("pictures"):
        for picture in map(Path, job.input.pictures):
            with atomic.replacing(
                Path(settings["pictures"]) / f"{picture.parent.name}_{picture.name}"
            ) as temporary:
                shutil.copyfile(picture, temporary)
    atomic.write_text(job.output.rendered, text)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
