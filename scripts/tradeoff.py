"""Draw the accuracy of all experiments against their time and size."""

from pathlib import Path

from indad import evaluation, runtime, stage, tradeoff


def main(job: stage.Job) -> None:
    table = tradeoff.gather(
        evaluation.read([Path(job.input.metrics)]),
        runtime.read(Path(job.input.times)),
        job.params.models,
    )
    tradeoff.draw(table, Path(job.output.figure))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
