"""Each method equals its slow reference, and a score depends on the data only."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import references
from conftest import ROOT, copied, make_features
from indad import methods
from indad.core.errors import ConfigError, StoreError
from indad.features.source import ArrayFeatures
from indad.methods import coreset, coreset_parts
from indad.methods import padim as padim_module
from indad.methods.padim import PaDiM
from indad.methods.patchcore import PatchCore
from indad.methods.spade import SPADE

SMALL = [
    SPADE(k_image=3, k_pixel=4),
    PaDiM(dimensions=9),
    PatchCore(embedding="concat", coreset_ratio=0.3, projection=6),
    SPADE(k_image=2, k_pixel=3, distance="cosine", image_score="max", shots=7),
    PatchCore(
        embedding="concat", coreset_ratio=0.9, projection=6, pooling=1, distance="cosine",
        image_score="top5%", shots=5,
    ),
]  # fmt: skip


@pytest.fixture
def train(rng):
    return make_features(rng, 12)


@pytest.fixture
def test(rng, train):
    return make_features(np.random.default_rng(1), 5)


@pytest.mark.parametrize("memory", [1 << 10, 1 << 30])  # the gallery is read in parts, or kept
@pytest.mark.parametrize(
    ("k_image", "k_pixel", "layers", "squared"),
    [(3, 4, None, True), (1, 1, ["b"], True), (5, 12, None, False)],
)
def test_spade_equals_reference(train, test, k_image, k_pixel, layers, squared, memory):
    detector = SPADE(k_image=k_image, k_pixel=k_pixel, layers=layers, squared=squared)
    detector.fit(train, memory=memory)
    names = layers or train.layers
    images, maps = references.spade(train, test, names, k_image, k_pixel, 1 + squared)
    scores = detector.score(test)
    np.testing.assert_allclose(scores.image, images, rtol=1e-5)
    np.testing.assert_allclose(scores.maps, maps, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 5, 6, 12, 40])
@pytest.mark.parametrize("layers", [None, ["b", "a"], ["a"]])
def test_padim_equals_reference(rng, test, count, layers):
    """With few images for the dimensions (low rank), and with more (Cholesky)."""
    train = make_features(rng, count)
    detector = PaDiM(dimensions=5 if layers == ["a"] else 10, layers=layers, seed=3).fit(train)
    used = layers or list(train.layers)
    starts = np.cumsum([0, *(train.shape(layer)[0] for layer in used)])
    channels = np.concatenate(
        [detector.channels_[layer] + start for layer, start in zip(used, starts, strict=False)]
    )
    assert len(set(channels)) == detector.dimensions
    if count == 1:  # numpy.cov is not defined for one image; the model's covariance is 0
        copies = copied(train, [0, 0])
        images, maps = references.padim(copies, test, used, channels)
    else:
        images, maps = references.padim(train, test, used, channels)
    scores = detector.score(test)
    np.testing.assert_allclose(scores.maps, maps, rtol=2e-5)
    np.testing.assert_allclose(scores.image, images, rtol=2e-5)


@pytest.mark.parametrize("dimensions", [1, 2, 9, 12])
def test_padim_block_sizes_change_nothing(train, test, monkeypatch, dimensions):
    whole = PaDiM(dimensions=dimensions).fit(train).score(test)
    monkeypatch.setattr(padim_module, "BLOCK_BYTES", 1)
    monkeypatch.setattr(padim_module, "FIT_IMAGES", 2)
    monkeypatch.setattr(padim_module, "SCORE_POSITIONS", 7)
    pieces = PaDiM(dimensions=dimensions).fit(train).score(test)
    np.testing.assert_allclose(pieces.maps, whole.maps, rtol=1e-5)


@pytest.mark.parametrize("count", [4, 6, 7, 40])
def test_padim_model_is_at_most_half_a_covariance(rng, count):
    state = PaDiM(dimensions=12).fit(make_features(rng, count))._state()
    assert state["factor"].numel() <= 8 * 8 * 12 * 13 // 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dimensions": 13}, "dimensions: 13 asked for.*only 12 channels"),
        ({"layers": ["a", "c"]}, "layers c are not among the extracted ones"),
    ],
)
def test_parameters_that_do_not_fit_the_features_are_refused(train, parameters, message):
    with pytest.raises(ConfigError, match=message):
        PaDiM(**parameters).fit(train)


@pytest.mark.parametrize("embedding", ["concat", "official"])
def test_patchcore_equals_reference(rng, tmp_path, embedding):
    # For the authors' embedding, sizes that 1024 does not divide, as with real networks.
    shapes = (
        {"a": (130, 4, 6), "b": (240, 2, 3)}
        if embedding == "official"
        else {"a": (5, 8, 8), "b": (7, 4, 4)}
    )
    train, test = make_features(rng, 4, shapes=shapes), make_features(rng, 2, shapes=shapes)
    detector = PatchCore(embedding=embedding, coreset_ratio=0.4, projection=8).fit(train)
    detector.save(tmp_path / "model")
    patches = references.patch_embedding(train, ["a", "b"], embedding)
    patches = patches.reshape(-1, patches.shape[-1])
    np.testing.assert_allclose(
        detector.bank_.numpy(), patches[detector.indices_.numpy()], rtol=1e-5, atol=1e-6
    )
    assert len(detector.bank_) == int(0.4 * len(patches))
    queries = references.patch_embedding(test, ["a", "b"], embedding)
    for neighbours, squared in ((1, True), (3, False)):
        images, maps = references.patchcore_scores(
            patches[detector.indices_.numpy()], queries, (32, 32), neighbours, 1 + squared
        )
        parameters = {"neighbours": neighbours, "squared": squared}
        changed = methods.load(tmp_path / "model", parameters=parameters)
        scores = changed.score(test)
        np.testing.assert_allclose(scores.maps, maps, rtol=1e-4)
        np.testing.assert_allclose(scores.image, images, rtol=1e-4)


def test_patchcore_picks_what_the_plain_loop_picks(train):
    detector = PatchCore(embedding="concat", coreset_ratio=0.2, projection=1000).fit(train)
    patches = references.patch_embedding(train, ["a", "b"], "concat")
    patches = patches.reshape(-1, patches.shape[-1])
    order = [int(detector.indices_[0])]
    nearest = np.full(len(patches), np.inf)
    while len(order) < len(detector.indices_):
        nearest = np.minimum(nearest, ((patches - patches[order[-1]]) ** 2).sum(axis=1))
        order.append(int(nearest.argmax()))
    assert detector.indices_.tolist() == order


def test_a_merged_coreset_of_one_part_is_the_exact_one(train):
    options = {"embedding": "concat", "coreset_ratio": 0.3, "projection": 6}
    exact = PatchCore(**options).fit(train)
    merged = PatchCore(**options, coreset="merge").fit(train)
    assert merged.indices_.tolist() == exact.indices_.tolist()


def test_a_merged_coreset_covers_nearly_as_well_and_holds_one_part(monkeypatch):
    features = make_features(np.random.default_rng(3), 20, shapes={"layer1": (5, 6, 6)})
    options = {"embedding": "concat", "projection": 99, "seed": 1}
    seen, greedy = [], coreset.greedy_k_center

    def recorded(points, count, **rest):
        seen.append((len(points), count))
        return greedy(points, count, **rest)

    monkeypatch.setattr(coreset_parts, "greedy_k_center", recorded)
    merge = {"coreset": "merge", "part_patches": 150}
    merged = PatchCore(**options, coreset_ratio=0.1, **merge).fit(features)
    # Parts of four images of 36 patches, each reduced to a fifth of 150.
    assert seen == [(144, 30)] * 5 + [(150, 72)]
    smaller = PatchCore(**options, coreset_ratio=0.05, **merge).fit(features)
    assert smaller.indices_.tolist() == merged.indices_.tolist()[:36]

    def radius(bank):
        everything = PatchCore(**options, coreset_ratio=1.0).fit(features).bank_
        return float(torch.cdist(everything, bank).amin(dim=1).max())

    exact = PatchCore(**options, coreset_ratio=0.1).fit(features)
    assert len(merged.bank_) == len(exact.bank_) == len(set(merged.indices_.tolist())) == 72
    assert radius(merged.bank_) < 1.5 * radius(exact.bank_)
    with pytest.raises(ConfigError, match="part_patches: 150 are fewer than the 216 patches"):
        PatchCore(**options, coreset_ratio=0.3, **merge).fit(features)


PARTS = {"embedding": "concat", "projection": 4, "coreset": "merge", "part_patches": 150}


def test_a_model_does_not_depend_on_the_jobs_that_choose_its_parts(tmp_path):
    features = make_features(np.random.default_rng(3), 20, shapes={"layer1": (5, 6, 6)})
    PatchCore(**PARTS).fit(features).save(tmp_path / "alone")
    for jobs in (1, 3, 9):  # of five parts
        files = [tmp_path / f"{job}of{jobs}.safetensors" for job in range(jobs)]
        for job, file in enumerate(files):
            # The ratio decides only the second choice.
            PatchCore(**PARTS, coreset_ratio=0.01).choose_parts(features, file, job, jobs)
        PatchCore(**PARTS).fit(features, coresets=files[::-1]).save(tmp_path / "merged")
        assert (tmp_path / "merged").read_bytes() == (tmp_path / "alone").read_bytes()


def test_coresets_of_other_features_parameters_or_jobs_are_refused(tmp_path):
    features = make_features(np.random.default_rng(3), 20, shapes={"layer1": (5, 6, 6)})
    files = [tmp_path / f"{job}of2.safetensors" for job in range(2)]
    for job, file in enumerate(files):
        PatchCore(**PARTS).choose_parts(features, file, job, 2)

    def refused(source=features, files=files, **changes):
        with pytest.raises(StoreError) as error:
            PatchCore(**PARTS | changes).fit(source, coresets=files)
        return str(error.value)

    message = refused(seed=1)
    assert "0of2.safetensors: its coresets of parts were chosen from other features" in message
    assert message.endswith("  - seed: the file has 0, expected 1")
    assert "patches: the file has 720, expected 684" in refused(copied(features, range(19)))
    other = copied(features, range(20))
    other.identity = "another store"
    assert "features: the file has 'memory', expected 'another store'" in refused(other)
    assert "have no coreset of part 2 of 5; delete them and run again" in refused(files=files[:1])
    model = PatchCore(**PARTS).fit(features)
    model.save(tmp_path / "model.safetensors")
    assert "chosen from other features" in refused(files=[tmp_path / "model.safetensors"])
    with pytest.raises(StoreError, match="method is 'coresets of parts', this library has"):
        methods.load(files[0])
    with pytest.raises(ConfigError, match="part_patches: 150 are fewer than the 360 patches"):
        PatchCore(**PARTS, coreset_ratio=0.5).choose_parts(features, files[0], 0, 2)


def projected(features, **options):
    """All training patches in the space in which the coreset is chosen, in their order."""
    everything = PatchCore(**options | {"coreset_ratio": 1.0}).fit(features)
    patches = everything.bank_[everything.indices_.argsort()]
    if everything.projection >= patches.shape[1]:
        return patches.double()
    mapping = coreset.random_projection(patches.shape[1], everything.projection, everything.seed)
    return patches.double() @ mapping.double()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_covering_radius_is_that_of_the_prefix_in_use(train, tmp_path, distance, caplog):
    options = {"embedding": "concat", "projection": 6, "seed": 3, "distance": distance}
    points, path = projected(train, **options), tmp_path / "model.safetensors"
    with caplog.at_level("INFO"):
        detector = PatchCore(**options, coreset_ratio=0.5).fit(train)
    detector.save(path)
    for ratio in (0.5, 0.2, 0.001):
        used = methods.load(path, parameters={"coreset_ratio": ratio})
        kept = points[used.indices_[: len(used.bank_in_use)]]
        expected = float(torch.cdist(points, kept).amin(dim=1).max())
        assert used.coreset_radius_ == pytest.approx(expected, rel=1e-4)
    (line,) = (each.message for each in caplog.records if "covering radius" in each.message)
    assert line == (
        f"coreset: {len(detector.bank_)} of {len(points)} patches, covering radius in the "
        f"projected space {detector.coreset_radius_:.4g}"
    )


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_covering_radius_of_merged_parts_is_bounded(repeats, caplog):
    maps = np.random.default_rng(3).random((20 // repeats, 5, 6, 6))
    features = ArrayFeatures({"layer1": np.tile(maps, (repeats, 1, 1, 1))}, input_size=(32, 32))
    options = {"embedding": "concat", "projection": 4, "pooling": 1}
    points = projected(features, **options)
    with caplog.at_level("INFO"):
        merged = PatchCore(**options, coreset="merge", part_patches=150, coreset_ratio=0.1).fit(
            features
        )
    line = caplog.records[-1].message
    bound, second, part = map(float, re.findall(r"\d\.\d+", line))
    assert bound == pytest.approx(merged.coreset_radius_, rel=1e-3)
    assert bound == pytest.approx(second + part, abs=0.002)
    distances = torch.cdist(points, points[merged.indices_])
    for count in (1, 20, len(merged.indices_)):
        exact = float(distances[:, :count].amin(dim=1).max())
        assert exact <= float(merged.radii_[count - 1]) * (1 + 1e-5) <= exact + part + 0.001


def test_smaller_coresets_are_prefixes_of_one_fit(train, test, tmp_path):
    path = tmp_path / "model.safetensors"
    PatchCore(embedding="concat", coreset_ratio=0.5, projection=6).fit(train).save(path)
    for ratio in (0.5, 0.2, 0.001):
        alone = PatchCore(embedding="concat", coreset_ratio=ratio, projection=6).fit(train)
        shared = methods.load(path, parameters={"coreset_ratio": ratio})
        expected, got = alone.score(test), shared.score(test)
        np.testing.assert_array_equal(got.image, expected.image)
        np.testing.assert_array_equal(got.maps, expected.maps)
    with pytest.raises(StoreError, match="coreset_ratio: 0.6 asked for"):
        methods.load(path, parameters={"coreset_ratio": 0.6})
    with pytest.raises(ConfigError, match="projection: the model .* was fitted with 6, not 7"):
        methods.load(path, parameters={"projection": 7})


def test_reweighting_survives_large_distances(rng):
    maps = {"a": 1e4 * rng.random((3, 4, 4, 4), dtype=np.float32)}
    source = ArrayFeatures(maps, input_size=(8, 8))
    far = ArrayFeatures({"a": -maps["a"]}, input_size=(8, 8))
    detector = PatchCore(embedding="concat", coreset_ratio=1.0, neighbours=3).fit(source)
    assert np.isfinite(detector.score(far).image).all()


@pytest.mark.parametrize("detector", SMALL, ids=lambda d: d.method)
def test_save_load_score_is_bit_identical(detector, train, test, tmp_path):
    path = tmp_path / "model.safetensors"
    detector.fit(train)
    before = detector.score(test)
    detector.save(path)
    after = methods.load(path, gallery=train).score(test)
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.maps, before.maps)
    assert methods.read_header(path)["method"] == detector.method


@pytest.mark.parametrize("detector", SMALL, ids=lambda d: d.method)
def test_test_images_do_not_influence_each_other(detector, train, test):
    detector.fit(train)
    together = detector.score(test)
    order = [3, 1, 4, 0, 2]
    permuted = detector.score(copied(test, order))
    np.testing.assert_allclose(permuted.image, together.image[order], rtol=1e-5)
    np.testing.assert_allclose(permuted.maps, together.maps[order], rtol=1e-5)
    alone = detector.score(copied(test, [2]))
    np.testing.assert_allclose(alone.maps[0], together.maps[2], rtol=1e-5)


@pytest.mark.parametrize("detector", SMALL[:2], ids=lambda d: d.method)
def test_order_of_training_images_is_irrelevant(detector, train, test):
    before = detector.fit(train).score(test)
    after = detector.fit(copied(train, np.arange(len(train))[::-1])).score(test)
    np.testing.assert_allclose(after.maps, before.maps, rtol=1e-4)


@pytest.mark.parametrize("detector", SMALL, ids=lambda d: d.method)
def test_a_gpu_short_of_memory_gets_smaller_pieces(detector, train, test, monkeypatch, caplog):
    whole = detector.fit(train).score(test)
    fit, score = type(detector)._fit, type(detector)._score

    def limited_fit(self, source, progress):
        if self.fit_computes and self.memory_ > 300 << 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        fit(self, source, progress)

    def limited_score(self, layers, z):
        if len(z) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return score(self, layers, z)

    monkeypatch.setattr(type(detector), "_fit", limited_fit)
    monkeypatch.setattr(type(detector), "_score", limited_score)
    parts = detector.fit(train, memory=1 << 30).score(test)
    assert detector.memory_ == (256 if detector.fit_computes else 1024) << 20
    assert "does not hold a batch of 16 images; trying 8" in caplog.text
    np.testing.assert_allclose(parts.image, whole.image, rtol=1e-5)
    np.testing.assert_allclose(parts.maps, whole.maps, rtol=1e-5)


@pytest.mark.parametrize("detector", SMALL, ids=lambda d: d.method)
def test_damaged_models_are_refused(detector, train, tmp_path):
    path = tmp_path / "model.safetensors"
    detector.fit(train).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"model\.safetensors"):
        methods.load(path, gallery=train)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="not a model with a checksum of this project: damaged"):
        methods.load(path, gallery=train)
    with pytest.raises(StoreError, match="no such model"):
        methods.load(tmp_path / "none.safetensors")


def test_models_of_another_version_are_refused(train, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    PaDiM(dimensions=3).fit(train).save(path)
    monkeypatch.setattr(PaDiM, "version", 9)
    with pytest.raises(StoreError, match="method_version is 2, this library reads 9"):
        methods.load(path)
    monkeypatch.setattr(PaDiM, "method", "gone")
    PaDiM(dimensions=3).fit(train).save(path)
    with pytest.raises(StoreError, match="method is 'gone', this library has spade, padim"):
        methods.load(path)


def test_spade_model_is_a_link(train, test, tmp_path, rng):
    path = tmp_path / "model.safetensors"
    SPADE().fit(train).save(path)
    assert path.stat().st_size < train.maps("a").nbytes
    with pytest.raises(StoreError, match="pass that store's train split"):
        methods.load(path)
    with pytest.raises(StoreError, match="is not the one this SPADE model was fitted on"):
        methods.load(path, gallery=make_features(rng, 12))


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("spade", {"k_image": 0}, "k_image: must be a whole number of at least 1, got 0"),
        ("spade", {"k_pixel": True}, "k_pixel: must be a whole number of at least 1, got True"),
        ("spade", {"squared": 1}, "squared: must be true or false, got 1"),
        ("padim", {"epsilon": 0}, "epsilon: must be a number above 0, got 0"),
        ("padim", {"epsilon": float("nan")}, "epsilon: must be a number above 0, got nan"),
        ("padim", {"layers": ["a", "a"]}, "layers: must be a list of layer names, each once"),
        ("padim", {"layers": []}, "layers: must be a list of layer names, each once, or null"),
        ("padim", {"layers": ["a", 1]}, "layers: must be a list of layer names, each once"),
        ("padim", {"layers": "a"}, "layers: must be a list of layer names, each once"),
        ("padim", {"epsilon": float("inf")}, "epsilon: must be a number above 0, got inf"),
        ("padim", {"epsilon": True}, "epsilon: must be a number above 0, got True"),
        ("patchcore", {"coreset_ratio": 0}, "coreset_ratio: must be a number above 0, at most 1"),
        ("patchcore", {"embedding": "x"}, "embedding: must be one of official, concat, got 'x'"),
        ("patchcore", {"distance": "l1"}, "distance: must be one of euclidean, cosine, got 'l1'"),
        ("patchcore", {"pooling": 2}, "pooling: must be odd, got 2"),
        ("patchcore", {"image_score": "top0%"}, "image_score: must be 'max' or 'topP%' with P"),
        ("patchcore", {"image_score": 1}, "image_score: must be 'max' or 'topP%' with P"),
        ("patchcore", {"neighbours": 3, "distance": "cosine"}, "it needs 'distance: euclidean'"),
        ("spade", {"image_score": "top1%"}, "image_score: must be one of neighbours, max"),
        ("padim", {"shots": 0}, "shots: must be a whole number of at least 1, got 0"),
        ("patchcore", {"coreset_ratio": 1.5}, "coreset_ratio: must be a number above 0, at most 1"),
        ("patchcore", {"k": 3}, "k: unknown parameter of patchcore; it has layers, embedding"),
        ("knn", {}, "method 'knn' is unknown; choose one of spade, padim, patchcore"),
    ],
)
def test_bad_parameters_are_named(method, parameters, message):
    with pytest.raises(ConfigError) as error:
        methods.create(method, parameters)
    assert message in str(error.value)


@pytest.mark.parametrize("method", [None, *methods.METHODS])
def test_the_examples_of_the_docstrings_run(method):
    module = sys.modules[methods.method_class(method).__module__] if method else methods
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0


def test_features_made_with_other_settings_are_refused(train):
    made_with = {"backbone": "resnet18", "layers": ["a"], "device": "cpu"}
    detector = SPADE().fit(train, made_with=made_with)
    detector.check_features({"backbone": "resnet18", "layers": ["a"], "device": "cuda"})
    with pytest.raises(StoreError, match="backbone: the model's are 'resnet18', these 'resnet50'"):
        detector.check_features({"backbone": "resnet50", "layers": ["a"], "device": "cpu"})


def test_prediction_starts_without_pandas():
    """It takes half a second."""
    code = (
        "import sys; import indad.cli.main, indad.cli.predict, indad.features.extract; "
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "scripts")
    assert done.stdout.split() == ["False"]


def test_planning_a_workflow_imports_no_torch():
    """Importing torch takes two seconds, and Snakemake imports these modules in every job."""
    code = (
        "import sys; import indad.pipeline.config, indad.data.manifest, indad.methods, "
        "indad.reporting.tables, "
        "indad.evaluation.evaluate, indad.evaluation.scores, indad.features.store, "
        "indad.reporting.pictures, "
        "indad.reporting.curve_figures, indad.reporting.tradeoff; "
        "from indad import load_model, methods; [methods.create(m, {}) for m in methods.METHODS]; "
        "print([m for m in ('torch', 'torchvision', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "scripts"), "PATH": ""},
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("detector", SMALL, ids=lambda d: d.method)
def test_fitting_again_forgets_the_first_fit(detector, train, test, rng):
    expected = detector.fit(train).score(test)
    detector.fit(make_features(rng, 9)).score(test)
    again = detector.fit(train).score(test)
    np.testing.assert_array_equal(again.maps, expected.maps)


@pytest.mark.parametrize(
    "detector",
    [
        lambda: SPADE(k_image=5, k_pixel=50),
        lambda: PaDiM(dimensions=2),  # more dimensions than twice the images, and fewer
        lambda: PaDiM(dimensions=12),
        lambda: PatchCore(embedding="concat", coreset_ratio=0.001, neighbours=9),
        lambda: PatchCore(embedding="concat", coreset_ratio=1.0),
    ],
)
def test_one_training_image_is_enough(rng, detector):
    train, test = make_features(rng, 1), make_features(np.random.default_rng(1), 3)
    fitted = detector().fit(train)
    scores = fitted.score(test)
    assert np.isfinite(scores.image).all()
    assert np.isfinite(scores.maps).all()
    assert (scores.image > 0).all()
    # The training image itself has the lowest possible score.
    if not (isinstance(fitted, PatchCore) and fitted.coreset_ratio < 1):
        assert fitted.score(train).image[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("detector", SMALL[:3], ids=lambda d: d.method)
def test_equal_images_give_finite_scores(detector):
    """Constant images have no variance, and all patches are equal."""
    shapes = {"a": (5, 8, 8), "b": (7, 4, 4)}

    def flat(count: int, value: float) -> ArrayFeatures:
        maps = {name: np.full((count, *shape), value) for name, shape in shapes.items()}
        return ArrayFeatures(maps, input_size=(32, 32))

    detector.fit(flat(6, 0.5))
    same, other = (detector.score(flat(2, value)) for value in (0.5, 0.9))
    assert np.isfinite(same.maps).all()
    np.testing.assert_allclose(same.image, 0, atol=1e-5)
    assert (other.image > same.image + 0.01).all()


THREADS = """
import sys
sys.path[:0] = ["scripts", "tests"]
import numpy as np
from indad.core import device
device.use_device({"device": "cpu", "tf32": False}, 1)
import torch
from conftest import make_features
from indad import methods
rng = np.random.default_rng(0)
shapes = {"a": (64, 28, 28), "b": (96, 14, 14)}
train, test = make_features(rng, 24, shapes=shapes), make_features(rng, 17, shapes=shapes)
for name, parameters in (
    ("spade", {"k_pixel": 5}),
    ("padim", {"dimensions": 60}),  # low rank
    ("padim", {"dimensions": 40}),  # Cholesky
    ("patchcore", {"embedding": "concat", "coreset_ratio": 0.05}),
):
    found = set()
    for threads in (1, 2, 3, 5, 8):
        torch.set_num_threads(threads)
        detector = methods.create(name, parameters, seed=0).fit(train)
        scores = detector.score(test)
        state = [np.asarray(value).tobytes() for value in detector._state().values()]
        found.add((*state, scores.image.tobytes(), scores.maps.tobytes()))
    print(name, len(found))
"""


@pytest.mark.slow
def test_up_to_eight_threads_give_the_same_bits():
    """In a separate process: MKL reads its setting only when it is loaded."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["spade", "1", "padim", "1", "padim", "1", "patchcore", "1"]
