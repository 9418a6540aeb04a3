"""The manifest finds what is there, and everything that is wrong, at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from conftest import save_image
from indad import manifest
from indad.errors import DataError


def test_rows_labels_and_masks(category):
    table = manifest.build(category)
    assert list(table["image"]) == [
        *(f"train/good/{i:03d}.png" for i in range(3)),
        "test/cut/000.png",
        "test/cut/001.png",
        "test/dirt/a.png",
        "test/good/000.png",
        "test/good/001.png",
    ]
    assert list(table["label"]) == [0, 0, 0, 1, 1, 1, 0, 0]
    assert list(table["mask"])[3:6] == [
        "ground_truth/cut/000_mask.png",
        "ground_truth/cut/001_mask.png",
        "ground_truth/dirt/a.png",  # without "_mask" is fine
    ]
    assert set(table["width"]) == {48}
    assert set(table["height"]) == {40}


def test_write_and_read_give_the_same_table(category, tmp_path):
    table = manifest.build(category)
    manifest.write(table, tmp_path / "m.csv")
    again = manifest.read(tmp_path / "m.csv")
    assert again.to_csv() == table.to_csv()
    assert manifest.content_hash(again) == manifest.content_hash(table)


def test_masks_pair_by_name_not_by_position(category):
    """Extra images without any mask folder, and masks listed in another order, shift nothing."""
    shutil.move(category / "test/cut/000.png", category / "test/cut/zzz.png")
    shutil.move(
        category / "ground_truth/cut/000_mask.png", category / "ground_truth/cut/zzz_mask.png"
    )
    table = manifest.build(category).set_index("image")
    assert table.loc["test/cut/zzz.png", "mask"] == "ground_truth/cut/zzz_mask.png"
    assert table.loc["test/cut/001.png", "mask"] == "ground_truth/cut/001_mask.png"


def test_words_in_the_root_path_do_not_matter(category, tmp_path):
    root = tmp_path / "good test ground_truth träin"
    shutil.copytree(category, root / "not good_at all")
    table = manifest.build(root / "not good_at all")
    assert table.to_csv() == manifest.build(category).to_csv()


def test_a_defect_named_like_good_is_a_defect(category):
    (category / "test/cut").rename(category / "test/good_but_cut")
    (category / "ground_truth/cut").rename(category / "ground_truth/good_but_cut")
    table = manifest.build(category)
    assert table.loc[table["defect"] == "good_but_cut", "label"].tolist() == [1, 1]


def test_a_category_without_masks_is_fine(category):
    shutil.rmtree(category / "ground_truth")
    table = manifest.build(category)
    assert set(table["mask"]) == {""}
    assert table["label"].sum() == 3


def test_everything_wrong_is_said_at_once(category):
    (category / "train/good/000.png").write_bytes(b"junk")
    (category / "ground_truth/cut/000_mask.png").unlink()
    save_image(category / "ground_truth/cut/001_mask.png", np.zeros((40, 48), np.uint8))
    save_image(category / "ground_truth/dirt/a.png", np.ones((10, 10), np.uint8))
    save_image(category / "ground_truth/dirt/lonely_mask.png", np.ones((40, 48), np.uint8))
    save_image(category / "test/good/001.bmp", np.zeros((40, 48, 3), np.uint8))
    with pytest.raises(DataError) as error:
        manifest.build(category)
    message = str(error.value)
    for part in (
        "6 problems found",
        "train/good/000.png: cannot be decoded",
        "test/cut/000.png: mask missing, looked for",
        "cut/001_mask.png: mask is empty",
        "dirt/a.png: mask is 10 x 10 pixels, its image 48 x 40",
        "lonely_mask.png: a mask without an image",
        "good/001.*: 2 images of that name",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("train/good", "no training image"),
        ("test/good", "no good test image"),
    ],
)
def test_missing_parts_are_named(category, folder, message):
    shutil.rmtree(category / folder)
    with pytest.raises(DataError, match=message):
        manifest.build(category)


def test_no_defective_test_image(category):
    for folder in ("test/cut", "test/dirt", "ground_truth"):
        shutil.rmtree(category / folder)
    with pytest.raises(DataError, match="no defective test image"):
        manifest.build(category)


def test_categories_are_found(category):
    (category.parent / "notes").mkdir()
    assert manifest.find_categories(category.parent) == ["widget"]
    with pytest.raises(DataError, match="single category itself: give its parent"):
        manifest.find_categories(category)
    with pytest.raises(DataError, match=r"nowhere: data folder not found.*train/good"):
        manifest.find_categories(category / "nowhere")


def test_fingerprint_sees_added_removed_and_edited_files(category, rng):
    seen = {manifest.fingerprint(category)}
    save_image(category / "train/good/new.png", rng.integers(0, 9, (40, 48, 3), dtype=np.uint8))
    seen.add(manifest.fingerprint(category))
    (category / "train/good/000.png").unlink()
    seen.add(manifest.fingerprint(category))
    save_image(category / "train/good/new.png", rng.integers(0, 9, (41, 48, 3), dtype=np.uint8))
    seen.add(manifest.fingerprint(category))
    assert len(seen) == 4
    assert manifest.fingerprint(category) in seen
    assert manifest.fingerprint(category / "nowhere") == ""


def test_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("image,split\na,train\n")
    with pytest.raises(DataError, match=r"m\.csv"):
        manifest.read(tmp_path / "m.csv")


def test_no_image_is_passed_over_in_silence(category, rng):
    pixels = rng.integers(0, 9, (40, 48, 3), dtype=np.uint8)
    save_image(category / "train/bad/0.png", pixels)
    save_image(category / "test/cut/more/0.png", pixels)
    save_image(category / "test/loose.jpg", pixels)
    save_image(category / "test/cut/photo.gif", pixels)
    save_image(category / "test/.thumbnails/0.png", pixels)
    (category / "test/cut/notes.txt").write_text("not an image")
    with pytest.raises(DataError) as error:
        manifest.build(category)
    message = str(error.value)
    assert "4 problems found" in message
    for part in ("train/bad/0.png", "more/0.png", "loose.jpg", "photo.gif: .gif files cannot be"):
        assert part in message
