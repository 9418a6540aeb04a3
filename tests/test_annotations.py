"""Masks drawn as shapes, in labelme and COCO files, become the masks of their photos."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indad.core.errors import DataError
from indad.data import check, examine, manifest
from indad.data.annotations import Photo, draw, fill
from indad.data.folder_layout import Reading
from indad.data.images import Geometry

SIZE = (40, 48)  # of the fixture's images
SQUARE = [[12, 10], [30, 10], [30, 20], [12, 20]]  # its masks
PACKED = "Z?:n0000000000000000000000000000000000Vf0"  # SQUARE, from pycocotools.mask.encode
OTHER = [[2, 2], [5, 2], [5, 6]]


def filled_slowly(points, size) -> np.ndarray:
    """Test the centre of each pixel against each edge (even-odd rule)."""
    mask = np.zeros(size, bool)
    for row, column in np.ndindex(size):
        x, y = column + 0.5, row + 0.5
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            between = (y1 <= y) != (y2 <= y)
            mask[row, column] ^= between and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x
    return mask


def labelme(*shapes, height=SIZE[0], width=SIZE[1]) -> dict:
    return {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "x.png",
            "imageData": None, "imageHeight": height, "imageWidth": width}  # fmt: skip


def shape(points=SQUARE, label="cut", kind="polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def coco(names, annotations) -> dict:
    """COCO instances: ``annotations`` are pairs of a name and a segmentation."""
    ids = {name: i for i, name in enumerate(names)}
    return {
        "images": [
            {"id": i, "file_name": n, "height": SIZE[0], "width": SIZE[1]} for n, i in ids.items()
        ],
        "categories": [{"id": 7, "name": "cut"}],
        "annotations": [
            {"id": i, "image_id": ids[name], "category_id": 7, "segmentation": segmentation}
            for i, (name, segmentation) in enumerate(annotations)
        ],
    }


def save(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def drawn(tmp_path, content, labels=()) -> np.ndarray:
    return draw(save(tmp_path / "a.json", content), Photo("part/a.png", SIZE, labels))[0]


def problems_of(folder: Path, **options) -> str:
    with pytest.raises(DataError) as error:
        manifest.build(folder, Reading(**options))
    return str(error.value)


@pytest.fixture
def unmasked(category) -> Path:
    """The fixture's category without its masks; all defects are ``SQUARE``."""
    shutil.rmtree(category / "ground_truth")
    return category


def defective(folder: Path) -> list[Path]:
    return [folder / name for name in ("test/cut/000.png", "test/cut/001.png", "test/dirt/a.png")]


# -- drawing --------------------------------------------------------------------------------------


def test_polygons_are_filled_at_pixel_centres(rng):
    size = (9, 12)
    for corners in (3, 4, 7):
        for _ in range(20):
            points = rng.uniform(-4, 15, (corners, 2))
            for each in (points, np.round(points), np.round(2 * points) / 2):
                np.testing.assert_array_equal(fill(each, size), filled_slowly(each.tolist(), size))
    assert fill(np.array(SQUARE), SIZE).sum() == 18 * 10  # its area


def test_each_kind_of_shape_of_labelme(tmp_path):
    square = filled_slowly(SQUARE, SIZE)
    np.testing.assert_array_equal(drawn(tmp_path, labelme(shape())), square)
    corners = shape([SQUARE[2], SQUARE[0]], kind="rectangle")
    np.testing.assert_array_equal(drawn(tmp_path, labelme(corners)), square)
    circle = drawn(tmp_path, labelme(shape([[20, 20], [24, 23]], kind="circle")))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(circle, np.hypot(rows - 20, columns - 20) <= 5)

    inside = io.BytesIO()
    Image.fromarray(np.ones((10, 18), bool)).save(inside, "PNG")
    packed = base64.b64encode(inside.getvalue()).decode()
    mask = shape([[12, 10], [29, 19]], kind="mask", mask=packed)
    np.testing.assert_array_equal(drawn(tmp_path, labelme(mask)), square)


