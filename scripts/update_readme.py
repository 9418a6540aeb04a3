"""Rewrite the result tables of the README between their markers, and copy its pictures."""

from pathlib import Path

from indad import atomic, evaluation, pictures, readme, stage, tables


def main(job: stage.Job) -> None:
    settings = job.params.readme
    document = Path(settings["file"])
    metrics = evaluation.read([Path(job.input.metrics)])
    text = tables.document(
        metrics,
        job.params.experiments,
        selected=settings["metrics"],
        notes=job.params.notes,
        heading="####",
    )
    readme.update(document, settings["block"], text)
    for name, sheet in zip(settings["pictures"], job.input.pictures, strict=True):
        copy = document.parent / "docs" / settings["block"] / f"{name.replace('/', '_')}.png"
        pictures.shrink(Path(sheet), copy)
    atomic.write_text(job.output.rendered, text)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
