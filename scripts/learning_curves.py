"""Draw and tabulate the accuracy against the number of training images."""

from pathlib import Path

from indad.core import atomic
from indad.core.csv_files import read_csv, write_csv
from indad.evaluation import counts, evaluate, resamples
from indad.pipeline.job import Job, run
from indad.reporting import learning_curves


def main(job: Job) -> None:
    settings = job.params.settings
    images = read_csv(Path(job.input.images), counts.IMAGE_COLUMNS, "table of images")
    trained = {
        (dataset, row["category"]): row["train"]
        for dataset, rows in images.groupby("dataset", sort=False)
        for row in counts.by_category(rows)
    }
    metrics = evaluate.read([Path(job.input.metrics)])
    runs = map(resamples.read, map(Path, job.input.resamples))
    table = learning_curves.gather(metrics, settings["sweeps"], trained, runs)
    write_csv(table, Path(job.output.table))
    compared, methods = settings["compared"], settings["methods"]
    atomic.write_text(job.output.document, learning_curves.document(table, compared, methods))
    with atomic.replacing(job.output.figures) as folder:
        folder.mkdir()
        for dataset in table["dataset"].unique():
            learning_curves.draw(
                table,
                dataset,
                folder / f"{dataset}.png",
                compared=compared.get(dataset, ""),
                methods=methods,
            )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
