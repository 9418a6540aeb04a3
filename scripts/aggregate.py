"""Gather all metrics into one tidy CSV, tables (Markdown, LaTeX, CSV) and their provenance."""

from pathlib import Path

from indad.core import atomic, provenance
from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.data.data_warnings import read_all
from indad.evaluation import counts, evaluate
from indad.pipeline.job import Job, run
from indad.reporting import results_document, tables


def main(job: Job) -> None:
    settings = job.params.settings
    results = Path(job.config["results"])
    scored, evaluated = (list(map(Path, job.input[name])) for name in ("scored", "evaluated"))
    runs, digests = provenance.gather(results, scored, evaluated)
    metrics = evaluate.read(map(Path, job.input.metrics))
    write_csv(metrics, Path(job.output.metrics))
    write_csv(evaluate.averages(metrics), Path(job.output.averages))
    layout = tables.Layout(**settings["layout"])
    measured = tables.summarise(metrics, layout)
    for metric, page, text, data in zip(
        layout.titles, job.output.pages, job.output.latex, job.output.data, strict=True
    ):
        document = results_document.document(measured, layout, selected=[metric], full=True)
        atomic.write_text(page, document)
        atomic.write_text(text, results_document.latex(measured, metric, layout))
        write_csv(tables.select(measured, metric=metric), Path(data))
    write_csv(tables.with_published(measured, layout), Path(job.output.published))
    manifests = {
        (path.parent.name, path.stem): manifest.read(path)
        for path in map(Path, job.input.manifests)
    }
    images = counts.images(manifests)
    write_csv(images, Path(job.output.images))
    warnings = read_all(map(Path, job.input.warnings))
    noted = [f"{dataset}, {each.category}: {each}." for dataset, each in warnings]
    summary = results_document.document(measured, layout, selected=tables.SUMMARY, remarks=noted)
    atomic.write_text(job.output.summary, summary)
    everything = results_document.document(
        measured, layout, full=True, counts=images, remarks=noted
    )
    atomic.write_text(job.output.document, f"# Results\n\n{everything}\n{provenance.line(runs)}")
    last = (job.output.provenance, job.output.record)
    made = [Path(path) for path in job.output if path not in last]
    provenance.write(Path(job.output.provenance), runs, digests, settings["data"], made)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
