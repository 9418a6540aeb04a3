"""Gather all metrics into one tidy CSV, tables (Markdown, LaTeX, CSV) and their provenance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indad.core import atomic, provenance
from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.data.check import result_warnings
from indad.data.decode import Pixels
from indad.evaluation import counts, evaluate
from indad.pipeline.job import Job, run
from indad.reporting import results_document, tables


def main(job: Job) -> None:
    settings = job.params.settings
    records = [
        provenance.read_record(Path(record), Path(metrics))
        for record, metrics in zip(job.input.provenance, job.input.metrics, strict=True)
    ]
    metrics = evaluate.read(map(Path, job.input.metrics))
    write_csv(metrics, Path(job.output.metrics))
    layout = tables.Layout(**settings["layout"])
    measured = tables.summarise(metrics, layout)
    for metric, page, text, data in zip(
        tables.TITLES, job.output.pages, job.output.latex, job.output.data, strict=True
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
    noted = []
    for path in map(Path, job.input.pixels):
        dataset, category = path.parts[-3:-1]
        table = manifests[dataset, category]
        with Pixels(path, table) as pixels:
            found = result_warnings(table, pixels)
            noted += [f"{dataset}, {category}: {each}." for each in found]
    summary = results_document.document(measured, layout, selected=tables.SUMMARY, remarks=noted)
    atomic.write_text(job.output.summary, summary)
    everything = results_document.document(
        measured, layout, full=True, counts=images, remarks=noted
    )
    atomic.write_text(job.output.document, f"# Results\n\n{everything}\n{provenance.line(records)}")
    last = (job.output.provenance, job.output.record)
    made = [Path(path) for path in job.output if path not in last]
    runs = [run_files(record["keys"], settings) for record in records]
    provenance.write(Path(job.output.provenance), records, runs, made)


def run_files(keys: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the products that one run's metrics come from, relative to the results."""
    dataset, category, experiment, seed = (keys[name] for name in provenance.KEYS)
    at, run = f"{dataset}/{category}", f"{dataset}/{category}/{experiment}/seed{seed}"
    model, extractor = settings["models"][experiment]
    return {
        "folder": str(Path(settings["data"][dataset], category)),
        "manifest": f"manifests/{at}.csv",
        "pixels": f"pixels/{at}/{settings['geometries'][extractor]}.h5",
        "features": f"features/{at}/{extractor}.h5",
        "model": f"models/{at}/{model}/seed{seed}.safetensors",
        "scores": f"scores/{run}/scores.csv",
        "maps": f"scores/{run}/maps.h5",
        "calibration": f"scores/{run}/calibration.json",
        "metrics": f"metrics/{run}.csv",
        "resamples": f"metrics/{run}.h5",
    }


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
