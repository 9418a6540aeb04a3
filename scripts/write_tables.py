"""Gather all metrics into one tidy CSV, tables (Markdown, LaTeX, CSV) and their provenance.

Not called tabulate.py: that would hide the package of that name from every script beside it.
"""

from pathlib import Path

from indad.core import atomic, provenance
from indad.core.csv_files import write_csv
from indad.data import data_warnings, manifest
from indad.data.decode import Pixels
from indad.evaluation import counts, evaluate
from indad.pipeline.job import Job, run
from indad.reporting import results_document, tables
from indad.reporting.latex import latex


def main(job: Job) -> None:
    records = [
        provenance.read_record(Path(record), Path(metrics))
        for record, metrics in zip(job.input.records, job.input.metrics, strict=True)
    ]
    metrics = evaluate.read(map(Path, job.input.metrics))
    write_csv(metrics, Path(job.output.metrics))
    layout = tables.Layout(**job.params.layout)
    measured = tables.summarise(metrics, layout)
    for metric, page, text, data in zip(
        tables.TITLES, job.output.pages, job.output.latex, job.output.data, strict=True
    ):
        document = results_document.document(measured, layout, selected=[metric], full=True)
        atomic.write_text(page, document)
        atomic.write_text(text, latex(measured, metric, layout))
        write_csv(tables.select(measured, metric=metric), Path(data))
    write_csv(tables.beside(measured, layout), Path(job.output.published))
    manifests = {
        (path.parent.name, path.stem): manifest.read(path)
        for path in map(Path, job.input.manifests)
    }
    images = counts.images(manifests)
    write_csv(images, Path(job.output.images))
    noted = []
    for path in map(Path, job.input.pixels):
        dataset, category = path.parts[-3:-1]
        table = manifests[dataset, category]
        with Pixels(path, table) as pixels:
            found = data_warnings.of_results(table, pixels)
            noted += [f"{dataset}, {category}: {each}." for each in found]
    summary = results_document.document(measured, layout, selected=tables.SUMMARY, remarks=noted)
    atomic.write_text(job.output.summary, summary)
    everything = results_document.document(
        measured, layout, full=True, counts=images, remarks=noted
    )
    atomic.write_text(job.output.document, f"# Results\n\n{everything}\n{provenance.line(records)}")
    made = [path for path in job.output if path != job.output.provenance]
    provenance.write(Path(job.output.provenance), records, job.params.runs, list(map(Path, made)))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
