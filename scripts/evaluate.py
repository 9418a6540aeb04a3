"""Compute the metrics of one category, experiment and seed."""

from pathlib import Path

from indad import evaluation, scores, stage
from indad.store import FeatureStore


def main(job: stage.Job) -> None:
    with FeatureStore(job.input.features) as store:
        values = evaluation.evaluate(
            scores.read_table(Path(job.input.table)),
            scores.read_maps(Path(job.input.maps)),
            store.ground_truth(),
        )
    keys = job.wildcards
    table = evaluation.tidy(
        values,
        dataset=keys.dataset,
        category=keys.category,
        experiment=keys.experiment,
        seed=int(keys.seed),
    )
    evaluation.write(table, Path(job.output.metrics))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
