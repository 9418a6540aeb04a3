"""Score the test images of one category with one fitted model."""

from pathlib import Path

from indad import methods, scores, stage
from indad.extractor import expected_store
from indad.progress import LoggedProgress
from indad.store import FeatureStore


def main(job: stage.Job) -> None:
    device = stage.use_device(job.config, job.threads)
    with FeatureStore(job.input.features, expected_store(job.params.extractor)) as store:
        detector = methods.load(
            job.input.model,
            gallery=store.split("train"),
            device=device,
            parameters=job.params.parameters,
        )
        detector.check_features(store.made_with)
        detector.memory = job.config["memory_mb"] << 20
        result = detector.score(
            store.split("test"),
            progress=LoggedProgress(f"score {job.wildcards.category} {job.wildcards.experiment}"),
        )
        scores.write(result, store.ground_truth(), Path(job.output.table), Path(job.output.maps))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
