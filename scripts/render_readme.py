"""Render the tables that a document such as the README shows."""

from pathlib import Path

from indad import atomic, evaluation, stage, tables


def main(job: stage.Job) -> None:
    layout = tables.Layout(**job.params.layout)
    measured = tables.summarise(evaluation.read([Path(job.input.metrics)]), layout)
    text = tables.document(measured, layout, selected=job.params.metrics, heading="####")
    atomic.write_text(job.output.rendered, text)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
