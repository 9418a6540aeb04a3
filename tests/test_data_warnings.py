"""What is a photo, and what is said of photos that are read, but that lose information."""

from __future__ import annotations

import dataclasses
import io
import shutil
import struct
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import save_image
from fabricate import fabricate
from indad.core.errors import DataError
from indad.data import data_warnings, manifest
from indad.data.check import check
from indad.data.folder_layout import Reading
from indad.data.images import Geometry, decode, drawn_pixels, is_lossy, mask_pixels
from indad.data.public.suggest import find_categories
from indad.data.siblings import find_siblings
from indad.reporting import report

WHOLE = Geometry(40, None)


def said(category: Path, geometry: Geometry = WHOLE, *, notes: bool = False, **reading) -> dict:
    """The warnings of a category without problems, by code."""
    report = check(category, [geometry], Reading.from_config(reading))
    assert report.problems == []
    return {each.code: each for each in report.warnings if each.note == notes}


def photo(rng: np.random.Generator, height: int = 40, width: int = 48) -> Image.Image:
    return Image.fromarray(rng.integers(60, 255, (height, width, 3), dtype=np.uint8))


def deep_colour(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits in each of three channels, which Pillow reads but does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


# -- what is a photo ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.jpe", "JPEG"), ("a.jfif", "JPEG"), ("a", "PNG"), ("a.dat", "TIFF"), ("a.gif", "PNG")],
)
def test_content_decides_what_is_read(category, rng, name, form):
    photo(rng).save(category / "train/good" / name, form)
    assert f"train/good/{name}" in set(manifest.build(category)["image"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tga", "TGA", ".tga files cannot be read"),
        ("a.pnm", "PPM", "PNM images cannot be read"),
        ("a", "GIF", "GIF images cannot be read"),
        ("a.png", "GIF", "GIF images are not read; convert it to PNG"),
        ("a.psd", b"8BPS\0\1" + bytes(20), "Photoshop images cannot be read"),
        ("a.bin", b"\0\0\0\x18ftypheic" + bytes(20), "HEIF images cannot be read"),
        ("a.nef", b"II*\0" + bytes(20), ".nef files cannot be read"),
    ],
)
def test_images_that_cannot_be_read_are_named(category, rng, name, content, reason):
    path = category / "train/good" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        photo(rng).save(path, content)
    (problem,) = check(category, [WHOLE]).problems
    assert problem.startswith(f"{path}: ")
    assert reason in problem


RUBBISH = (
    "@eaDir/000.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/a.png", "$RECYCLE.BIN/a.png", "._000.png",
    ".Trash-1000/a.png", ".snapshot/a.png", ".thumbnails/a.png", "__MACOSX/a.png", "Thumbs.db",
    "lost+found/a.png", "System Volume Information/a.png", ".ipynb_checkpoints/a.png",
    "@Recycle/a.png",
)  # fmt: skip


def test_rubbish_of_storage_is_left_out_and_counted(category, rng):
    expected = manifest.build(category)
    seen = manifest.fingerprint(category)
    for name in RUBBISH:
        path = category / "train/good" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(rng).save(path, "PNG")
    (category / "readme.txt").write_text("x")
    assert manifest.build(category).equals(expected)
    assert manifest.fingerprint(category) == seen
    notes = said(category, notes=True)
    assert len(notes["left-out"].files) == len(RUBBISH)
    assert notes["no-image"].files == ("readme.txt",)
    for name in ("__MACOSX", "@eaDir"):  # nor is such a folder a category
        shutil.copytree(category, category.parent / name)
    assert find_categories(category.parent) == ["widget"]


# -- masks and other channels among the photos ----------------------------------------------------


