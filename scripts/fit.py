"""Fit one method on the training features of one category."""

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from indad import methods
from indad.core.progress import LoggedProgress
from indad.data import manifest
from indad.features.settings import expected_store, geometry_of
from indad.features.store import FeatureStore
from indad.pipeline.job import Facts, Job, run, start_device


def main(job: Job) -> Facts:
    settings = job.params.settings
    method = settings["method"]
    images = manifest.read(Path(job.input.manifest))
    if method == methods.Ensemble.method:
        device, facts = start_device(job)
        return facts | {"images": fit_ensemble(job, images, device)}
    computes = methods.method_class(method).fit_computes
    device, facts = start_device(job) if computes else ("cpu", {})
    expected = expected_store(settings["extractor"], tf32=job.config["tf32"])
    with FeatureStore(job.input.features, expected) as store:
        detector = methods.create(method, settings["parameters"], seed=int(job.wildcards.seed))
        features = store.split("train")
        coresets = job.input.get("coresets")
        detector.fit(
            features,
            device=device,
            memory=job.config["memory_mb"] << 20,
            made_with=store.made_with,
            progress=LoggedProgress(f"fit {job.wildcards.category} {method}", "steps"),
            **({"coresets": coresets} if coresets else {}),
        )
        detector.save(Path(job.output.model), train_sha256=train_sha256(images))
        return facts | {"images": len(features)}


def fit_ensemble(job: Job, images: pd.DataFrame, device: str) -> int:
    """Find the scales of an ensemble's members; return the number of training images."""
    settings, seed = job.params.settings, int(job.wildcards.seed)
    ensemble = methods.create_ensemble(settings["parameters"], seed=seed)
    members, scoring = settings["members"], []
    for each in members:
        names = methods.method_class(each["method"]).score_parameters
        scoring.append({name: each["parameters"][name] for name in names})
    with ExitStack() as stack:
        stores = []
        for each, path in zip(members, job.input.features, strict=True):
            expected = expected_store(each["extractor"], tf32=job.config["tf32"])
            stores.append(stack.enter_context(FeatureStore(path, expected)))
        train = [store.split("train") for store in stores]
        ensemble.fit(
            (methods.create(each["method"], each["parameters"], seed=seed) for each in members),
            train,
            [geometry_of(store.made_with) for store in stores],
            device=device,
            memory=job.config["memory_mb"] << 20,
            progress=LoggedProgress(f"fit {job.wildcards.category} ensemble", "members"),
        )
        ensemble.check_frames(zip(images["height"], images["width"], strict=True))
        ensemble.save(
            Path(job.output.model), job.input.members, scoring, train_sha256=train_sha256(images)
        )
        return len(train[0])


def train_sha256(images: pd.DataFrame) -> list[str]:
    return images.loc[images["split"] == "train", "sha256"].tolist()


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
