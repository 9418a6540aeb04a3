"""Fit one method on the training features of one category."""

from pathlib import Path

from indad import methods
from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    device, facts = start_device(job)
    settings = job.params.settings
    method = settings["method"]
    expected = expected_store(settings["extractor"], tf32=job.config["tf32"])
    with FeatureStore(job.input.features, expected) as store:
        detector = methods.create(method, settings["parameters"], seed=int(job.wildcards.seed))
        features = store.split("train")
        detector.fit(
            features,
            device=device,
            memory=job.config["memory_mb"] << 20,
            made_with=store.made_with,
            progress=LoggedProgress(f"fit {job.wildcards.category} {method}", "steps"),
        )
        images = manifest.read(Path(job.input.manifest))
        train = images.loc[images["split"] == "train", "sha256"]
        detector.save(Path(job.output.model), train_sha256=train.tolist())
        return facts | {"images": len(features)}


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
