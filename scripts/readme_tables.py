"""Render the tables that a document such as the README shows."""

from pathlib import Path

from indad.core import atomic
from indad.core.csv_files import read_csv
from indad.evaluation import evaluate
from indad.pipeline.job import Job, run
from indad.reporting import learning_curves, results_document, tables


def main(job: Job) -> None:
    settings = job.params.settings
    layout = tables.Layout(**settings["layout"])
    measured = tables.summarise(evaluate.read([Path(job.input.metrics)]), layout)
    text = results_document.document(
        measured, layout, selected=settings["metrics"], full=settings["full"], heading="####"
    )
    if job.input.curves:
        curves = read_csv(Path(job.input.curves), learning_curves.COLUMNS, "table of curves")
        text += "\n" + learning_curves.document(
            curves,
            settings["layout"]["compared"],
            settings["methods"],
            heading="####",
            selected=settings["metrics"],
        )
    atomic.write_text(job.output.rendered, text)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
