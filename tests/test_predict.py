"""Scoring new images with a fitted model: the same numbers, honest thresholds, clear errors."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console

from conftest import ROOT, save_image
from indad import load_model, methods
from indad.cli.main import parse_command
from indad.core import checksum
from indad.core.errors import ConfigError, DataError, DeviceError, StoreError, WeightsError
from indad.data.images import Geometry
from indad.evaluation import calibration, scores
from indad.evaluation.calibration import Calibration, Known
from indad.features.backbone import load_backbone
from indad.features.weights import weights_sha256_of
from indad.inference import overlay, png, result
from indad.inference.loading import choose_experiment
from indad.methods import anomaly_map
from indad.methods.base import SCORE_BATCH
from predicting import (
    EXPERIMENTS,
    EXTRACTOR,
    FITTED,
    make_results,
    model_file,
    photo,
    run,
    scores_folder,
)

# -- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_scores_and_maps_are_the_workflows(made, experiment):
    folder = scores_folder(made, experiment)
    table, expected, *_ = scores.read(folder / "scores.csv", folder / "maps.h5")
    expected = np.stack(list(expected))
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


def test_tiles_of_images_of_several_sizes_are_the_workflows(tmp_path):
    extractor = EXTRACTOR | {"resize": 64, "crop": None, "tiles": {"size": 32, "overlap": 16}}
    root = make_results(tmp_path, extractor, ["PatchCore-20"], [(64, 96), (96, 64), (128, 256)])
    folder = scores_folder(root, "PatchCore-20")
    table, maps, *_ = scores.read(folder / "scores.csv", folder / "maps.h5")
    model = load_model(folder, device="cpu")
    images = [root / "data/widget" / name for name in table["image"]]
    results = list(model.predict(images))
    assert {result.map.shape for result in results} == {(64, 96), (96, 64), (64, 128)}
    np.testing.assert_allclose([each.score for each in results], table["score"], rtol=1e-4)
    for each, expected in zip(results, maps, strict=True):
        np.testing.assert_allclose(each.map, expected, rtol=1e-3, atol=1e-4)
    # An image that the tiles do not fit to is refused, and the others are scored.
    wrong = save_image(tmp_path / "wrong.png", photo(np.random.default_rng(1), False, (64, 70)))
    first, second = model.stream([images[0], wrong])
    assert first.score == pytest.approx(table["score"][0], rel=1e-4)
    assert "the image has 70 pixels, which is not a multiple of 8" in str(second.error)


def test_arrays_pictures_and_paths_are_the_same(made, padim):
    path = made / "data/widget/test/dent/000.png"
    pixels = np.asarray(Image.open(path))
    expected = padim.predict(path).score
    assert padim.predict(pixels).score == expected
    assert padim.predict(pixels[..., 0]).score == expected  # grey, not contiguous
    assert padim.predict(pixels[..., ::-1]).score == expected  # read-only, negative strides
    assert padim.predict(Image.open(path)).score == expected
    assert [r.score for r in padim.predict(np.stack([pixels, pixels]))] == [expected] * 2
    assert padim.predict([]) == []


def rotated(picture: Image.Image, path: Path) -> None:
    """Save a picture rotated by 90 degrees, with the EXIF orientation that rotates it back."""
    exif = Image.Exif()
    exif[274] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("turned.jpg", rotated),
        ("turned.png", rotated),
        (
            "deep.png",
            lambda p, f: Image.fromarray(np.uint16(np.asarray(p.convert("L"))) * 257).save(f),
        ),
        ("float.tif", lambda p, f: Image.fromarray(np.float32(p.convert("L")) / 255).save(f)),
        ("palette.png", lambda p, f: p.convert("P").save(f)),
        ("alpha.png", lambda p, f: p.convert("RGBA").save(f)),
        ("grey.png", lambda p, f: p.convert("LA").save(f)),
        ("print.jpg", lambda p, f: p.convert("CMYK").save(f)),
    ],
)
def test_an_opened_file_has_the_score_of_its_path(made, padim, tmp_path, name, save):
    path = tmp_path / name
    save(Image.open(made / "data/widget/test/dent/000.png"), path)
    of_path, of_image = padim.predict(path), padim.predict(Image.open(path))
    assert of_image.score == of_path.score
    assert of_image.size == of_path.size == (80, 90)
    if name in ("deep.png", "float.tif"):
        assert padim.predict(np.asarray(Image.open(path))).score == of_path.score


def test_an_opened_file_is_refused_like_its_path(padim, tmp_path):
    path = tmp_path / "pages.tif"
    pages = [Image.new("L", (90, 80), level) for level in (100, 120)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    for given in (path, Image.open(path)):
        with pytest.raises(DataError, match=r"pages\.tif: holds 2 images"):
            padim.predict(given)
    chosen = Image.open(path)
    chosen.seek(1)
    assert padim.predict(chosen).score == padim.predict(pages[1]).score


def test_images_of_other_sizes_are_scored(padim, rng):
    results = padim.predict([photo(rng, d, (160, 200)) for d in (False, True)])
    assert results[0].score < results[1].score
    assert results[1].map.shape == padim.input_size


@pytest.mark.parametrize(
    ("image", "message", "kind"),
    [
        (np.zeros((8, 8, 4), np.uint8), "type uint8 and shape (8, 8, 4) is not an", TypeError),
        (np.zeros((8, 8, 3), np.float32), "OpenCV has blue first", TypeError),
        (np.zeros((8, 8), np.int64), "type int64", TypeError),
        (np.full((80, 80), 200.0), "floats range from 200 to 200, not from 0 to 1", DataError),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels", DataError),
        (Image.new("RGB", (0, 5)), "has no pixels", DataError),
        (torch.zeros(1, 3, 8, 8), "of type torch.Tensor is not an image; give a path", TypeError),
        (b"\x89PNG", "of type bytes is not an image", TypeError),
        (io.BytesIO(b""), "of type _io.BytesIO is not an image", TypeError),
        (None, "of type NoneType is not an image", TypeError),
        ([np.zeros((8, 8), bool)], "type bool", TypeError),
        ("no/such.png", "no/such.png: no such image file", DataError),
    ],
)
def test_anything_but_an_image_is_refused(padim, image, message, kind):
    with pytest.raises(kind) as error:
        padim.predict(image)
    assert message in str(error.value)
    assert isinstance(error.value, DataError)


# -- threads and processes ------------------------------------------------------------------------


def run_threads(work, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_settings_of_torchs_libraries_are_set_before_torch_is_loaded(made, tmp_path):
    (tmp_path / "torch.py").write_text(
        "import os; raise SystemExit(os.environ['OMP_WAIT_POLICY'] + os.environ['MKL_CBWR'][-6:])"
    )
    program = "import sys, indad; sys.path.insert(0, sys.argv[1]); indad.load_model(sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, model_file(made, "padim")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "scripts")},
    )
    assert done.stderr == "PASSIVESTRICT\n"


def test_threads_load_models_at_the_same_time():
    """Random weights depend on the seed only, whatever other threads draw."""
    found = [""] * 4

    def work(number: int) -> None:
        backbone = load_backbone("test_resnet", layers=["layer1"], weights="random")
        found[number] = backbone.weights_sha256

    run_threads(work, 4)
    assert len(set(found)) == 1
    assert found[0]


@pytest.mark.parametrize("method", FITTED)
def test_threads_get_the_scores_of_one_by_one(made, method):
    images = sorted((made / "data/widget/test").rglob("*.png"))[:12]
    model = load_model(model_file(made, method), device="cpu")
    alone = [model.predict(path) for path in images]
    opened = Image.open(images[0])  # one lazy image for all threads
    fresh = load_model(model_file(made, method), device="cpu")
    found: dict[int, list] = {}

    def work(number: int) -> None:
        order = np.random.default_rng(number).permutation(len(images))
        found[number] = [(i, fresh.predict(images[i])) for i in order]
        found[number].append((0, fresh.predict(opened)))

    run_threads(work, 6)
    assert len(found) == 6
    for i, each in (pair for pairs in found.values() for pair in pairs):
        assert each.score == alone[i].score
        np.testing.assert_array_equal(each.map, alone[i].map)


def in_process(method: str, target, *arguments) -> object:
    """Return what a function puts into a queue in another process."""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=target, args=(queue, *arguments), daemon=True)
    process.start()
    try:
        return queue.get(timeout=60)
    finally:
        process.kill()
        process.join()


def score_in(queue, model, image) -> None:
    """Score with a model of the parent, and with one of its own."""
    own = load_model(model.path, device="cpu")
    queue.put([each.predict(image).score for each in (model, own)])


@pytest.mark.parametrize("method", ["spade", "padim"])
def test_a_forked_process_scores(made, method):
    model = load_model(model_file(made, method), device="cpu")
    image = made / "data/widget/test/dent/000.png"
    expected = model.predict(image).score
    assert in_process("fork", score_in, model, image) == pytest.approx([expected] * 2, rel=1e-4)


def error_in(queue, model, image) -> None:
    try:
        model.predict(image)
    except DeviceError as error:
        queue.put(str(error))


def test_a_process_forked_while_a_thread_scores_gets_an_error_at_once(made):
    model = load_model(model_file(made, "padim"), device="cpu")
    with model._scoring:
        message = in_process("fork", error_in, model, made / "data/widget/test/dent/000.png")
    assert "while another thread was scoring" in message
    assert "multiprocessing.get_context('spawn')" in message


def test_a_model_is_pickled_as_its_file(made, padim):
    model = load_model(model_file(made, "padim"), device="cpu", batch_size=3)
    model.threshold = model.calibration.at(1e9)
    image = made / "data/widget/test/dent/000.png"
    assert len(pickle.dumps(model)) < 10_000
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        found = again.predict(image)
        assert (found.score, found.anomalous) == (padim.predict(image).score, False)
        assert again.batch_size == 3


def test_an_image_that_fails_does_not_take_its_batch_with_it(made, monkeypatch):
    model = load_model(model_file(made, "padim"), device="cpu")
    images = sorted((made / "data/widget/test/dent").iterdir())
    expected = [each.score for each in model.predict(images)]
    bad = np.asarray(Image.open(images[2]))
    extract = model.extractor.network

    def failing(pixels):
        if (pixels == np.asarray(model._read(bad).pixels)).all(axis=(1, 2, 3)).any():
            raise RuntimeError("no kernel for this image")
        return extract(pixels)

    monkeypatch.setattr(model.extractor, "network", failing)
    results = list(model.stream([*images, tmp := Path("gone.png")]))
    errors = {each.image: str(each.error) for each in results if isinstance(each, result.Failure)}
    assert list(errors) == [str(images[2]), str(tmp)]
    assert "002.png: cannot be scored (no kernel for this image)" in errors[str(images[2])]
    others = [each for each in results if isinstance(each, result.Result)]
    rest = [score for i, score in enumerate(expected) if i != 2]
    np.testing.assert_allclose([each.score for each in others], rest, rtol=1e-4)


def test_other_threads_decode_one_batch_ahead(made, monkeypatch):
    model = load_model(model_file(made, "padim"), device="cpu", batch_size=2)
    images = sorted((made / "data/widget/test/dent").iterdir())
    alone = {str(image): model.predict(image).score for image in images}
    photos = [Path("gone.png") if i == 17 else images[i % len(images)] for i in range(40)]
    taken, readers, read = [], set(), model._read

    def reading(photo):
        readers.add(threading.current_thread())
        return read(photo)

    monkeypatch.setattr(model, "_read", reading)
    stream = model.stream(taken.append(photo) or photo for photo in photos)
    results = [next(stream)]
    assert len(taken) == 2 * SCORE_BATCH
    results += stream
    assert threading.main_thread() not in readers
    assert [each.image for each in results] == list(map(str, photos))
    failed = results.pop(17)
    assert isinstance(failed, result.Failure)
    assert "gone.png" in str(failed.error)
    expected = [alone[each.image] for each in results]
    np.testing.assert_allclose([each.score for each in results], expected, rtol=1e-4)


def test_a_gpu_too_small_for_a_batch_gets_smaller_ones(made, monkeypatch):
    model = load_model(model_file(made, "padim"), device="cpu", batch_size=8)
    images = sorted((made / "data/widget/test/dent").iterdir())
    expected = [result.score for result in model.predict(images)]
    network = model.extractor.network

    def small(batch):
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        return network(batch)

    monkeypatch.setattr(model.extractor, "network", small)
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


def test_the_rate_of_a_threshold_has_the_range_that_is_printed(rng):
    """Of uniform scores the rate is one minus the threshold; a third of 20 images exceed 5 %."""
    count, rate = 20, 0.05
    low, high = calibration.false_alarm_range(count, rate)
    assert (low, high) == pytest.approx((1 - 0.975 ** (1 / 20), 1 - 0.025 ** (1 / 20)))
    actual = 1 - rng.random((20_000, count)).max(axis=1)
    assert np.mean((low <= actual) & (actual <= high)) == pytest.approx(0.95, abs=0.006)
    assert np.mean(actual > rate) == pytest.approx(0.95**20, abs=0.015)
    chosen = calibration_of(list(rng.random(count))).at_false_alarms(rate)
    assert chosen.false_alarms == (low, high)
    assert "an average over sets of 20 such images" in chosen.source
    assert "between 0.0013 and 0.17 with a probability of 95 %" in chosen.source
    low, high = calibration.false_alarm_range(200, rate)
    assert (low, high) == pytest.approx((0.024, 0.084), abs=5e-4)


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


def test_training_images_choose_no_threshold(made, padim, tmp_path):
    model = load_model(model_file(made, "padim"), device="cpu")
    train = sorted((made / "data/widget/train/good").iterdir())
    copied = Path(shutil.copy(train[0], tmp_path / "renamed.png"))
    good = sorted((made / "data/widget/test/good").iterdir())
    with pytest.raises(ConfigError, match=r"1 of the good images .* the model \(renamed\.png\)"):
        model.calibrate(model.predict([*good, copied]))
    with pytest.raises(ConfigError, match=r"8 of the good .*000\.png, 001\.png, 002\.png, \.\.\."):
        run(model_file(made, "padim"), good[0], "--good", train[0].parent)
    model.calibrate(model.predict(good))
    assert model.threshold.score == pytest.approx(padim.threshold.score, rel=1e-3)


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
    whole = anomaly_map.on_image(values, geometry, 200, 400)  # resized to 100 x 200, cropped to 80
    assert whole.shape == (200, 400)
    rows, columns = np.nonzero(np.isfinite(whole))
    assert (rows.min(), rows.max()) == (20, 179)
    assert (columns.min(), columns.max()) == (120, 279)
    assert whole[170, 270] == 1
    assert whole[90, 190] == 0


def test_a_result_has_map_mask_and_boxes_at_the_size_of_the_image(made, padim):
    geometry = Geometry.from_config(72, 64)
    values = np.zeros((64, 64), np.float32)
    values[8:24, 40:56], values[40:48, 8:16] = 5, 3
    image = {"size": (144, 180), "geometry": geometry, "seconds": 0.0, "state": None}
    scores = {"image": None, "score": 5.0, "threshold": 9.0, "anomalous": False}
    found = result.Result(map=values, pixel_threshold=1.0, **scores, **image)
    assert (found.mask.dtype, found.mask.shape) == (bool, (144, 180))
    assert found.map_full.dtype == np.float32
    seen = np.isfinite(found.map_full)
    assert seen.sum() == 128 * 128
    assert not found.mask[~seen].any()
    np.testing.assert_array_equal(found.mask, seen & (np.nan_to_num(found.map_full) > 1))
    first, second = found.boxes  # the highest peak first
    assert (first.peak, second.peak) == (5, 3)
    # The crop begins at (8, 26) of the image, which is twice as large.
    assert first[:4] == pytest.approx((26 + 80, 8 + 16, 26 + 112, 8 + 48), abs=1)
    assert found.mask[first.top : first.bottom, first.left : first.right].sum() == first.area
    none = result.Result(map=values, pixel_threshold=None, **scores, **image)
    assert (none.mask, none.boxes) == (None, None)
    path = made / "data/widget/test/dent/002.png"
    (box, *_) = padim.predict(path).boxes
    assert box.left < 53 < box.right
    assert box.top < 38 < box.bottom
    assert padim.predict(made / "data/widget/test/good/003.png").boxes == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1000, 3), (700, 2500, 3)])
def test_png_files_hold_their_pixels(rng, tmp_path, shape):
    pixels = rng.integers(0, 256, shape, np.uint8)
    pixels[: shape[0] // 2] = 7
    png.write(tmp_path / "a.png", Image.fromarray(pixels))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_an_image_that_has_changed_is_not_drawn(made, padim, tmp_path):
    path = Path(shutil.copy(made / "data/widget/test/dent/000.png", tmp_path / "a.png"))
    found = padim.predict(path)
    assert padim.overlay(path, found).size == (90, 80)
    shutil.copy(made / "data/widget/test/dent/001.png", path)
    with pytest.raises(DataError, match=r"a\.png: has changed since it was scored"):
        padim.overlay(path, found)


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
