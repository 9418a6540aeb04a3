"""Render the tables that a document such as the README shows."""

from pathlib import Path

from indad.core import atomic
from indad.evaluation import evaluate
from indad.pipeline.job import Job, run
from indad.reporting import results_document, tables


def main(job: Job) -> None:
    settings = job.params.settings
    layout = tables.Layout(**settings["layout"])
    measured = tables.summarise(evaluate.read([Path(job.input.metrics)]), layout)
    text = results_document.document(
        measured, layout, selected=settings["metrics"], full=settings["full"], heading="####"
    )
    atomic.write_text(job.output.rendered, text)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
