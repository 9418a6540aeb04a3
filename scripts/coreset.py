"""Choose the coresets of some parts of the training images of one category, for the fit."""

from pathlib import Path

from indad.core.progress import LoggedProgress
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.methods.patchcore import PatchCore
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    device, facts = start_device(job)
    settings, wildcards = job.params.settings, job.wildcards
    parameters = settings["parameters"] | {"coreset_ratio": job.params.coreset_ratio}
    number, jobs = map(int, wildcards.part.split("of"))
    expected = expected_store(settings["extractor"], tf32=job.config["tf32"])
    with FeatureStore(job.input.features, expected) as store:
        PatchCore(**parameters, seed=int(wildcards.seed)).choose_parts(
            store.split("train"),
            Path(job.output.coresets),
            number - 1,
            jobs,
            device=device,
            memory=job.config["memory_mb"] << 20,
            progress=LoggedProgress(f"coreset {wildcards.category} {wildcards.part}", "parts"),
        )
    return facts


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
