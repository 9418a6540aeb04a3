"""Ensembles: scales from training images, averages in one frame, jobs, models and refusals."""

from __future__ import annotations

import copy
import doctest
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import decode
import extract
import fit
import index
import score
from conftest import copied, make_features, save_image
from indad import load_model, methods
from indad.cli.override import choose_experiments, extractors_of
from indad.core.errors import ConfigError, DataError, StoreError
from indad.data.images import Geometry
from indad.evaluation import scores
from indad.methods.base import Scores
from indad.methods.ensemble import Ensemble
from indad.pipeline.config_files import load_config
from indad.pipeline.inventory import survey
from indad.pipeline.presentation import experiment_notes
from indad.pipeline.settings import category_jobs, job_settings
from predicting import job, photo
from predicting import run as predict
from small_run import METRICS, plan
from small_run import SMALL as SMALL_RUN
from test_config import BASE, config

WHOLE = Geometry(32, None)
MEMBERS = {
    "PaDiM": ("padim", {"dimensions": 5}),
    "PatchCore": ("patchcore", {"embedding": "concat", "coreset_ratio": 1.0}),
    "SPADE": ("spade", {"k_image": 2, "k_pixel": 3}),
}


def detectors(**changes) -> list:
    return [methods.create(name, given | changes) for name, given in MEMBERS.values()]


# -- scale and average ----------------------------------------------------------------------------


def test_scores_equal_the_plain_definition(rng):
    train, test = make_features(rng, 11), make_features(rng, 3)
    ensemble = Ensemble(members=list(MEMBERS), seed=4)
    ensemble.fit(detectors(), [train] * 3, [WHOLE] * 3)
    scores = [each.fit(train).score(test) for each in detectors()]
    result = ensemble.combine(scores, [(32, 32)] * 3)

    order = np.random.default_rng(4).permutation(11)
    held_out, rest = np.sort(order[:2]), np.sort(order[2:])  # a fifth, rounded down
    image, maps = np.zeros(3), np.zeros((3, 32, 32))
    for detector, member in zip(detectors(), scores, strict=True):
        unseen = detector.fit(copied(train, rest)).score(copied(train, held_out))
        image += member.image / unseen.image.mean() / 3
        maps += member.maps / unseen.maps.mean() / 3
    np.testing.assert_allclose(result.image, image, rtol=1e-5)
    np.testing.assert_allclose(result.maps, maps, rtol=1e-5)
    assert result.image.dtype == result.maps.dtype == np.float32


def test_the_images_of_shots_alone_give_the_scale(rng):
    train = make_features(rng, 11)
    few = methods.create("padim", {"dimensions": 5, "shots": 4}).draw(train)
    ensembles = [
        Ensemble(members=list(MEMBERS)).fit(members, [features] * 3, [WHOLE] * 3)
        for members, features in (
            (detectors(shots=4), train),
            (detectors(), few),
        )
    ]
    np.testing.assert_array_equal(ensembles[0].scale_, ensembles[1].scale_)


def test_a_score_does_not_depend_on_the_other_images(rng):
    train, test = make_features(rng, 6), make_features(rng, 4)
    ensemble = Ensemble(members=list(MEMBERS)).fit(detectors(), [train] * 3, [WHOLE] * 3)
    scores = [each.fit(train).score(test) for each in detectors()]
    together = ensemble.combine(scores, [(32, 32)] * 4)
    alone = ensemble.combine([Scores(s.image[2:3], s.maps[2:3]) for s in scores], [(32, 32)])
    assert together.image[2] == alone.image[0]
    np.testing.assert_array_equal(together.maps[2], alone.maps[0])


def test_scaling_by_the_test_images_is_that_of_the_authors(rng):
    scores = [
        Scores(scale * rng.random(5, np.float32), scale * rng.random((5, 8, 8), np.float32))
        for scale in (1, 300)
    ]
    ensemble = Ensemble(members=["A", "B"], scaling="test").fit([], [], [WHOLE, WHOLE])
    result = ensemble.combine(scores, [(8, 8)] * 5)
    for ours, parts in zip(result, zip(*scores, strict=True), strict=True):
        scaled = [(each - each.min()) / (each.max() - each.min()) for each in parts]
        np.testing.assert_allclose(ours, np.mean(scaled, axis=0), rtol=1e-5)
    equal = Scores(np.ones(5, np.float32), scores[0].maps)
    with pytest.raises(ConfigError, match="values of B are equal, so that they have no scale"):
        ensemble.combine([scores[0], equal], [(8, 8)] * 5)


