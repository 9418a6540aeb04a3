"""Put all results into one HTML page that needs nothing else."""

from pathlib import Path

import yaml

from indad.pipeline.job import Job, run
from indad.reporting import report


def main(job: Job) -> None:
    settings = job.params.settings
    categories = [
        report.Category(
            dataset,
            name,
            {
                "Typical images": Path(typical),
                "Clear, hard and wrong": Path(cases),
                "Curves": Path(curves),
                "Scores": Path(scores),
            },
            Path(defects),
        )
        for (dataset, name), typical, cases, curves, scores, defects in zip(
            job.params.categories,
            job.input.typical,
            job.input.cases,
            job.input.curves,
            job.input.scores,
            job.input.defects,
            strict=True,
        )
    ]
    sources = report.Sources(
        metrics=[Path(path) for path in job.input.metrics],
        categories=categories,
        experiments=settings["experiments"],
        notes=settings["notes"],
        config=yaml.safe_dump(settings["config"], sort_keys=False, allow_unicode=True),
        images=Path(job.input.images),
        counts=Path(job.input.counts),
        comparisons=Path(job.input.comparisons),
        ranks=Path(job.input.ranks),
        diagrams=sorted(Path(job.input.diagrams).glob("*.png")),
        runtime=Path(job.input.runtime),
        tradeoff=Path(job.input.tradeoff),
        provenance=Path(job.input.provenance),
        level=settings["level"],
    )
    report.write(sources, Path(job.output.page), threads=job.threads)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