@pytest.mark.parametrize(
    ("photos", "siblings"),
    [
        (["cut/1.png"], ["cut/1_mask.png", "cut/1_GT.bmp", "cut/mask_1.png", "cut/1-label2.png"]),
        (["cut/1_rgb.png"], ["cut/1_depth.tiff"]),
        (["cut/1.png"], ["cut/thumbs/1.jpg", "cut/1_preview.png"]),
        (["cut/rgb/1.png"], ["cut/xyz/1.tiff", "cut/gt/1.png"]),
        (["cut/1.png"], ["ground_truth/cut/1_mask.png", "masks/1.png"]),
        # Words alone, and numbers that other kinds of defects have too.
        (["label/1.png", "cut/1.png", "depth/1.png", "cut/unmask.png", "cut/2_mask.png"], []),
        (["cut/mask/1.png", "cut/mask/2.png"], []),
    ],
)
def test_siblings_of_photos_are_recognised_by_name(photos, siblings):
    paths = [tuple(name.split("/")) for name in (*photos, *siblings)]
    assert sorted("/".join(path) for path in find_siblings(paths)) == sorted(siblings)


def test_masks_beside_photos_are_refused_or_read(category):
    for path in category.glob("ground_truth/*/*.png"):
        name = path.name if "_mask" in path.name else f"{path.stem}_mask.png"
        path.rename(category / "test" / path.parent.name / name)
    before, after = check(category, [WHOLE]).problems
    assert "test/cut: 2 images seem to be masks of the photos" in before
    assert "set 'masks: test'" in before
    assert "test/dirt: 1 image" in after
    table = manifest.build(category, Reading(masks="test"))
    assert len(table) == 8
    assert (table["mask"] != "").sum() == 3


@pytest.mark.parametrize(
    ("rename", "options"),
    [
        ("mask_{stem}.png", {"mask_prefix": "mask_"}),
        ("{stem}_mask_{n}.png", {"mask_suffix": "_mask_*"}),
        ("gt {stem} ({n}).png", {"mask_prefix": "gt ", "mask_suffix": " (*)"}),
        ("{stem}/{n}.png", {"mask_suffix": "/*"}),
    ],
)
def test_masks_with_other_names_and_several_of_an_image(category, rename, options):
    expected = {}
    for path in list(category.glob("ground_truth/*/*.png")):
        stem = path.stem.removesuffix("_mask")
        whole = np.asarray(Image.open(path))
        expected[f"test/{path.parent.name}/{stem}.png"] = whole > 0
        path.unlink()
        for n, rows in enumerate((np.s_[:15], np.s_[15:])):
            part = np.zeros_like(whole)
            part[rows] = whole[rows]
            drawn = part if "{n}" in rename else whole
            save_image(path.parent / rename.format(stem=stem, n=n), drawn)
    with pytest.raises(DataError, match="if it belongs to .*, set 'mask_"):
        manifest.build(category)
    table = manifest.build(category, Reading.from_config(options))
    for row in table[table["label"] == 1].itertuples():
        files = manifest.mask_files(row)
        assert len(files) == (2 if "{n}" in rename else 1)
        masks = [category / name for name, _ in files]
        np.testing.assert_array_equal(mask_pixels(*masks), expected[row.image])


def test_several_masks_in_a_list(category):
    rows = [f"{row.image},{row.split},{row.defect},{row.mask}" for row in
            manifest.build(category).itertuples()]  # fmt: skip
    shutil.copy(category / "ground_truth/cut/000_mask.png", category / "ground_truth/other.png")
    rows = [row.replace("000_mask.png", "000_mask.png|ground_truth/other.png") for row in rows]
    (category / "split.csv").write_text("\n".join(["image,split,defect,mask", *rows]))
    table = manifest.build(category, Reading(list="split.csv")).set_index("image")
    joined = "ground_truth/cut/000_mask.png//ground_truth/other.png"
    assert table.loc["test/cut/000.png", "mask"] == joined
    rows[0] = rows[0].replace("train,good", "test,Good")
    (category / "split.csv").write_text("\n".join(["image,split,defect,mask", *rows]))
    with pytest.raises(DataError, match="line 2: 'Good' would be a defect"):
        manifest.build(category, Reading(list="split.csv"))