def test_one_training_image_has_no_scale(rng):
    train = make_features(rng, 1)
    with pytest.raises(ConfigError, match="need at least 2 training images, there is 1"):
        Ensemble(members=list(MEMBERS)).fit(detectors(), [train] * 3, [WHOLE] * 3)


def test_copies_of_one_training_image_have_no_scale(rng):
    train = copied(make_features(rng, 1), np.zeros(4, int))
    with pytest.raises(ConfigError, match="PaDiM gives all training images .* the score 0"):
        Ensemble(members=["PaDiM", "B"]).fit(detectors()[:2], [train] * 2, [WHOLE] * 2)


def test_the_example_in_the_documentation():
    assert doctest.testmod(sys.modules[Ensemble.__module__]).failed == 0


# -- the frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "size", "at"),
    [
        (Geometry(64, None), (64, 64), (40, 30)),
        (Geometry(128, (112, 112)), (64, 64), (72, 52)),
        (Geometry(64, (64, 80)), (64, 96), (40, 38)),
        (Geometry((64, 64), None), (128, 128), (40, 30)),
    ],
)
def test_a_spot_stays_where_it_is_in_the_image(other, size, at):
    """At (24, 14) in the 32 x 32 pixels in the centre of an image with 64 rows."""
    first = Geometry(64, (32, 32))
    values = np.zeros((1, *other.output(*size)), np.float32)
    step = 2 if other.resize == 128 else 1
    values[0, at[0] : at[0] + step, at[1] : at[1] + step] = 1
    ensemble = Ensemble(members=["A", "B"])
    ensemble.geometries_, ensemble.scale_ = (first, other), np.ones((2, 2))
    ensemble.check_frames([size])
    nothing = Scores(np.zeros(1, np.float32), np.zeros((1, 32, 32), np.float32))
    maps = ensemble.combine([nothing, Scores(nothing.image, values)], [size]).maps[0]
    assert np.unravel_index(maps.argmax(), maps.shape) == (24, 14)


def test_rounded_corners_do_not_count_as_uncovered():
    ensemble = Ensemble(members=["A", "B"])
    ensemble.geometries_ = Geometry(256, (224, 224)), Geometry(512, (448, 448))
    ensemble.check_frames([(height, width) for height in (700, 901) for width in range(650, 999)])


def test_a_member_that_sees_less_than_the_first_is_refused():
    ensemble = Ensemble(members=["A", "B"])
    ensemble.geometries_ = Geometry(64, None), Geometry(64, (48, 48))
    ensemble.scale_ = np.ones((2, 2))
    message = "members: of images with 80 x 64 pixels, B does not see all that A sees"
    with pytest.raises(ConfigError, match=message):
        ensemble.check_frames([(64, 80)])
    maps = [np.zeros((1, *sides), np.float32) for sides in ((64, 80), (48, 48))]
    with pytest.raises(DataError, match="B does not see all that A sees"):
        ensemble.combine([Scores(np.zeros(1), each) for each in maps], [(64, 80)])


# -- the configuration ----------------------------------------------------------------------------

ENSEMBLE = {"method": "ensemble", "members": ["P1", "M"]}
TRANSDUCTIVE = ENSEMBLE | {"scaling": "test"}


def with_ensemble(run=("Both",), **changes):
    experiments = BASE["experiments"] | {"Both": ENSEMBLE} | changes
    run_of = {"run__experiments": list(run), "run__datasets": ["drawn"]}
    return config(**run_of, experiments=experiments, tf32=False)