def test_old_labelme_files_lack_some_keys(tmp_path):
    content = {"shapes": [{"label": "cut", "points": SQUARE}], "imageData": ""}
    np.testing.assert_array_equal(drawn(tmp_path, content), filled_slowly(SQUARE, SIZE))


def test_polygons_and_run_lengths_of_coco(tmp_path):
    square = filled_slowly(SQUARE, SIZE)
    polygon = [np.ravel(SQUARE).tolist(), np.ravel(OTHER).tolist()]
    union = square | filled_slowly(OTHER, SIZE)
    np.testing.assert_array_equal(drawn(tmp_path, coco(["a.png"], [("a.png", polygon)])), union)

    column_wise = square.ravel(order="F")
    ends = np.flatnonzero(np.diff(column_wise, prepend=False, append=False))
    counts = np.diff(ends, prepend=0, append=square.size).tolist()
    plain = {"size": list(SIZE), "counts": counts}
    np.testing.assert_array_equal(drawn(tmp_path, coco(["a.png"], [("a.png", plain)])), square)
    packed = {"size": list(SIZE), "counts": PACKED}
    np.testing.assert_array_equal(drawn(tmp_path, coco(["a.png"], [("a.png", packed)])), square)


def test_only_the_listed_labels_count(tmp_path):
    content = labelme(shape(), shape(OTHER, "dust"), shape([[1, 1]], "note", "point"))
    mask = drawn(tmp_path, content, labels=("cut",))
    np.testing.assert_array_equal(mask, filled_slowly(SQUARE, SIZE))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (labelme(shape([[1, 1], [2, 2]])), r"shape 1 \('cut', polygon\) has 2 points"),
        (labelme(shape([[60, 1], [70, 1], [70, 9]])), "is outside its photo"),
        (labelme(shape(kind="linestrip")), "'cut', linestrip.* is no area"),
        (labelme(shape([["a", 1], [2, 2], [3, 3]])), "shape 1 .*cannot be read|has points|could"),
        (labelme(shape(kind="mask", mask="AAAA")), "cannot be read"),
        (labelme(shape(), height=41), "48 x 41 pixels, but part/a.png has 48 x 40"),
        ({"shapes": 3}, "no valid labelme file"),
        ({"colours": []}, "neither a labelme file"),
        ("[1, 2", "no JSON file"),
        (coco(["b.png"], []), "names part/a.png 0 times"),
        (coco(["a.png"], [("a.png", [])]), "box without a polygon"),
        (coco(["a.png"], [("a.png", [[1, 1, 2, 2]])]), "has 2 points"),
        (coco(["a.png"], [("a.png", [[1, 1, 2]])]), "odd number"),
        (coco(["a.png"], [("a.png", {"size": [9, 9], "counts": "1"})]), "run lengths"),
        (coco(["a.png"], [("a.png", {"size": list(SIZE), "counts": "0O1"})]), "run lengths"),
        (coco(["a.png"], [("a.png", {"size": list(SIZE), "counts": [5, 6]})]), "run lengths"),
        (coco(["a.png"], []) | {"annotations": [{"image_id": 5}]}, "no valid COCO file"),
    ],
)
def test_what_cannot_be_drawn_is_named_with_its_file(tmp_path, content, words):
    with pytest.raises(DataError, match=words) as error:
        drawn(tmp_path, content)
    assert str(tmp_path / "a.json") in str(error.value)


def test_damaged_files_are_errors_or_masks(tmp_path, rng):
    whole = json.dumps(labelme(shape(), shape([[20, 20], [24, 23]], kind="circle")))
    whole_coco = json.dumps(coco(["a.png"], [("a.png", [np.ravel(SQUARE).tolist()])]))
    for number in range(300):
        data = bytearray((whole if number % 2 else whole_coco).encode())
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(32, 127)
        path = tmp_path / f"{number}.json"
        path.write_bytes(bytes(data))
        with contextlib.suppress(DataError):
            mask, _ = draw(path, Photo("part/a.png", SIZE))
            assert mask.shape == SIZE


