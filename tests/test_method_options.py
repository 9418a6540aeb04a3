"""Distances, image scores and small training sets: each equals its plain definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

import references
from conftest import make_features
from indad import methods
from indad.features.source import ArrayFeatures
from indad.methods.padim import PaDiM
from indad.methods.patchcore import PatchCore
from indad.methods.spade import SPADE

SHAPES = {"a": (7, 12, 10)}


@pytest.fixture
def train(rng):
    return make_features(rng, 6, shapes=SHAPES)


@pytest.fixture
def test():
    return make_features(np.random.default_rng(1), 4, shapes=SHAPES)


def vectors(source: ArrayFeatures) -> np.ndarray:
    """``(N, h w, C)``."""
    maps = source.maps("a").astype(float)
    return maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1)


def expected_maps(distances: np.ndarray, test: ArrayFeatures) -> np.ndarray:
    low = distances.reshape(len(test), *SHAPES["a"][1:])
    return np.array([references.smooth(each) for each in references.bilinear(low, test.input_size)])


@pytest.mark.parametrize(("image_score", "count"), [("top1%", 1), ("top2.5%", 3), ("max", 1)])
def test_anomaly_dino_is_an_experiment_of_patchcore(train, test, image_score, count):
    detector = PatchCore(
        embedding="concat",
        pooling=1,
        distance="cosine",
        image_score=image_score,
        coreset_ratio=1.0,
    )
    scores = detector.fit(train).score(test)
    bank = vectors(train).reshape(-1, 7)
    distances = np.array(
        [pairwise_distances(x, bank, metric="cosine").min(axis=1) for x in vectors(test)]
    )
    highest = np.sort(distances, axis=1)[:, -count:].mean(axis=1)
    np.testing.assert_allclose(scores.image, highest, rtol=1e-4)
    np.testing.assert_allclose(scores.maps, expected_maps(distances, test), rtol=1e-4)


def test_pooling_one_leaves_the_features(train):
    detector = PatchCore(embedding="concat", pooling=1, coreset_ratio=1.0).fit(train)
    expected = vectors(train).reshape(-1, 7)[detector.indices_.numpy()]
    np.testing.assert_array_equal(detector.bank_, expected)
    assert len(detector.bank_) == 6 * 120


def test_spade_with_cosine_distance(train, test):
    scores = SPADE(k_image=2, k_pixel=3, distance="cosine").fit(train).score(test)
    between = pairwise_distances(test.embedding(), train.embedding(), metric="cosine")
    nearest = np.argsort(between, axis=1)
    expected = np.take_along_axis(between, nearest[:, :2], axis=1).mean(axis=1)
    np.testing.assert_allclose(scores.image, expected, rtol=1e-4, atol=1e-7)
    gallery, queries = vectors(train), vectors(test)
    distances = np.array(
        [
            pairwise_distances(x, gallery[images].reshape(-1, 7), metric="cosine").min(axis=1)
            for x, images in zip(queries, nearest[:, :3], strict=True)
        ]
    )
    np.testing.assert_allclose(scores.maps, expected_maps(distances, test), rtol=1e-4, atol=1e-7)
    by_map = SPADE(k_image=2, k_pixel=3, distance="cosine", image_score="max").fit(train)
    np.testing.assert_array_equal(by_map.score(test).image, scores.maps.max(axis=(1, 2)))


@pytest.mark.parametrize("method", [SPADE, PaDiM, PatchCore])
def test_shots_are_images_drawn_by_the_seed(train, test, method):
    options = {"dimensions": 5} if method is PaDiM else {}
    for seed in (0, 3):
        drawn = np.sort(np.random.default_rng(seed).permutation(6)[:4])
        alone = ArrayFeatures(
            {"a": train.maps("a")[drawn]},
            input_size=train.input_size,
            embedding=train.embedding()[drawn],
        )
        few = method(shots=4, seed=seed, **options).fit(train).score(test)
        expected = method(seed=seed, **options).fit(alone).score(test)
        np.testing.assert_array_equal(few.image, expected.image)
        np.testing.assert_array_equal(few.maps, expected.maps)


def test_more_shots_include_the_fewer_and_too_many_are_all(train, test):
    drawn = [{*PatchCore(shots=count, seed=2).draw(train).images} for count in range(1, 6)]
    assert all(fewer < more for fewer, more in itertools.pairwise(drawn))
    every = PaDiM(dimensions=5).fit(train).score(test)
    more = PaDiM(dimensions=5, shots=100).fit(train).score(test)
    np.testing.assert_array_equal(more.maps, every.maps)


def test_a_subset_reads_as_its_source(train):
    part = train.subset([1, 4])
    assert len(part) == 2
    assert part.shape("a") == train.shape("a")
    np.testing.assert_array_equal(part.maps("a"), train.maps("a")[[1, 4]])
    np.testing.assert_array_equal(
        part.maps("a", slice(1, 2), slice(2, 5)), train.maps("a")[[4], :, 2:5]
    )
    np.testing.assert_array_equal(part.embedding(slice(0, 1)), train.embedding()[[1]])


def test_image_score_changes_without_a_new_fit(train, test, tmp_path):
    path = tmp_path / "model.safetensors"
    PatchCore(embedding="concat", coreset_ratio=1.0).fit(train).save(path)
    changed = methods.load(path, parameters={"image_score": "top10%"}).score(test)
    alone = PatchCore(embedding="concat", coreset_ratio=1.0, image_score="top10%").fit(train)
    np.testing.assert_array_equal(changed.image, alone.score(test).image)