def test_members_are_scored_and_not_shown():
    made = with_ensemble()
    both = made.experiments["Both"]
    assert list(made.experiments) == list(made.shown) == ["Both"]
    assert list(made.scored) == ["Both", "P1", "M"]
    assert [each.name for each in both.members] == ["P1", "M"]
    assert (both.extractor, both.extractors) == ("r", ["r"])
    assert set(made.models) == {each.model for each in made.scored.values()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": ["P1"]}, "Both.members: must be a list of at least two experiments"),
        ({"members": ["P1", "P1"]}, "Both.members: must be a list of at least two experiments"),
        ({"members": ["P1", "X"]}, "Both.members: 'X' is unknown; experiments known here: P10"),
        ({"members": ["P1", "Both"]}, "Both.members: Both is an ensemble; name the experiments"),
        ({"members": ["P1", "Sweep"]}, "Both.members: Sweep has several numbers of 'shots'"),
        ({"members": ["P1", "Few"]}, r"different numbers of images \(P1 all, Few 5\)"),
        ({"scaling": "test"}, "Both.scaling: test uses the test images, which every table"),
        ({"scaling": "train"}, "Both.scaling: must be one of training, test, got 'train'"),
        ({"extractor": "r"}, "Both.extractor: unknown parameter of ensemble; it has members"),
    ],
)
def test_settings_that_are_refused(settings, message):
    few = BASE["experiments"]["M"] | {"shots": 5}
    sweep = BASE["experiments"]["M"] | {"shots": [5, "all"]}
    with pytest.raises(ConfigError, match=message):
        with_ensemble(Both=ENSEMBLE | settings, Few=few, Sweep=sweep)


def test_a_transductive_ensemble_is_named_as_such():
    made = with_ensemble(["Both-transductive"], **{"Both-transductive": TRANSDUCTIVE})
    assert "transductive, the members' scores" in experiment_notes(made)["Both-transductive"]
    assert "transductive" not in experiment_notes(with_ensemble())["Both"]


def planned(made) -> dict[str, dict]:
    """The settings of all jobs that fit, score and evaluate."""
    keys = {"fit": "model", "score": "experiment", "evaluate": "experiment"}
    jobs = {}
    for name in category_jobs(made):
        rule, dataset, category, *rest = name.split("/")
        if rule in keys:
            at = {"dataset": dataset, "category": category, keys[rule]: rest[0], "seed": "0"}
            jobs[name] = job_settings(made, rule, at)
    return jobs


@pytest.mark.parametrize(
    ("member", "rules"),
    [
        # One that decides the fit; one that affects only scoring, so that the model is kept.
        ({"M": BASE["experiments"]["M"] | {"epsilon": 0.1}}, ["fit M", "fit Both"]),
        ({"P1": BASE["experiments"]["P1"] | {"neighbours": 2}}, ["fit Both"]),
        ({"S5": BASE["experiments"]["S5"] | {"k_pixel": 3}}, []),
    ],
)
def test_a_changed_member_makes_the_ensemble_stale(member, rules):
    run = ("Both", "P10", "S5")
    before, after = with_ensemble(run), with_ensemble(run, **copy.deepcopy(member))
    old, new = planned(before), planned(after)
    names = {each.model: name for name, each in after.scored.items()}
    stale = {job for job, settings in new.items() if old.get(job) != settings}
    fitted = [f"fit {names[job.split('/')[3]]}" for job in stale if job.startswith("fit/")]
    assert sorted(fitted) == sorted(rules)
    (name,) = member
    scored = {job.split("/")[3] for job in stale if job.startswith("score/")}
    assert scored == {name, *(["Both"] if rules else [])}


def test_the_command_runs_the_ensembles_of_the_catalogue():
    catalogue = load_config(None)
    assert choose_experiments(catalogue, "ensemble", None) == ["PatchCore-Ensemble"]
    used = ["wrn101", "resnext101", "densenet201"]
    assert extractors_of(catalogue, "PatchCore-Ensemble") == used
    assert choose_experiments(catalogue, "all", "wrn101") == ["PatchCore-1-WRN101"]
    with pytest.raises(ConfigError, match="no experiment .* method 'ensemble' and extractor 'wrn5"):
        choose_experiments(catalogue, "ensemble", "wrn50")


@pytest.mark.slow
def test_the_workflow_fits_and_scores_the_members(tmp_path):
    small = {"backbone": "test_resnet.r160_in1k", "weights": "random", "layers": ["layer1"]}
    experiments = SMALL_RUN["experiments"] | {
        "Small": {"method": "padim", "extractor": "small", "dimensions": 5},
        "Both": {"method": "ensemble", "members": ["PatchCore-10", "Small"]},
    }
    jobs = plan(
        tmp_path,
        METRICS,
        run={"datasets": ["drawn"], "experiments": ["PaDiM", "Both"]},
        extractors=SMALL_RUN["extractors"] | {"small": small},
        experiments=experiments,
    )
    assert [jobs[rule] for rule in ("extract", "fit", "score", "evaluate")] == [2, 4, 4, 2]


# -- jobs and models ------------------------------------------------------------------------------