# -- in a category --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["ground_truth", "test"])
def test_labelme_files_in_their_own_folder_or_beside_the_photos(unmasked, place):
    for photo in defective(unmasked):
        save(unmasked / place / photo.parent.name / f"{photo.stem}.json", labelme(shape()))
    survey = manifest.index(unmasked, Reading(masks=place))
    masked = survey.table[survey.table["label"] == 1]
    assert [Path(name).suffix for name in masked["mask"]] == [".json"] * 3
    for row in masked.itertuples():
        mask = examine.read(unmasked, row, Geometry(SIZE, None))[1]
        np.testing.assert_array_equal(mask, filled_slowly(SQUARE, SIZE))
    (note,) = (each for each in survey.warnings if each.code == "labels")
    assert "'cut' (3 shapes)" in note.text


def test_labels_are_an_option_and_part_of_the_manifest(unmasked, tmp_path):
    for photo in defective(unmasked):
        save(photo.with_suffix(".json"), labelme(shape(), shape(OTHER, "dust")))
    save(unmasked / "test/good/000.json", labelme(shape(OTHER, "dust")))
    assert "marks a defect in a good image, test/good/000.png" in problems_of(
        unmasked, masks="test"
    )
    assert "empty (no shape that counts)" in problems_of(
        unmasked, masks="test", mask_labels=("rust",)
    )
    reading = Reading(masks="test", mask_labels=("cut",))
    survey = manifest.index(unmasked, reading)
    manifest.write(survey.table, tmp_path / "m.csv")
    row = next(r for r in manifest.read(tmp_path / "m.csv").itertuples() if r.label)
    mask = examine.read(unmasked, row, Geometry(SIZE, None))[1]
    np.testing.assert_array_equal(mask, filled_slowly(SQUARE, SIZE))
    (note,) = (each for each in survey.warnings if each.code == "labels-unlisted")
    assert "'dust' (3 shapes)" in note.text


@pytest.mark.parametrize("file", ["instances.json", "test/_annotations.coco.json"])
def test_one_coco_file_for_the_category_or_a_split(unmasked, file):
    names = [str(photo.relative_to(unmasked.parent)) for photo in defective(unmasked)]
    content = coco([*names, "test/good/000.png"], [(n, [np.ravel(SQUARE).tolist()]) for n in names])
    save(unmasked / file, content)
    survey = manifest.index(unmasked, Reading(masks=file))
    assert list(survey.table["mask"][3:6]) == [file] * 3
    row = next(row for row in survey.table.itertuples() if row.label)
    mask = examine.read(unmasked, row, Geometry(SIZE, None))[1]
    np.testing.assert_array_equal(mask, filled_slowly(SQUARE, SIZE))
    before = manifest.fingerprint(unmasked, Reading(masks=file))
    save(unmasked / file, content | {"info": {}})
    assert manifest.fingerprint(unmasked, Reading(masks=file)) != before


def test_what_does_not_fit_in_a_coco_file_is_named(unmasked):
    square = [np.ravel(SQUARE).tolist()]
    names = ["cut/000.png", "cut/001.png", "a.png", "lost.png"]
    marked = [(name, square) for name in (*names, "train/good/000.png", "good/001.png")]
    save(unmasked / "i.json", coco([*dict(marked)], marked))
    text = problems_of(unmasked, masks="i.json")
    assert "marks a defect in a good image, train/good/000.png" in text
    assert "marks a defect in a good image, test/good/001.png" in text
    save(unmasked / "i.json", coco(names, marked[:4]))
    (warning,) = (
        each
        for each in manifest.index(unmasked, Reading(masks="i.json")).warnings
        if each.code == "annotations-missing"
    )
    assert warning.files == ("lost.png",)
    save(unmasked / "i.json", coco(["001.png"], []))
    text = problems_of(unmasked, masks="i.json")
    assert "'001.png' may be test/cut/001.png or test/good/001.png" in text
    assert "no such file" in problems_of(unmasked, masks="j.json")


