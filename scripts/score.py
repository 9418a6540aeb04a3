"""Score the test images of one category with one fitted model."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indad import methods
from indad.core import checksum, provenance
from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.data.decode import Pixels
from indad.data.ground_truth import GroundTruth
from indad.evaluation import calibration, scores
from indad.features.settings import expected_store
from indad.features.store import FeatureStore
from indad.methods.base import Detector, Scores
from indad.methods.ensemble import Ensemble
from indad.methods.model_file import read_header
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    if job.params.settings.get("method") == Ensemble.method:
        return combine(job)
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
        test, truth = store.split("test"), store.ground_truth()
        numbers = store.numbers("test")
        label = f"score {job.wildcards.category} {job.wildcards.experiment}"
        batches = (
            (numbers[part], batch)
            for part, batch in detector.score_batches(test, progress=LoggedProgress(label))
        )
        room = 4 * sum(math.prod(test.size_of(image)) for image in range(len(test)))
        made_with = {
            "method": detector.method,
            "method_version": detector.version,
            "parameters": detector.parameters,
            "features": checksum.recorded_digest(Path(job.input.features)),
            "features_made_with": store.made_with,
            **provenance.here(device),
        }
        made_with = write(job, batches, room, truth, parameters, made_with)
        size = model_mb(Path(job.input.model), detector, store)
        facts |= {"images": len(truth.image), "model_mb": size, "made_with": made_with}
        return facts | detector.facts


def combine(job: Job) -> Facts:
    """Average the scores of an ensemble's members."""
    images = manifest.read(Path(job.input.manifest))
    ensemble, _ = Ensemble.load(job.input.model)
    members, made_of = [], {}
    for name, *paths in zip(ensemble.members, job.input.tables, job.input.maps, strict=True):
        scored = scores.read(*map(Path, paths))
        scores.check_images(scored.made_with, images, Path(paths[1]))
        members.append(Scores(scored.table["score"].to_numpy(np.float32), scored.maps))
        made_of[name] = scored.made_with
    with Pixels(Path(job.input.pixels), images) as pixels:
        truth = pixels.ground_truth(images)
    test = images[images["split"] == "test"]
    sizes = list(zip(test["height"], test["width"], strict=True))
    scales = ensemble.scales(members)
    batches = (
        ([i], ensemble.combine([each.of([i]) for each in members], [sizes[i]], scales))
        for i in range(len(sizes))
    )
    first = next(iter(made_of.values()))
    made_with = first | {
        "method": ensemble.method,
        "method_version": ensemble.version,
        "parameters": ensemble.parameters,
        "members": made_of,
    }
    room = 4 * sum(values.size for values in members[0].maps)
    made_with = write(job, batches, room, truth, {}, made_with)
    # What scoring reads of the members is in their own records.
    size = Path(job.input.model).stat().st_size / 1e6
    return {"images": len(sizes), "model_mb": size, "made_with": made_with}


def write(
    job: Job,
    batches: Iterable[tuple[Sequence[int], Scores]],
    room: int,
    truth: GroundTruth,
    parameters: dict,
    made_with: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the scores and their calibration; return what they were made with."""
    target, table = Path(job.output.calibration), Path(job.output.table)
    with scores.create(truth, table, Path(job.output.maps), room) as writer:
        for images, batch in batches:
            writer.write(images, batch)
        normal = writer.normal(table.parent)
        good, defective = calibration.collect(writer.scores, writer.peaks, truth.label)
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
        files = {"model": Path(job.input.model), "calibration": target}
        digests = {name: checksum.recorded_digest(file) for name, file in files.items()}
        complete = {**made_with, **digests}
        writer.finish(normal, complete)
    return complete


def model_mb(model: Path, detector: Detector, store: FeatureStore) -> float:
    """Return the megabytes that scoring reads: the used part of the model, and its gallery."""
    fitted = read_header(model, verify=False)["parameters"]
    size = detector.scored_share(detector.parameters, fitted) * model.stat().st_size
    if detector.needs_gallery:
        size += store.stored_bytes("train", detector.layers_)
    return size / 1e6


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
