"""Fit one method on the training features of one category."""

from pathlib import Path

from indad import methods
from indad.core.device import use_device
from indad.core.progress import LoggedProgress
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    device = use_device(job.config, job.threads)
    model = job.params.model
    with FeatureStore(
        job.input.features, expected_store(job.params.extractor, tf32=job.config["tf32"])
    ) as store:
        detector = methods.create(
            model["method"], model["parameters"], seed=int(job.wildcards.seed)
        )
        detector.fit(
            store.split("train"),
            device=device,
            memory=job.config["memory_mb"] << 20,
            made_with=store.made_with,
            progress=LoggedProgress(f"fit {job.wildcards.category} {model['method']}", "steps"),
        )
        detector.save(Path(job.output.model))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
