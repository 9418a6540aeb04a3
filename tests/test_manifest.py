"""The manifest lists all images, and all problems of a category are reported at once."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import Counter

import numpy as np
import pytest

from conftest import save_image
from indad.core.errors import DataError, StoreError
from indad.data import decode, manifest
from indad.data.categories import is_category
from indad.data.data_warnings import read_warnings, write_warnings
from indad.data.folder_layout import Reading
from indad.data.images import Geometry
from indad.data.public.suggest import find_categories


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


def test_a_category_without_masks_is_fine(category):
    shutil.rmtree(category / "ground_truth")
    table = manifest.build(category)
    assert set(table["mask"]) == {""}
    assert table["label"].sum() == 3


def test_all_problems_are_reported_at_once(category):
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
        "test/cut/000.png: mask missing, expected",
        "cut/001_mask.png: the mask is empty",
        "dirt/a.png: the mask has 10 x 10 pixels, its image has 48 x 40",
        "lonely_mask.png: a mask without an image",
        "good/001.*: 2 images of that name",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/good"], "no training image"),
        (["test/good"], "no good test image.*'allow_one_class: true'"),
        (["test/cut", "test/dirt", "ground_truth"], "no defective test image.*'allow_one_class"),
    ],
)
def test_missing_kinds_of_images(category, folders, message):
    for folder in folders:
        shutil.rmtree(category / folder)
    with pytest.raises(DataError, match=message):
        manifest.build(category)
    if folders != ["train/good"]:
        assert len(manifest.build(category, Reading(allow_one_class=True))) >= 5


def test_categories_are_found(category):
    (category.parent / "notes").mkdir()
    assert find_categories(category.parent) == ["widget"]
    with pytest.raises(DataError, match="single category: give its parent"):
        find_categories(category)
    with pytest.raises(DataError, match=r"nowhere: data folder not found.*train/good"):
        find_categories(category / "nowhere")


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
    with pytest.raises(StoreError, match=r"m\.csv"):
        manifest.read(tmp_path / "m.csv")


def test_no_image_is_ignored_silently(category, rng):
    decode = rng.integers(0, 9, (40, 48, 3), dtype=np.uint8)
    save_image(category / "train/bad/0.png", decode)
    save_image(category / "test/cut/more/0.png", decode)  # read, and without a mask
    save_image(category / "test/loose.jpg", decode)
    save_image(category / "test/cut/photo.gif", decode)
    save_image(category / "test/.thumbnails/0.png", decode)
    (category / "test/cut/notes.txt").write_text("not an image")
    with pytest.raises(DataError) as error:
        manifest.build(category)
    message = str(error.value)
    assert "4 problems found" in message
    for part in ("train/bad/0.png", "more/0.png", "loose.jpg", "photo.gif: GIF images cannot be"):
        assert part in message


# -- layouts other than MVTec AD's -----------------------------------------------------------------


def moved(category, **names):
    for old, new in names.items():
        target = category / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (category / old.replace("__", "/")).rename(target)
    return category


def plain(table):
    """What a manifest says, whatever the folders are called."""
    return [
        (row.image.rsplit("/", 1)[1], row.split, row.label, row.defect, row.mask_sha256)
        for row in table.sort_values(["split", "defect", "image"]).itertuples()
    ]


def test_folders_may_have_other_names(category):
    expected = plain(manifest.build(category))
    moved(category, train__good="learn/OK", test__good="check/fine", test="check2")
    for kind in ("cut", "dirt"):
        (category / "check2" / kind).rename(category / "check" / kind)
    (category / "check2").rmdir()
    moved(category, ground_truth="gt/masks")
    for mask in list((category / "gt/masks").rglob("*_mask.png")):
        mask.rename(mask.with_name(mask.name.replace("_mask", "-GT")))
    (category / "gt/masks/dirt/a.png").rename(category / "gt/masks/dirt/a-GT.png")
    reading = Reading(
        train="learn", test="check", good=("OK", "fine"), masks="gt/masks", mask_suffix=("-GT",)
    )
    assert plain(manifest.build(category, reading)) == expected
    assert find_categories(category.parent, reading) == ["widget"]
    assert manifest.fingerprint(category, reading) != manifest.fingerprint(category)


def test_kinds_side_by_side_without_a_split(category):
    """normal/ and one folder a defect, the masks in a folder beside them."""
    (category / "train/good").rename(category / "normal")
    for kind in ("cut", "dirt"):
        (category / "test" / kind).rename(category / kind)
    shutil.rmtree(category / "test")
    (category / "train").rmdir()
    reading = Reading(train=".", test=".", good=("normal",), holdout=0.34)
    table = manifest.build(category, reading)
    assert Counter(zip(table["split"], table["defect"], strict=True)) == {
        ("train", "good"): 2,
        ("test", "good"): 1,
        ("test", "cut"): 2,
        ("test", "dirt"): 1,
    }
    assert (table["mask"] != "").sum() == 3


def test_names_that_contain_good_are_not_good(category):
    for name in ("not_good", "goodish", "good_but_dirty", "fine", "GOOD ones", "Normal"):
        shutil.copytree(category / "test/dirt", category / "test" / name)
    shutil.copytree(category / "train/good", category / "train/not_good")
    found = manifest.survey(category)
    labels = found.table.groupby("defect")["label"].unique().to_dict()
    assert labels.pop("good") == [0]
    assert len(labels) == 8
    assert all(label == [1] for label in labels.values())
    assert sum("no images are read from this folder" in each for each in found.problems) == 3
    assert any("'Normal' is used as a defect although" in str(each) for each in found.warnings)


@pytest.mark.parametrize(("folder", "message"), [
    ("test/Good", "its name is 'Good', which the option 'good' does not list"),
    ("train/Good", "no images are read from this folder"),
])  # fmt: skip
def test_good_in_other_capitals_is_refused(category, folder, message):
    shutil.copytree(category / "test/dirt", category / folder)
    (problem,) = manifest.survey(category).problems
    assert message in problem
    assert manifest.survey(category, Reading(good=("good", "Good"))).problems == []


def test_a_folder_called_good_must_mean_good(category):
    (category / "train/good").rename(category / "train/ok")
    with pytest.raises(
        DataError, match="its name is 'good', which the option 'good' does not list"
    ):
        manifest.build(category, Reading(good=("ok",)))


def test_images_in_sub_folders_keep_their_names(category):
    for place in ("train/good", "test/cut"):
        (category / place / "2024/may").mkdir(parents=True)
        shutil.move(category / place / "001.png", category / place / "2024/may/x.png")
    masks = category / "ground_truth/cut/2024/may"
    masks.mkdir(parents=True)
    shutil.move(category / "ground_truth/cut/001_mask.png", masks / "x_mask.png")
    found = manifest.survey(category)
    assert found.problems == []
    table = found.table.set_index("image")
    assert table.loc["train/good/2024/may/x.png", "label"] == 0
    assert table.loc["test/cut/2024/may/x.png", "mask"] == "ground_truth/cut/2024/may/x_mask.png"
    assert table.loc["test/cut/2024/may/x.png", "defect"] == "cut"
    assert "1 image in good/2024, a sub-folder of the good" in str(found.warnings[0])


def test_the_same_name_written_in_two_ways_pairs(category):
    """A Mac writes an umlaut as two characters, others as one."""
    one, two = unicodedata.normalize("NFC", "Öse ä"), unicodedata.normalize("NFD", "Öse ä")
    (category / "test/cut").rename(category / "test" / one)
    (category / "ground_truth/cut").rename(category / "ground_truth" / two)
    shutil.move(category / "test" / one / "000.png", category / "test" / one / f"{two}.png")
    masks = category / "ground_truth" / two
    shutil.move(masks / "000_mask.png", masks / f"{one}_mask.png")
    table = manifest.build(category)
    assert (table["mask"] != "").sum() == 3
    assert one in set(table["defect"])
    (category / "test" / two).mkdir()
    shutil.copy(category / "test" / one / "001.png", category / "test" / two / "001.png")
    with pytest.raises(DataError, match=f"{one}/001.*: 2 images of that name"):
        manifest.build(category)


def test_an_image_named_like_anothers_mask(category):
    for name in ("a_mask.png", "a_mask_mask.png"):
        shutil.copy(category / "test/dirt/a.png", category / "test/dirt" / name)
    source = category / "ground_truth/dirt/a.png"
    for name in ("a_mask.png", "a_mask_mask.png", "a_mask_mask_mask.png"):
        shutil.copy(source, source.with_name(name))
    source.unlink()
    table = manifest.build(category).set_index("image")["mask"]
    assert table["test/dirt/a.png"] == "ground_truth/dirt/a_mask.png"
    assert table["test/dirt/a_mask.png"] == "ground_truth/dirt/a_mask_mask.png"
    assert table["test/dirt/a_mask_mask.png"] == "ground_truth/dirt/a_mask_mask_mask.png"


def test_masks_may_be_missing_where_that_is_allowed(category):
    (category / "ground_truth/cut/000_mask.png").unlink()
    with pytest.raises(DataError, match="mask missing.* 'missing_masks: allow'"):
        manifest.build(category)
    found = manifest.survey(category, Reading(missing_masks="allow"))
    assert found.problems == []
    assert "1 of 3 defective images have no mask" in str(found.warnings[0])
    assert (found.table["mask"] != "").sum() == 2


def test_masks_of_good_images_must_be_empty(category):
    place = category / "ground_truth/good"
    save_image(place / "000_mask.png", np.zeros((40, 48), np.uint8))
    assert set(manifest.build(category).query("label == 0")["mask"]) == {""}
    save_image(place / "001_mask.png", np.ones((40, 48), np.uint8))
    with pytest.raises(DataError, match="001_mask.png: marks a defect in a good image"):
        manifest.build(category)


def test_masks_without_images_are_reported(category):
    shutil.copytree(category / "ground_truth/cut", category / "ground_truth/crack")
    shutil.copy(category / "ground_truth/cut/000_mask.png", category / "ground_truth/loose.png")
    problems = manifest.survey(category).problems
    assert len(problems) == 3
    assert any("a mask without an image of that name in test/crack" in each for each in problems)
    assert any("a mask without an image of that name in test/<defect>" in each for each in problems)


def write_list(path, rows, header="image,split,defect,mask"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def listed(category):
    """The category's photos in one folder, named by a list."""
    rows = []
    for row in manifest.build(category).itertuples():
        name = f"photos/{row.image.replace('/', ' ')}"
        (category / "photos").mkdir(exist_ok=True)
        (category / row.image).rename(category / name)
        mask = ""
        if row.mask:
            mask = f"drawn/{row.mask.replace('/', '-')}"
            (category / "drawn").mkdir(exist_ok=True)
            (category / row.mask).rename(category / mask)
        rows.append(f"{name},{row.split},{'OK' if not row.label else row.defect},{mask}")
    for folder in ("train", "test", "ground_truth"):
        shutil.rmtree(category / folder)
    return rows