EXTRACTORS = {
    "small": {"backbone": "test_resnet.r160_in1k", "layers": ["layer1", "layer2"], "crop": 48},
    "vit": {"backbone": "test_vit.r160_in1k", "layers": ["blocks.2", "blocks.4"], "crop": 64},
}
COMMON = {"weights": "random", "resize": 72, "precision": "float32", "dtype": "float32"}
SMALL = {
    "A": ("padim", "small", {"dimensions": 8}),
    "B": ("patchcore", "vit", {"embedding": "concat", "coreset_ratio": 0.2}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two experiments and their ensembles."""
    return make(
        tmp_path_factory.mktemp("made"), SMALL, EXTRACTORS, [(80, 90 + i) for i in range(8)]
    )


def make(root: Path, experiments: dict, extractors: dict, sizes: list) -> Path:
    """Two experiments and their ensembles, by the workflow's own scripts."""
    rng = np.random.default_rng(0)
    folder, results = root / "data/widget", root / "results"
    for kind, count in (("train/good", 8), ("test/good", 4), ("test/dent", 3)):
        for i in range(count):
            picture = photo(rng, "dent" in kind, sizes[i % len(sizes)])
            save_image(folder / kind / f"{i:03d}.png", picture)
    manifest = results / "manifests/mine/widget.csv"
    warnings = manifest.with_suffix(".warnings.json")
    data = {"folder": str(folder), "one_size": []}
    output = {"manifest": manifest, "warnings": warnings}
    job(index.main, settings={"reading": {}}, params=data, output=output)
    members = []
    for name, (method, extractor, given) in experiments.items():
        settings = COMMON | extractors[extractor]
        settings |= {"embedding": settings["layers"][-1]}
        parameters = methods.create(method, given).parameters
        del parameters["seed"]
        members.append({"method": method, "parameters": parameters, "extractor": settings})
        pixels = results / f"pixels/{extractor}.h5"
        features = results / f"features/mine/widget/{extractor}.h5"
        job(
            decode.main,
            input={"manifest": manifest, "warnings": warnings},
            output={"pixels": pixels, "warnings": pixels.with_suffix(".warnings.json")},
            params=data,
            settings={key: settings[key] for key in ("resize", "crop")},
        )
        job(
            extract.main,
            input={"manifest": manifest, "pixels": pixels},
            output={"features": features},
            settings={"extractor": settings},
        )
        job(
            fit.main,
            input={"features": features, "manifest": manifest},
            output={"model": model(root, name)},
            settings=members[-1],
        )
        scoring = methods.method_class(method).score_parameters
        job(
            score.main,
            input={"features": features, "model": model(root, name)},
            output=scored(root, name),
            settings={
                "extractor": settings,
                "parameters": {name: parameters[name] for name in scoring},
            },
            wildcards={"experiment": name},
        )
    for name, scaling in (("Both", "training"), ("Test", "test")):
        fitted = {"method": "ensemble", "parameters": {"members": [*SMALL], "scaling": scaling}}
        used = [extractor for _, extractor, _ in experiments.values()]
        stores = [results / f"features/mine/widget/{each}.h5" for each in used]
        files = [scored(root, member) for member in SMALL]
        job(
            fit.main,
            input={
                "features": stores,
                "members": [model(root, member) for member in SMALL],
                "manifest": manifest,
            },
            output={"model": model(root, name)},
            settings=fitted | {"members": members},
        )
        job(
            score.main,
            input={
                "model": model(root, name),
                "tables": [each["table"] for each in files],
                "maps": [each["maps"] for each in files],
                "manifest": manifest,
                "pixels": results / "pixels/small.h5",
            },
            output=scored(root, name),
            settings=fitted,
            wildcards={"experiment": name},
        )
    return root


def model(root: Path, name: str) -> Path:
    path = root / f"results/models/mine/widget/{name}/seed0.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def scored(root: Path, name: str) -> dict[str, Path]:
    folder = root / f"results/scores/mine/widget/{name}/seed0"
    names = {"table": "scores.csv", "maps": "maps.h5", "calibration": "calibration.json"}
    return {key: folder / file for key, file in names.items()}


def test_new_images_get_the_scores_of_the_workflow(made):
    files = scored(made, "Both")
    table, maps, made_with, *_ = scores.read(files["table"], files["maps"])
    maps = np.stack(list(maps))
    images = [str(made / "data/widget" / name) for name in table["image"]]
    loaded = load_model(files["table"].parent, device="cpu")
    results = loaded.predict(images)
    np.testing.assert_allclose([each.score for each in results], table["score"], rtol=1e-5)
    np.testing.assert_allclose([each.map for each in results], maps, rtol=1e-4, atol=1e-6)
    highest = table.loc[table["label"] == 0, "score"].max()
    assert loaded.input_size == maps.shape[1:] == (48, 48)
    assert loaded.threshold.score == pytest.approx(highest, rel=1e-3)
    assert list(made_with["members"]) == ["A", "B"]
    assert results[0].map_full.shape == results[0].size


def test_members_of_several_sizes_and_in_tiles(tmp_path):
    experiments = {"A": ("spade", "small", {"k_pixel": 3}), "B": SMALL["B"]}
    tiles = {"tiles": {"size": 32, "overlap": 16}}
    extractors = {
        "small": EXTRACTORS["small"] | {"resize": 48, "crop": None} | tiles,
        "vit": EXTRACTORS["vit"] | {"resize": 64, "crop": None},
    }
    make(tmp_path, experiments, extractors, [(64, 96), (96, 64), (128, 128)])
    files = scored(tmp_path, "Both")
    table, maps, *_ = scores.read(files["table"], files["maps"])
    assert {each.shape for each in maps} == {(48, 72), (72, 48), (48, 48)}
    loaded = load_model(model(tmp_path, "Both"), device="cpu")
    results = loaded.predict([str(tmp_path / "data/widget" / name) for name in table["image"]])
    np.testing.assert_allclose([each.score for each in results], table["score"], rtol=1e-4)
    for result, expected in zip(results, maps, strict=True):
        np.testing.assert_allclose(result.map, expected, rtol=1e-3, atol=1e-5)


def test_scores_of_the_workflow_are_the_average_of_the_members(made):
    tables = {name: pd.read_csv(scored(made, name)["table"]) for name in ("A", "B", "Both", "Test")}
    ensemble, _ = Ensemble.load(model(made, "Both"))
    expected = sum(tables[m]["score"] / s for m, s in zip("AB", ensemble.scale_[:, 0], strict=True))
    np.testing.assert_allclose(tables["Both"]["score"], expected / 2, rtol=1e-6)
    ranges = [tables[m]["score"] - tables[m]["score"].min() for m in "AB"]
    expected = sum(each / each.max() for each in ranges)
    np.testing.assert_allclose(tables["Test"]["score"], expected / 2, rtol=1e-5)


def test_the_command_predicts_with_an_ensemble(made, tmp_path):
    image = made / "data/widget/test/dent/000.png"
    code, text = predict(model(made, "Both"), image, "--csv", tmp_path / "out.csv")
    assert code in (0, 1), text
    table = pd.read_csv(scored(made, "Both")["table"])
    (row,) = pd.read_csv(tmp_path / "out.csv").itertuples()
    expected = table.loc[table["image"] == "test/dent/000.png", "score"].item()
    assert row.score == pytest.approx(expected, rel=1e-5)


def test_a_transductive_ensemble_cannot_score_new_images(made):
    with pytest.raises(ConfigError, match="this ensemble is transductive: 'scaling: test'"):
        load_model(model(made, "Test"))


def test_a_backbone_cannot_be_named(made, tmp_path):
    with pytest.raises(ConfigError, match="an ensemble has a backbone and features for each"):
        load_model(model(made, "Both"), weights=tmp_path / "w.pth")


def test_models_of_members_that_changed_are_refused(made, tmp_path):
    copied = tmp_path / "results"
    shutil.copytree(made / "results/models", copied / "models")
    load_model(model(tmp_path, "Both"), device="cpu")
    shutil.copy(model(tmp_path, "A"), model(tmp_path, "B"))
    with pytest.raises(StoreError, match=r"B/seed0.safetensors, a member .*, was fitted again"):
        load_model(model(tmp_path, "Both"))
    model(tmp_path, "A").unlink()
    with pytest.raises(StoreError, match=r"A/seed0.safetensors: no such model. The ensemble"):
        load_model(model(tmp_path, "Both"))
    with pytest.raises(StoreError, match="not an ensemble of version 1"):
        Ensemble.load(model(tmp_path, "B"))


def test_the_list_of_models_has_ensembles(made):
    (category,) = survey(made / "results")
    found = {each.path: each for each in category.models}[str(model(made, "Both"))]
    assert (found.method, found.parameters["members"]) == ("ensemble", ["A", "B"])
    assert [each.name for each in found.experiments] == ["Both"]