# -- pictures that are read wrongly ---------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("colour", [False, True])
def test_a_part_of_sixteen_bits_is_noticed(category, rng, bits, colour):
    for path in category.glob("t*/*/*.png"):
        shape = (40, 48, 3) if colour else (40, 48)
        pixels = rng.integers(0, 2**bits, shape).astype(np.uint16)
        pixels[5, 7] = 65535  # a hot pixel
        if colour:
            path.write_bytes(deep_colour(pixels))
        else:
            Image.fromarray(pixels).save(path)
    report = check(category, [WHOLE])
    assert [each.code for each in report.warnings] == ["dark", "dark"]
    train, test = map(str, report.warnings)
    assert "3 training images of more than 8 bits are almost black" in train
    assert f"as from a camera of {bits} bits: train/good/000.png, train/good/001.png" in train
    assert "5 test images" in test


def test_the_whole_range_of_sixteen_bits_is_fine(category, rng):
    for path in category.glob("t*/*/*.png"):
        path.write_bytes(deep_colour(rng.integers(0, 65536, (40, 48, 3))))
    assert said(category) == {}


def test_splits_with_other_kinds_or_sizes_of_images(category, rng):
    for path in category.glob("train/*/*.png"):
        Image.fromarray(rng.integers(0, 65536, (80, 96)).astype(np.uint16)).save(path)
    found = said(category)
    assert set(found) == {"kinds-differ", "sizes-differ"}
    assert found["kinds-differ"].text == (
        "5 of 5 test images have 8 bits, colour, but training images have more than 8 bits, grey"
    )
    assert "training images have 96 x 80 pixels, test images 48 x 40" in str(found["sizes-differ"])


def as_jpeg(rng: np.random.Generator, **options) -> bytes:
    pixels = np.kron(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8), np.ones((10, 10, 1), "u1"))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        *product([{}, {"restart_marker_blocks": 4}], ["cut", "cut and ended", "end", "zeros"]),
        *product([{"progressive": True}], ["cut", "cut and ended", "end"]),
    ],
)
def test_jpeg_files_that_decode_to_grey_are_damaged(tmp_path, rng, options, kind):
    sound = as_jpeg(rng, **options)
    half = len(sound) // 2
    content = {
        "cut": sound[:half],
        "cut and ended": sound[:half] + b"\xff\xd9",
        "end": sound[:half] + bytes(len(sound) - half - 2) + b"\xff\xd9",
        "zeros": sound[:half] + bytes(500) + sound[half + 500 :],
    }[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(sound)
    decode(path)
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"a\.jpg: (damaged, |cannot be decoded \(image file is tr)"
    ):
        decode(path)


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg_files_with_plain_areas_are_sound(tmp_path, rng, value, options):
    """Also where the plain area is the grey of missing data, and coded as a row of zero bits."""
    pixels = np.full((200, 240, 3), value, np.uint8)
    pixels[:70] = np.kron(rng.integers(0, 255, (7, 24, 3), dtype="u1"), np.ones((10, 10, 1), "u1"))
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=90, **options)
    assert decode(tmp_path / "a.jpg").size == (240, 200)
    Image.fromarray(np.full((64, 64), value, np.uint8)).save(tmp_path / "b.jpg", **options)
    decode(tmp_path / "b.jpg")


def test_incomplete_files_without_a_checksum_are_suspected(category, rng):
    for path in sorted(category.glob("t*/*/*.png")):
        photo(rng).save(path.with_suffix(".bmp"))
        path.unlink()
    first = category / "train/good/000.bmp"
    content = first.read_bytes()
    first.write_bytes(content[:3000] + bytes(1500) + content[4500:])
    assert said(category)["blank"].files == ("train/good/000.bmp",)


