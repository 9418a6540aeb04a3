"""Synthetic textures: the same for the same seed, with exact masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from indad.data import synthetic

DEFECTS = [(name, defect) for name, m in synthetic.MATERIALS.items() for defect in m.defects]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def test_same_seed_same_bytes_and_more_images_change_nothing(tmp_path):
    asked = {"train": 3, "good": 2, "per_defect": 2, "size": 64}
    synthetic.draw_category(tmp_path / "a", "metal", **asked)
    synthetic.draw_category(tmp_path / "b", "metal", **asked)
    synthetic.draw_category(tmp_path / "more", "metal", train=5, good=3, per_defect=4, size=64)
    synthetic.draw_category(tmp_path / "other", "metal", **asked, seed=1)
    a, more, other = (files(tmp_path / name) for name in ("a", "more", "other"))
    assert a == files(tmp_path / "b")
    assert all(more[name] == content for name, content in a.items())
    images = [name for name in a if not name.startswith("ground_truth")]
    assert all(other[name] != a[name] for name in images)
    defects = synthetic.MATERIALS["metal"].defects
    assert {name.rsplit("/", 1)[0] for name in a} == {
        *("train/good", "test/good"),
        *(f"{place}/{defect}" for place in ("test", "ground_truth") for defect in defects),
    }


@pytest.mark.parametrize(("material", "defect"), DEFECTS)
def test_masks_are_exactly_what_changed(material, defect):
    areas = []
    for seed in range(4):
        good = synthetic.draw_good(material, np.random.default_rng(seed), 128)
        image, mask = synthetic.draw_defect(material, defect, np.random.default_rng(seed), 128)
        difference = np.abs(image.astype(int) - good).max(axis=2)
        assert not difference[~mask].any()
        assert np.median(difference[mask]) >= 3  # visible where the mask says so
        areas.append(mask.mean())
        assert label(mask, np.ones((3, 3)))[1] <= 40
    assert 0.0002 < np.mean(areas) < 0.15


@pytest.mark.parametrize("material", synthetic.MATERIALS)
def test_good_images_differ_and_use_the_range(material):
    one, two = (synthetic.draw_good(material, np.random.default_rng(s), 96) for s in (0, 1))
    assert one.shape == (96, 96, 3)
    assert np.abs(one.astype(int) - two).mean() > 3
    assert one.std() > 8
    assert np.mean((one == 0) | (one == 255)) < 0.02