def test_a_list_says_what_each_image_is(category):
    before = manifest.build(category)
    rows = listed(category)
    reading = Reading(list="split.csv", good=("OK",))
    own = category / "split.csv"
    write_list(own, rows)
    table = manifest.build(category, reading)
    for column in ("split", "label", "defect", "sha256", "mask_sha256"):
        assert sorted(table[column]) == sorted(before[column])
    assert find_categories(category.parent, reading) == ["widget"]
    assert is_category(category, reading)
    seen = manifest.fingerprint(category, reading)

    # Excel writes semicolons and a byte order mark.
    text = "\ufeffNote;Image;split;defect;MASK\n" + "".join(
        f"x;{row.replace(',', ';')}\n" for row in reversed(rows)
    )
    own.write_text(text, encoding="utf-8")
    assert manifest.build(category, reading).to_csv() == table.to_csv()
    assert manifest.fingerprint(category, reading) != seen

    # Or in the parent folder of the categories.
    own.unlink()
    full = [",".join(f"widget/{p}" if "/" in p else p for p in row.split(",")) for row in rows]
    write_list(category.parent / "split.csv", full)
    assert find_categories(category.parent, reading) == ["widget"]
    assert not is_category(category.parent, reading)
    assert manifest.build(category, reading).to_csv() == table.to_csv()


