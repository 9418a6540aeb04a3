"""Gather all metrics into one tidy CSV and into markdown tables.

Not called tabulate.py: that would hide the package of that name from every script beside it.
"""

from pathlib import Path

from indad import atomic, evaluation, stage, tables


def main(job: stage.Job) -> None:
    metrics = evaluation.read(map(Path, job.input.metrics))
    evaluation.write(metrics, Path(job.output.metrics))
    experiments, notes = job.params.experiments, job.params.notes
    for path in map(Path, job.output.tables):
        text = tables.document(metrics, experiments, selected=[path.stem], notes=notes)
        atomic.write_text(path, text)
    summary = tables.document(metrics, experiments, selected=tables.SUMMARY, notes=notes)
    atomic.write_text(job.output.summary, summary)
    atomic.write_text(
        job.output.document,
        "# Results\n\n" + tables.document(metrics, experiments, notes=notes),
    )


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
