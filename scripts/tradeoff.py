"""Draw the accuracy of all experiments against their time and size."""

from pathlib import Path

from indad.core.csv_files import read_csv
from indad.evaluation import evaluate
from indad.pipeline.job import Job, run
from indad.reporting import runtime, tradeoff


def main(job: Job) -> None:
    table = tradeoff.gather(
        evaluate.read([Path(job.input.metrics)]),
        read_csv(Path(job.input.times), runtime.COLUMNS, "table of run times"),
        job.params.settings["models"],
    )
    tradeoff.draw(table, Path(job.output.figure))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
