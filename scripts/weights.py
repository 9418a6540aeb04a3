"""Download timm's pretrained weights of a backbone, once for all jobs that run it."""

from pathlib import Path

from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    from indad.features.backbone import download_weights

    download_weights(job.wildcards.backbone, Path(job.output.weights))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
