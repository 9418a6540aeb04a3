"""Extract the features of one category with one backbone into an HDF5 store."""

from pathlib import Path

from indad.core.device import use_device
from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.features.cache import FeatureCache
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    # With a single thread torch computes 1 x 1 convolutions by another library, which rounds
    # otherwise: never one, so that the features of `--cores 1` are those of any other number.
    device = use_device(job.config, max(2, job.threads))
    images, features = manifest.read(Path(job.input.manifest)), Path(job.output.features)
    file = job.input.get("weights")
    weights = Path(file) if file else None
    cache = None
    if folder := job.config.get("cache"):
        cache = FeatureCache(
            Path(folder),
            images,
            job.params.extractor,
            weights,
            device=device,
            tf32=job.config["tf32"],
        )
        if cache.take(features):
            return
    from indad.features.extract import extract

    extract(
        images,
        Path(job.input.pixels),
        features,
        extractor=job.params.extractor,
        weights=weights,
        device=device,
        batch_size=job.config["batch_size"],
        progress=LoggedProgress(f"extract {job.wildcards.category} {job.wildcards.extractor}"),
    )
    if cache:
        cache.keep(features)


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
