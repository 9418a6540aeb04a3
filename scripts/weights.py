"""Download timm's pretrained weights of a backbone, once for all jobs that run it."""

from pathlib import Path

from indad import stage


def main(job: stage.Job) -> None:
    from indad.backbone import download_weights

    download_weights(job.wildcards.backbone, Path(job.output.weights))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