def test_all_problems_of_a_list_are_reported(category, rng):
    rows = listed(category)
    save_image(category / "photos/extra.png", rng.integers(0, 9, (40, 48, 3), np.uint8))
    twice = rows[0].split(",")[0]
    rows += [
        "photos\\a.png,train,OK,",
        "no/such.png,test,OK,",
        f"{twice},test,OK,",
        "photos/extra.png,val,OK,",
        "photos/extra.png,train,dent,",
        "photos/extra.png,test,,",
        "../secret.png,test,dent,",
    ]
    write_list(category / "split.csv", rows)
    reading = Reading(list="split.csv", good=("OK",))
    problems = manifest.survey(category, reading).problems
    for part in (
        "line 10: image 'photos\\\\a.png' is not an image file in",
        "line 11: image 'no/such.png' is not an image file in",
        f"line 12: {twice!r} is also in line 2",
        "line 13: split must be train or test, got 'val'",
        "line 14: 'dent' in the training split, which may have good images only (OK)",
        "line 15: defect is empty; write 'OK' for a good image",
        "line 16: image '../secret.png' is not an image file in",
    ):
        assert sum(part in each for each in problems) == 1, part
    assert len(problems) == 7
    write_list(category / "split.csv", rows[:8])
    (problem,) = manifest.survey(category, reading).problems
    assert "1 image not in the list" in problem
    assert "photos/extra.png; list them, or set 'unlisted: allow'" in problem
    allowed = Reading(list="split.csv", good=("OK",), unlisted="allow")
    assert len(manifest.build(category, allowed)) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the column image and split and defect.* it is: empty"),
        (b"image,label\n", "lacks the column split and defect"),
        (b"image,split,defect\n\xff.png,train,good\n", "not UTF-8; save the list as 'CSV UTF-8'"),
        (b'image,split,defect\n"a,train,good\n', "not a readable list"),
        (b"image,split,defect\na\0.png,train,good\n", "is not an image file|not a readable list"),
        (None, "no such list; it must be in the category folder or in its parent"),
    ],
)
def test_a_list_that_cannot_be_read(category, content, message):
    if content is not None:
        (category / "split.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        manifest.build(category, Reading(list="split.csv"))


def test_hold_out(category, rng):
    for i in range(3, 10):
        save_image(category / f"train/good/{i:03d}.png", rng.integers(0, 9, (40, 48, 3), np.uint8))
    assert len(manifest.build(category, Reading(holdout=0.2))) == 15  # not needed
    shutil.rmtree(category / "test/good")
    with pytest.raises(DataError, match="no good test image.*'holdout: 0.2'"):
        manifest.build(category)

    def held(**options) -> set[str]:
        table = manifest.build(category, Reading(**options))
        chosen = table.query("split == 'test' and label == 0")["image"]
        assert len(table) == 13
        return set(chosen)

    assert len(held(holdout=0.2)) == 2
    assert len(held(holdout=0.01)) == 1
    assert len(held(holdout=0.99)) == 9
    assert held(holdout=0.2) < held(holdout=0.5)
    assert len({frozenset(held(holdout=0.3, holdout_seed=seed)) for seed in range(5)}) > 1


def test_good_images_alone(category):
    for folder in ("test", "ground_truth"):
        shutil.rmtree(category / folder)
    with pytest.raises(DataError) as error:
        manifest.build(category)
    for part in ("no test image", "test/good", "'holdout: 0.2'", "'allow_one_class: true'", "list"):
        assert part in str(error.value)
    found = manifest.survey(category, Reading(holdout=0.34, allow_one_class=True))
    assert found.problems == []
    assert "all test images are good" in str(found.warnings[-1])
    for image in ("000", "001"):
        (category / f"train/good/{image}.png").unlink()
    (problem,) = manifest.survey(category, Reading(holdout=0.3, allow_one_class=True)).problems[:1]
    assert "there is only one training image, none can be held out" in problem


def test_links_hidden_files_and_special_files(category, tmp_path):
    photo = category / "train/good/000.png"
    for name in (".hidden.png", "Thumbs.db", ".DS_Store", "._000.png", "notes.txt"):
        shutil.copy(photo, category / "train/good" / name)
    expected = manifest.build(category)
    seen = manifest.fingerprint(category)
    (category / "train/good/desktop.ini").write_text("x")
    assert manifest.fingerprint(category) == seen  # nothing that is read has changed

    away = tmp_path / "elsewhere"
    shutil.move(photo, away)
    photo.symlink_to(away)
    shutil.move(category / "test/cut", tmp_path / "cut")
    (category / "test/cut").symlink_to(tmp_path / "cut")
    assert manifest.build(category).to_csv() == expected.to_csv()

    (category / "test/cut/loop").symlink_to(category / "test")
    (category / "test/good/gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(category / "test/good/pipe.png")
    (category / os.fsdecode(b"train/good/bad\xff.png")).write_bytes(b"")
    found = manifest.survey(category)
    assert any("test/cut/loop" in note.files for note in found.warnings if note.note)
    problems = found.problems
    for part in (
        "gone.png: a broken link",
        "pipe.png: not a regular file",
        "bad\\udcff.png: its name is not valid UTF-8",
    ):
        assert any(part in each for each in problems), part
    assert manifest.fingerprint(category) != seen


def test_images_outside_the_layout_are_reported(category, rng):
    save_image(category / "validation/good/0.png", rng.integers(0, 9, (9, 9, 3), np.uint8))
    save_image(category / "preview.png", rng.integers(0, 9, (9, 9, 3), np.uint8))
    found = manifest.survey(category)
    assert found.problems == []
    assert list(map(str, found.warnings)) == [
        "1 image in the category folder itself: not part of the layout, not read",
        "1 image in validation: not part of the layout, not read",
    ]


def test_warnings_about_results(category):
    truth = np.zeros((40, 48), np.uint8)
    truth[:4] = 255
    save_image(category / "ground_truth/cut/000_mask.png", truth)
    truth[8:20, 20:30] = 255  # 48 * 4 pixels outside, 120 inside
    save_image(category / "ground_truth/dirt/a.png", truth)
    (category / "ground_truth/cut/001_mask.png").unlink()
    shutil.rmtree(category / "test/good")
    reading = Reading(missing_masks="allow", allow_one_class=True)
    found = manifest.index(category, reading)
    output = category.parent / "p.h5"
    lines = [*found.warnings]
    lines += decode.decode(found.table, category, output, geometry=Geometry(40, (24, 24)))
    assert [(line.code, line.category) for line in lines] == [
        (code, "widget")
        for code in ("one-class", "masks-missing", "crop-share", "crop-lost", "crop-partly")
    ]
    texts = list(map(str, lines))
    assert texts[0].startswith("all test images are defective")
    assert texts[1].startswith("1 of 3 defective images have no mask")
    assert "see only 30 % of the area of 6 of 6 images" in texts[2]
    assert "set 'crop: null' or 'resize: [224, 288]' and 'crop: null'" in texts[2]
    assert texts[3].startswith("1 of 2 defects are completely outside the centre crop (40-24)")
    assert texts[4].startswith("1 of 2 defects are partly outside")
    assert "1 by more than half: ground_truth/dirt/a.png" in texts[4]
    path = category.parent / "w.json"
    write_warnings(lines, path)
    assert read_warnings(path) == lines
    path.write_text(path.read_text().replace("cut", "cat"))
    with pytest.raises(StoreError, match="w.json"):
        read_warnings(path)
