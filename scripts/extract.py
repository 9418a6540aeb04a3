"""Extract the features of one category with one backbone into an HDF5 store."""

from pathlib import Path

from indad.core.device import import_large
from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.features.cache import FeatureCache
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    # With a single thread torch computes 1 x 1 convolutions with another library, which rounds
    # differently: never one, so that `--cores 1` gives the same features as any other number.
    device, facts = start_device(job, max(2, job.threads))
    images, features = manifest.read(Path(job.input.manifest)), Path(job.output.features)
    extractor = job.params.settings["extractor"]
    facts["images"] = len(images)
    file, folder = job.input.get("weights"), job.config.get("cache")
    weights = Path(file) if file else None
    cache = folder and FeatureCache(
        Path(folder), images, extractor, weights, device=device, tf32=job.config["tf32"]
    )
    if cache and cache.take(features):
        return facts | {"cached": True}
    import_large("indad.features.extract")
    from indad.features.extract import extract

    extract(
        images,
        Path(job.input.pixels),
        features,
        extractor=extractor,
        weights=weights,
        device=device,
        batch_size=job.config["batch_size"],
        progress=LoggedProgress(f"extract {job.wildcards.category} {job.wildcards.extractor}"),
    )
    if cache:
        cache.keep(features)
    return facts


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
