"""Score the test images of one category with one fitted model."""

import os
from pathlib import Path

from indad import methods
from indad.core import provenance
from indad.core.device import use_device
from indad.core.progress import LoggedProgress
from indad.evaluation import calibration, scores
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.pipeline.job import Job, run


def main(job: Job) -> None:
    device = use_device(job.config, job.threads)
    with FeatureStore(
        job.input.features, expected_store(job.params.extractor, tf32=job.config["tf32"])
    ) as store:
        detector = methods.load(
            job.input.model,
            gallery=store.split("train"),
            device=device,
            memory=job.config["memory_mb"] << 20,
            parameters=job.params.parameters,
        )
        detector.check_features(store.made_with)
        result = detector.score(
            store.split("test"),
            progress=LoggedProgress(f"score {job.wildcards.category} {job.wildcards.experiment}"),
        )
        truth = store.ground_truth()
        normal, good, defective = calibration.collect(result.image, result.maps, truth.label)
        target = Path(job.output.calibration)
        calibration.Calibration(
            experiment=job.wildcards.experiment,
            dataset=job.wildcards.dataset,
            category=job.wildcards.category,
            seed=int(job.wildcards.seed),
            model=os.path.relpath(job.input.model, target.parent),
            model_identity=calibration.identity(methods.read_header(job.input.model, verify=False)),
            parameters=dict(job.params.parameters),
            normal=normal,
            good=good,
            defective=defective,
        ).write(target)
        scores.write(
            result,
            truth,
            Path(job.output.table),
            Path(job.output.maps),
            {
                "method": detector.method,
                "method_version": detector.version,
                "parameters": detector.parameters,
                **{
                    kind: provenance.recorded_digest(kind, Path(path))
                    for kind, path in (
                        ("features", job.input.features),
                        ("model", job.input.model),
                        ("calibration", target),
                    )
                },
                "features_made_with": store.made_with,
                **provenance.here(device),
            },
        )


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
