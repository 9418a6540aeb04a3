"""Compute the metrics of one category, experiment and seed, and how sure they are."""

from pathlib import Path

from indad import evaluation, metrics, resamples, scores, stage
from indad.store import FeatureStore


def main(job: stage.Job) -> None:
    keys, settings = job.wildcards, job.params.uncertainty
    with FeatureStore(job.input.features) as store:
        truth = store.ground_truth()
    table, maps = scores.read_table(Path(job.input.table)), scores.read_maps(Path(job.input.maps))
    values = evaluation.evaluate(table, maps, truth)
    drawn, bounds = {}, None
    image_scores = table["score"].to_numpy()
    if settings["resamples"]:
        drawn = evaluation.resample(
            table, maps, truth, resamples=settings["resamples"], seed=settings["seed"]
        )
        bounds = evaluation.intervals(values, drawn, image_scores, truth, level=settings["level"])
    run = {
        "dataset": keys.dataset,
        "category": keys.category,
        "experiment": keys.experiment,
        "seed": int(keys.seed),
    }
    regions = metrics.regions(truth.mask)
    resamples.write(
        resamples.Resamples(
            **run,
            image=truth.image,
            label=truth.label,
            score=image_scores,
            values=drawn,
            draw_seed=settings["seed"],
            n_masks=int(truth.mask.any(axis=(1, 2)).sum()),
            n_regions=int(regions.max(initial=0)),
        ),
        Path(job.output.resamples),
    )
    evaluation.write(evaluation.tidy(values, bounds, **run), Path(job.output.metrics))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
