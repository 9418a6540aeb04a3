"""Put all results into one HTML page that needs nothing else."""

from pathlib import Path

import yaml

from indad.data.data_warnings import read_all
from indad.pipeline.job import Job, run
from indad.reporting import report


def main(job: Job) -> None:
    settings = job.params.settings
    headings = ("Typical images", "Clear, hard and wrong", "Curves", "Scores")
    pictures = zip(
        job.input.typical, job.input.cases, job.input.curves, job.input.scores, strict=True
    )
    categories = [
        report.Category(*names, dict(zip(headings, map(Path, files), strict=True)), Path(defects))
        for names, files, defects in zip(
            job.params.categories, pictures, job.input.defects, strict=True
        )
    ]
    files = (
        "images", "counts", "comparisons", "ranks", "diagrams", "runtime", "tradeoff", "provenance",
    )  # fmt: skip
    sources = report.Sources(
        metrics=[Path(path) for path in job.input.metrics],
        categories=categories,
        config=yaml.safe_dump(settings["config"], sort_keys=False, allow_unicode=True),
        data_warnings=read_all(map(Path, job.input.warnings)),
        curve_points=Path(job.input.points) if job.input.points else None,
        curve_figures=Path(job.input.learning) if job.input.learning else None,
        **{name: settings[name] for name in ("experiments", "models", "notes", "level")},
        **{name: Path(job.input[name]) for name in files},
    )
    report.write(sources, Path(job.output.page), threads=job.threads)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