def test_masks_with_compression_losses_are_cut_at_half(category):
    path = category / "ground_truth/cut/000_mask.png"
    rows, columns = np.mgrid[:40, :48]
    drawn = (np.hypot(rows - 20, columns - 20) < 9) | ((rows == 3) & (columns > 30))
    for form, options in (("JPEG", {"quality": 75}), ("JPEG", {"quality": 100}), ("WEBP", {})):
        buffer = io.BytesIO()
        Image.fromarray(drawn.astype(np.uint8) * 255).convert("RGB").save(buffer, form, **options)
        Image.open(buffer).save(path)
        assert (np.asarray(Image.open(path)).any(axis=2) != drawn).any()
        np.testing.assert_array_equal(mask_pixels(path), drawn)
        assert said(category)["mask-lossy"].files == ("ground_truth/cut/000_mask.png",)


def test_masks_with_smooth_edges_or_classes_count_above_zero():
    rows, columns = np.mgrid[:60, :60]
    ramp = np.clip(128 + 40 * (15 - np.hypot(rows - 30, columns - 30)), 0, 255).astype(np.uint8)
    classes = np.where(ramp > 0, 1 + columns % 3, 0).astype(np.uint8)
    loco = np.where(ramp > 0, 249 + columns % 7, 0).astype(np.uint8)
    for values in (ramp, classes, loco):
        assert not is_lossy(values)
        np.testing.assert_array_equal(drawn_pixels(values), values > 0)


def test_masks_made_of_specks_are_reported(category, rng):
    specks = np.zeros((40, 48), np.uint8)
    specks[::4, ::4] = 255
    save_image(category / "ground_truth/cut/000_mask.png", specks)
    assert "1 masks consist mostly of regions of fewer than 5" in said(category)["mask-specks"].text


def test_tiff_files_that_pillow_cannot_read_get_the_reason(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    tag = b"\x53\x01\x03\0\x01\0\0\0"  # SampleFormat, one number of 16 bits
    content = path.read_bytes()
    path.write_bytes(content.replace(tag + b"\x03", tag + b"\x09"))
    with pytest.raises(DataError, match=r"a\.tif: .*1 or 3 channels of 8 or 16 bits"):
        decode(path)


# -- the crop -------------------------------------------------------------------------------------


def test_a_crop_that_hides_most_of_a_strip_is_said_without_masks(category, rng):
    shutil.rmtree(category / "ground_truth")
    for path in category.glob("t*/*/*.png"):
        photo(rng, 32, 400).save(path)
    warning = said(category, Geometry(256, (224, 224)))["crop-share"]
    assert warning.text.startswith("the methods see only 6 % of the area of 8 of 8 images")
    assert warning.remedy.startswith("set 'crop: null' or 'resize: [64, 896]' and 'crop: null'")
    for geometry in (Geometry(32, None), Geometry((64, 896), None)):
        assert said(category, geometry) == {}


@pytest.mark.parametrize(
    ("shape", "seen"), [((900, 900), 0.77), ((1024, 1280), 0.61), ((1000, 1500), 0.51)]
)
def test_the_share_of_a_photo_that_the_default_crop_shows(shape, seen):
    assert Geometry(256, (224, 224)).share_seen(*shape) == pytest.approx(seen, abs=0.005)


def test_a_run_reads_each_warning_once_without_notes(tmp_path):
    one = data_warnings.DataWarning("a", "part", "text", ("x.png",), "do this")
    note = one._replace(code="b", note=True)
    for geometry in ("256-224", "64"):
        path = tmp_path / f"pixels/mine/part/{geometry}.warnings.json"
        data_warnings.write_warnings([one, note], path)
    files = sorted(tmp_path.rglob("*.json"))
    assert data_warnings.read_all(files) == [("mine", one)]
    assert str(one) == "text: x.png; do this"


def test_the_report_shows_the_warnings(tmp_path):
    warning = data_warnings.DataWarning("a", "<i>part", "5 images", ("a&b.png",), "do this")
    sources = fabricate(tmp_path, ["bottle"], ["PaDiM"], height=40)
    sources = dataclasses.replace(sources, data_warnings=[("mine", warning)])
    report.write(sources, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "Warnings about the data: 1" in page
    assert "mine, &lt;i&gt;part</strong>: 5 images: a&amp;b.png; do this." in page
