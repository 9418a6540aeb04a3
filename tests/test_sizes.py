"""Images of several sizes: memory-bank methods take them, PaDiM refuses them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from conftest import save_image
from indad import methods
from indad.core.errors import ConfigError, DataError
from indad.data import decode, manifest
from indad.data.images import Geometry, mask_pixels
from indad.evaluation import evaluate, scores
from indad.features.extract import extract
from indad.features.source import FeatureSource, Part, chunks_of
from indad.features.store import FeatureStore
from indad.methods.base import Scores

#: Heights and widths of the first layer.
GRIDS = ((4, 6), (5, 3))


def several(rng, count: int) -> FeatureSource:
    """Return features of ``count`` images of each size."""
    parts = []
    for height, width in GRIDS:
        shapes = {"a": (6, height, width), "b": (4, height // 2, width // 2 + 1)}
        maps = {
            name: rng.normal(size=(count, *shape)).astype(np.float32)
            for name, shape in shapes.items()
        }
        z = maps["b"].mean(axis=(2, 3))
        parts.append(Part(maps, z, (8 * height, 8 * width)))
    return FeatureSource(["a", "b"], parts)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("patchcore", {"embedding": "concat", "coreset_ratio": 1.0}),
        ("patchcore", {"coreset_ratio": 0.5, "coreset": "merge", "part_patches": 80}),
        ("spade", {"k_image": 2, "k_pixel": 3}),
    ],
)
def test_memory_banks_take_any_size(rng, tmp_path, method, parameters):
    train, test = several(rng, 4), several(rng, 20)
    detector = methods.create(method, parameters).fit(train)
    result = detector.score(test)
    assert [each.shape for each in result.maps] == [(32, 48)] * 20 + [(40, 24)] * 20
    for at in (range(20), range(20, 40)):
        alone = detector.score(test.subset(at))
        np.testing.assert_allclose(result.image[at], alone.image, rtol=1e-5)
        np.testing.assert_allclose(np.stack([result.maps[i] for i in at]), alone.maps, rtol=1e-4)
    detector.save(tmp_path / "m.safetensors")
    again = methods.load(tmp_path / "m.safetensors", gallery=train)
    np.testing.assert_array_equal(again.score(test).image, result.image)


def test_every_training_patch_is_in_the_bank(rng):
    train = several(rng, 4)
    parameters = {"embedding": "concat", "coreset_ratio": 1.0, "layers": ["a"]}
    detector = methods.create("patchcore", parameters).fit(train)
    assert len(detector.bank_) == 4 * sum(height * width for height, width in GRIDS)
    assert detector.score(train).image.max() < 1e-5


def test_padim_needs_one_size(rng):
    with pytest.raises(ConfigError, match=r"padim: the images differ in size; set 'resize: \["):
        methods.create("padim", {"dimensions": 3}).fit(several(rng, 4))


def test_parts_and_subsets(rng):
    source = several(rng, 5)
    assert chunks_of(source, 3) == [slice(0, 3), slice(3, 5), slice(5, 8), slice(8, 10)]
    assert chunks_of(source, 9, slice(2, 7)) == [slice(2, 5), slice(5, 7)]
    with pytest.raises(ValueError, match="images 4 to 5 differ in size"):
        source.maps("a", slice(4, 6))
    chosen = source.subset([1, 4, 7])
    assert (chosen.starts, chosen.input_size) == ([0, 2], None)
    np.testing.assert_array_equal(chosen.maps("a", slice(2, 3)), source.maps("a", slice(7, 8)))
    assert source.subset([5, 6]).input_size == source.size_of(5) == (40, 24)


def test_features_are_stored_by_size(category, tmp_path, rng):
    for name in ("train/good/wide.png", "test/good/wide.png"):
        save_image(category / name, rng.integers(0, 255, (40, 90, 3), dtype=np.uint8))
    rows = manifest.build(category)
    pixels, features = tmp_path / "p.h5", tmp_path / "f.h5"
    geometry = Geometry(40, None)
    with pytest.raises(DataError, match="PaDiM cannot use them"):
        decode.decode(rows, category, pixels, geometry=geometry, one_size=["PaDiM"])
    decode.decode(rows, category, pixels, geometry=geometry)
    extractor = {
        "backbone": "test_resnet", "layers": ["layer1"], "embedding": "layer1", "resize": 40,
        "crop": None, "weights": "random", "precision": "float32", "dtype": "float32",
    }  # fmt: skip
    extract(rows, pixels, features, extractor=extractor)
    names = rows.loc[rows["split"] == "test", "image"].tolist()
    with FeatureStore(features) as store, decode.Pixels(pixels, rows) as opened:
        sizes = {size: len(group) for size, group in opened.by_size("test").items()}
        assert sizes == {(40, 48): len(names) - 1, (40, 90): 1}
        numbers = store.numbers("test").tolist()
        assert numbers == [number for group in opened.by_size("test").values() for number in group]
        assert sorted(numbers) == [*range(len(names))]
        detector = methods.create("patchcore", {}).fit(store.split("train"))
        maps = detector.score(store.split("test")).maps
        assert {each.shape for each in maps} == set(sizes)


def test_maps_and_masks_at_the_size_of_the_image_files(category, tmp_path, rng):
    save_image(category / "test/good/wide.png", rng.integers(0, 255, (40, 90, 3), dtype=np.uint8))
    rows = manifest.build(category)
    geometry = Geometry(32, (32, 24))
    decode.decode(rows, category, tmp_path / "p.h5", geometry=geometry)
    files = scores.ScoreFiles(tmp_path / "s.csv", tmp_path / "m.h5", tmp_path / "p.h5")
    truth = decode.Pixels(files.pixels, rows).ground_truth(rows)
    maps = rng.random((len(truth.image), 32, 24), np.float32)
    made_with = {"features_made_with": {"manifest_sha256": manifest.content_hash(rows)}}
    with scores.create(truth, files.table, files.maps) as writer:
        writer.write(range(len(maps)), Scores(maps.max(axis=(1, 2)), maps))
        writer.finish(0.5, made_with)
    settings = {"evaluate_at": "original", "resize": 32, "crop": [32, 24]}
    full = scores.FullSize.from_settings(str(category), settings)
    scored, truth = scores.read_with_truth(files, rows, full)
    test = rows[rows["split"] == "test"]
    for i, row in enumerate(test.itertuples()):
        top, left, bottom, right = geometry.window(row.height, row.width)
        assert scored.maps[i].shape == truth.mask[i].shape == (row.height, row.width)
        seen = np.zeros((row.height, row.width), bool)
        seen[top:bottom, left:right] = True
        assert (scored.maps[i][~seen] == scores.UNSEEN).all()
        assert abs(scored.maps[i][seen].mean() - maps[i].mean()) < 0.02
        expected = mask_pixels(category / row.mask).sum() if row.mask else 0
        assert truth.mask[i].sum() == expected
    pixels = evaluate.PixelScores(scored.maps, truth)
    assert pixels.ordered.positives == sum(mask.sum() for mask in truth.mask)
    labels = np.concatenate([mask.ravel() for mask in truth.mask])
    found = np.concatenate([each.ravel() for each in scored.maps])
    values = evaluate.evaluate(scored.table, pixels)
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(labels, found))
    assert scores.FullSize.from_settings("x", settings | {"evaluate_at": "input"}) is None
    name = test.loc[test["mask"] != "", "mask"].iloc[0]
    save_image(category / name, np.zeros((40, 48), np.uint8))
    with pytest.raises(DataError, match=f"{name}: has changed since it was indexed"):
        evaluate.PixelScores(scored.maps, truth)