def test_annotations_in_a_list(unmasked):
    for photo in defective(unmasked):
        save(unmasked / "shapes" / f"{photo.parent.name}_{photo.stem}.json", labelme(shape()))
    rows = [
        "image,split,defect,mask",
        "train/good/000.png,train,good,",
        "test/good/000.png,test,good,",
    ]
    for photo in defective(unmasked):
        mask = f"shapes/{photo.parent.name}_{photo.stem}.json"
        rows.append(f"{photo.relative_to(unmasked)},test,cut,{mask}")
    save(unmasked / "list.csv", "\n".join(rows))
    table = manifest.build(unmasked, Reading(list="list.csv", unlisted="allow"))
    assert list(table["mask"][table["label"] == 1]) == [row.split(",")[3] for row in rows[3:]]


def test_annotations_that_are_not_used_are_named(unmasked):
    """No message says that there are no masks."""
    for photo in defective(unmasked):
        save(photo.with_suffix(".json"), labelme(shape()))
    warnings = manifest.index(unmasked).warnings
    (unread,) = (each for each in warnings if each.code == "annotations-unread")
    assert "3 annotation files" in unread.text
    assert "masks: test" in unread.remedy
    assert unread.files[0] == "test/cut/000.json"
    assert "no masks" not in " ".join(map(str, warnings))
    # Following the remedy works.
    report = check.check(unmasked, [Geometry(SIZE, None)], Reading(masks="test"))
    assert report.problems == []
    assert report.table["mask"].ne("").sum() == 3


def test_shapes_that_reach_out_of_their_photo_are_cut_and_named(unmasked):
    for photo in defective(unmasked):
        save(unmasked / f"ground_truth/{photo.parent.name}/{photo.stem}.json", labelme(shape()))
    beyond = [[40, 10], [60, 10], [60, 20], [40, 20]]
    tiny = [[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]]
    save(unmasked / "ground_truth/cut/000.json", labelme(shape(beyond), shape(tiny)))
    (warning,) = (e for e in manifest.index(unmasked).warnings if e.code == "shapes")
    assert "reaches 12 pixels out" in warning.files[0]
    assert "contains no pixel's centre" in warning.files[1]
    assert "ground_truth/cut/000.json" in warning.files[0]


def test_other_json_files_are_only_noted(category):
    save(category / "ground_truth/info.json", {"made by": "us"})
    save(category / "test/camera.json", "not JSON")
    warnings = manifest.index(category).warnings
    (note,) = (each for each in warnings if each.code == "no-image")
    assert note.files == ("ground_truth/info.json", "test/camera.json")
    save(category / "ground_truth/cut/lonely.json", labelme(shape()))
    assert "lonely.json: no image of that name in test" in problems_of(category)


def test_a_coco_file_in_the_folder_above_is_named(unmasked):
    defects = [path.relative_to(unmasked.parent).as_posix() for path in defective(unmasked)]
    content = coco(defects, [(name, [list(chain(*SQUARE))]) for name in defects])
    file = save(unmasked.parent / "all.json", content)
    save(unmasked.parent / "other.json", coco(["elsewhere/x.png"], []))
    (warning,) = manifest.survey(unmasked, Reading()).warnings
    assert str(warning) == (
        f"../all.json (COCO) names {len(defects)} of these images, but is not used; copy it into "
        "the category folder and set 'masks: all.json'"
    )
    shutil.copy(file, unmasked)
    assert set(manifest.build(unmasked, Reading(masks="all.json"))["mask"]) == {"", "all.json"}
