"""Compute the metrics of one category, experiment and seed, with confidence intervals."""

from pathlib import Path

from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.data.images import Geometry
from indad.evaluation import evaluate, resamples, saturated_overlap, scores
from indad.pipeline.job import Facts, Job, run


def main(job: Job) -> Facts:
    settings = job.params.settings
    run = dict(job.wildcards.items()) | {"seed": int(job.wildcards.seed)}
    images = manifest.read(Path(job.input.manifest))
    files = scores.ScoreFiles(*map(Path, (job.input.table, job.input.maps, job.input.pixels)))
    full = scores.FullSize.from_settings(job.params.folder, settings)
    scored, truth = scores.read_with_truth(files, images, full)
    table = scored.table
    pixels = evaluate.PixelScores(scored.maps, truth, Path(job.output.metrics).parent)
    values = evaluate.evaluate(table, pixels)
    resampled = evaluate.resample(
        table, pixels, resamples=settings["resamples"], draw_seed=settings["seed"], **run
    )
    resamples.write(resampled, Path(job.output.resamples))
    bounds = None
    if settings["resamples"]:
        bounds = evaluate.intervals(values, resampled, level=settings["level"])
    asked, defects = settings.get("metrics", ()), None
    if "spro_05" in asked:
        geometry = None if full else Geometry.from_config(settings["resize"], settings["crop"])
        test = images[images["split"] == "test"]
        defects = saturated_overlap.read_defects(test, Path(job.params.folder), geometry)
    # After the intervals, which these metrics do not have.
    values |= evaluate.optional_metrics(asked, pixels, defects)
    write_csv(evaluate.tidy(values, bounds, **run), Path(job.output.metrics))
    return {"images": len(table)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
