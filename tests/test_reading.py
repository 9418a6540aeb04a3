"""Options for other layouts, and suggestions for folders that do not fit them."""

from __future__ import annotations

import shutil

import pytest

from conftest import save_image
from indad.core.errors import ConfigError, DataError
from indad.data.folder_layout import ELSEWHERE, MASK, MISPLACED, TEST, TRAIN, Reading, sounds_good
from indad.data.manifest import build
from indad.data.public.suggest import find_categories


@pytest.mark.parametrize(
    ("options", "folder", "expected"),
    [
        ({}, "train/good", (TRAIN, ("good",))),
        ({}, "train/good/a/b", (TRAIN, ("good", "a", "b"))),
        ({}, "train/bad", (MISPLACED, ("bad",))),
        ({}, "train", (MISPLACED, ())),
        ({}, "test", (MISPLACED, ())),
        ({}, "test/good", (TEST, ("good",))),
        ({}, "test/cut/a", (TEST, ("cut", "a"))),
        ({}, "ground_truth", (MASK, ())),
        ({}, "ground_truth/cut", (MASK, ("cut",))),
        ({}, "good", (ELSEWHERE, ("good",))),
        ({}, "training/good", (ELSEWHERE, ("training", "good"))),
        ({"good": ["ok", "fine"]}, "train/fine", (TRAIN, ("fine",))),
        ({"train": ".", "test": "."}, "good", (TRAIN, ("good",))),
        ({"train": ".", "test": "."}, "cut", (TEST, ("cut",))),
        ({"train": ".", "test": "."}, "ground_truth/cut", (MASK, ("cut",))),
        ({"train": ".", "test": "."}, "", (MISPLACED, ())),
        ({"train": "."}, "good", (TRAIN, ("good",))),
        ({"train": "."}, "test/cut", (TEST, ("cut",))),
        ({"train": "."}, "other", (MISPLACED, ("other",))),
        ({"test": "."}, "train/good", (TRAIN, ("good",))),
        ({"test": "."}, "train/bad", (MISPLACED, ("bad",))),
        ({"test": "."}, "cut", (TEST, ("cut",))),
        ({"train": "a/b", "test": "a/c", "masks": "a/d"}, "a/b/good", (TRAIN, ("good",))),
        ({"train": "a/b", "test": "a/c", "masks": "a/d"}, "a/d/cut", (MASK, ("cut",))),
        ({"train": "a/b", "test": "a/c", "masks": "a/d"}, "a", (ELSEWHERE, ("a",))),
    ],
)
def test_meaning_of_folders(options, folder, expected):
    parts = tuple(folder.split("/")) if folder else ()
    assert Reading.from_config(options).place(parts) == expected


def test_settings_differ_from_the_defaults():
    assert Reading.from_config({"path": "/x", "good": "good", "list": None}).settings == {}
    options = {"good": ["a", "b"], "mask_suffix": "_gt", "holdout": 0.5, "train": "t"}
    reading = Reading.from_config(options)
    assert reading.settings == options
    assert Reading.from_config(reading.settings) == reading


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "/data"}, "datasets.d.train: must be a name inside the category folder"),
        ({"test": "../x"}, "datasets.d.test: must be a name inside"),
        ({"masks": "."}, "datasets.d.masks: must be a name inside"),
        ({"masks": "test", "mask_suffix": ""}, "datasets.d.masks: 'test' is the folder of the im"),
        ({"masks": "train"}, "datasets.d.masks: 'train' is the folder of the training images"),
        ({"good": "a/b"}, "datasets.d.good: must be the name of a folder, got 'a/b'"),
        ({"unlisted": "allow"}, "datasets.d.unlisted: only with a 'list'"),
        ({"list": "x.csv", "train": "t"}, "datasets.d.list: the list replaces train"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Reading.from_config(options, "datasets.d")


@pytest.mark.parametrize(
    ("name", "good"),
    [("OK", True), ("defect-free", True), ("Normal", True), ("not_good", False), ("", False)],
)
def test_words_for_good(name, good):
    assert sounds_good(name) == good


def refused(root) -> str:
    with pytest.raises(DataError) as error:
        find_categories(root)
    return str(error.value)


def test_capitals_and_other_words_are_recognised(category):
    root = category.parent
    (category / "train").rename(category / "Train")
    (category / "test").rename(category / "Test")
    (category / "Train/good").rename(category / "Train/OK")
    (category / "Test/good").rename(category / "Test/ok")
    message = refused(root)
    options = {"train": "Train", "test": "Test", "good": ["OK", "ok"]}
    text = f"mine: {{path: {root}, train: Train, test: Test, good: [OK, ok]}}"
    assert text in message
    assert len(build(category, Reading.from_config(options))) == 8
    assert f"path: {root}, categories: [widget], train: Train" in refused(category)


def test_two_folders_and_no_split_are_recognised(tmp_path, rng):
    for name in ("normal/0", "normal/1", "abnormal/2"):
        pixels = rng.integers(0, 9, (9, 9, 3), dtype="uint8")
        save_image(tmp_path / "part" / f"{name}.png", pixels)
    wanted = "train: ., test: ., good: normal, holdout: 0.2}"
    assert wanted in refused(tmp_path)
    assert f"categories: [part], {wanted}" in refused(tmp_path / "part")
    options = {"train": ".", "test": ".", "good": "normal", "holdout": 0.2}
    assert len(build(tmp_path / "part", Reading.from_config(options))) == 3
    shutil.rmtree(tmp_path / "part/abnormal")
    assert "holdout: 0.2, allow_one_class: true" in refused(tmp_path)


def test_a_list_is_recognised(category):
    rows = [f"front/{i:03d}.png,train,ok" for i in range(3)] + ["back/cut/000.png,test,cut"]
    (category / "what.csv").write_text("\n".join(["image,split,defect", *rows]))
    (category / "train/good").rename(category / "front")
    (category / "test").rename(category / "back")
    (category / "train").rmdir()
    assert f"mine: {{path: {category.parent}, list: what.csv}}" in refused(category.parent)
    assert "categories: [widget], list: what.csv}" in refused(category)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["0.png"], "There are images directly in it, but nothing says which are good"),
        (["some/0.png"], "There are images in 'some', but nothing says which are good"),
        (["split_csv/1cls.csv", "candle/Data/x.JPG"], "seems to be the public data set visa: run"),
        (["01/train/ok/0.bmp", "01/test/ok/1.bmp"], "seems to be the public data set btad"),
        (["more/part/train/good/0.png"], "one folder deeper: give "),
        (["x/notes.txt"], "test/<defect>.$"),
    ],
)
def test_other_folders(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=message):
        find_categories(tmp_path)
