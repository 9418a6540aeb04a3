"""Draw the accuracy of all experiments against their time and size."""

from pathlib import Path

from indad import evaluation, manifest, stage, tradeoff


def main(job: stage.Job) -> None:
    counts = {}
    for run in job.params.runs:
        path = run["manifest"]
        if path not in counts:
            counts[path] = manifest.read(Path(path))["split"].value_counts()
    runs = [
        run | {split: int(counts[run["manifest"]][split]) for split in ("train", "test")}
        for run in job.params.runs
    ]
    table = tradeoff.gather(evaluation.read([Path(job.input.metrics)]), runs)
    tradeoff.draw(table, Path(job.output.figure))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
