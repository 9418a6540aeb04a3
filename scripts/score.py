"""Score the test images of one category with one fitted model."""

import os
from pathlib import Path

from indad import methods
from indad.core import checksum, provenance
from indad.core.progress import LoggedProgress
from indad.evaluation import calibration, scores
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.methods.base import Detector
from indad.methods.model_file import read_header
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    device, facts = start_device(job)
    settings = job.params.settings
    parameters = dict(settings["parameters"])
    expected = expected_store(settings["extractor"], tf32=job.config["tf32"])
    with FeatureStore(job.input.features, expected) as store:
        detector = methods.load(
            job.input.model,
            gallery=store.split("train"),
            device=device,
            memory=job.config["memory_mb"] << 20,
            parameters=parameters,
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
            model_identity=calibration.identity(read_header(job.input.model, verify=False)),
            parameters=parameters,
            normal=normal,
            good=good,
            defective=defective,
        ).write(target)
        files = {"features": job.input.features, "model": job.input.model, "calibration": target}
        made_with = {
            "method": detector.method,
            "method_version": detector.version,
            "parameters": detector.parameters,
            **{name: checksum.recorded_digest(Path(file)) for name, file in files.items()},
            "features_made_with": store.made_with,
            **provenance.here(device),
        }
        scores.write(result, truth, Path(job.output.table), Path(job.output.maps), made_with)
        size = model_mb(Path(job.input.model), detector, store)
        return facts | {"images": len(truth.label), "model_mb": size, "made_with": made_with}


def model_mb(model: Path, detector: Detector, store: FeatureStore) -> float:
    """Return the megabytes that scoring reads: the used part of the model, and its gallery."""
    fitted = read_header(model, verify=False)["parameters"]
    size = detector.scored_share(detector.parameters, fitted) * model.stat().st_size
    if detector.needs_gallery:
        size += store.split("train").stored_bytes(detector.layers)
    return size / 1e6


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
