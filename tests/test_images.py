"""Image files of all kinds are decoded, preprocessed or refused."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from conftest import ROOT, read_image, read_mask, save_image
from indad.core.errors import DataError
from indad.data import images
from indad.data.images import Geometry, decode, mask_pixels, size, to_rgb

STANDARD = Geometry.from_config(256, 224)


@pytest.mark.parametrize(
    ("shape", "resize", "message"),
    [
        ((10, 10), 100, "10 x 10 pixels are resized to 100 x 100, smaller than the crop"),
        ((1, 60_000), 256, "60000 x 1 pixels are resized to 15360000 x 256, which is too large"),
    ],
)
def test_sizes_that_the_preprocessing_cannot_use(tmp_path, shape, resize, message):
    path = save_image(tmp_path / "x.png", np.zeros(shape, np.uint8))
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=f"x.png: {message}"):
            read(path, Geometry.from_config(resize, 224))
    assert read_image(path, Geometry((32, 32), None)).shape == (32, 32, 3)


def test_grey_becomes_three_equal_channels():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    rgb = np.asarray(to_rgb(grey))
    assert (rgb == np.asarray(grey)[..., None]).all()


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp", "turned.tif"])
def test_exif_rotation_is_applied(tmp_path, name):
    pixels = np.zeros((20, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    assert decode(tmp_path / name).size == (20, 40)
    assert size(tmp_path / name) == (40, 20)  # height, width


def test_the_size_is_read_from_the_header_alone(tmp_path, rng):
    path = save_image(tmp_path / "a.png", rng.integers(0, 255, (30, 50, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:100])
    assert size(path) == (30, 50)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_masks_of_every_mode_mean_the_same(tmp_path, mode):
    truth = np.zeros((12, 12), bool)
    truth[3:6, 4:9] = True
    Image.fromarray(truth.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_pixels(tmp_path / "m.png"), truth)


def test_faint_masks_count(tmp_path):
    path = save_image(tmp_path / "m.png", np.eye(8, dtype=np.uint8))
    np.testing.assert_array_equal(mask_pixels(path), np.eye(8, dtype=bool))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_undecodable_files_are_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png: cannot be decoded"):
        decode(tmp_path / "bad.png")


def test_truncated_image_is_refused(tmp_path, rng):
    path = save_image(tmp_path / "cut.png", rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cut\.png: cannot be decoded"):
        decode(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_decompression_bombs_are_refused(tmp_path, suffix, monkeypatch):
    """A small file can be of any size when it is decoded: the header is enough to refuse it."""
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    path = save_image(tmp_path / f"bomb.{suffix}", np.zeros((40, 40), np.uint8))
    for limit in (None, 1000, 500):  # PIL: no check, a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (decode, size, mask_pixels, lambda path: read_image(path, STANDARD)):
            with pytest.raises(DataError, match=r"bomb\.\w+: refused, .* pixels"):
                read(path)


def test_imports_leave_the_settings_of_pil_alone():
    code = (
        "import warnings; from PIL import Image; before = Image.MAX_IMAGE_PIXELS\n"
        "import indad.data.check, indad.data.public.archives, indad.inference.photos\n"
        "assert Image.MAX_IMAGE_PIXELS == before\n"
        "assert Image.DecompressionBombWarning not in [each[2] for each in warnings.filters]"
    )
    env = {"PYTHONPATH": str(ROOT / "scripts")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_images_that_pil_warns_of_are_read():
    """PIL's error limit is the largest size that is read here: nothing between is refused."""
    assert Image.MAX_IMAGE_PIXELS is None or 2 * Image.MAX_IMAGE_PIXELS >= images.MAX_PIXELS


def test_names_of_geometries():
    names = [
        Geometry.from_config(resize, crop).name
        for resize, crop in (
            (256, 224), (256, None), ([256, 256], 224), (256, [224, 192]), ([300, 400], None)
        )
    ]  # fmt: skip
    assert names == ["256-224", "256", "256x256-224", "256-224x192", "300x400"]


# -- files of cameras and tools ------------------------------------------------------------------


def png(path, pixels: np.ndarray, depth: int, colour: int, behind: bytes = b"") -> Path:
    """Write a PNG that PIL cannot write: 16 bits per channel, or chunks after the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + (chunk(b"eXIf", behind) if behind else b"")
        + chunk(b"IEND", b"")
    )
    return path


def tiff16(path, pixels: np.ndarray) -> Path:
    """Write an uncompressed 16-bit RGB TIFF."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2").tobytes()
    behind = 8 + 2 + 9 * 12 + 4
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, behind), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, behind + 2 * channels), (277, 3, 1, channels),
        (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + struct.pack("<I", 0)
        + struct.pack(f"<{channels}H", *[16] * channels)
        + data
    )
    return path


@pytest.mark.parametrize(
    ("name", "colour", "channels"),
    [("rgb.png", 2, 3), ("rgba.png", 6, 4), ("la.png", 4, 2), ("l.png", 0, 1), ("rgb.tif", 2, 3)],
)
def test_sixteen_bits_a_channel(tmp_path, rng, name, colour, channels):
    deep = rng.integers(0, 65536, (12, 10, channels), dtype=np.uint16)
    write = tiff16 if name.endswith("tif") else partial(png, depth=16, colour=colour)
    seen = read_image(write(tmp_path / name, deep), Geometry(10, None)).astype(int)
    grey = deep[..., [0, 0, 0]] if channels < 3 else deep[..., :3]
    assert np.abs(seen - grey / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[0, 70_000]], np.int32),
            "its whole numbers range from 0 to 70000, not from 0 to",
        ),
        (np.array([[-1, 5]], np.int32), "its whole numbers range from -1 to 5"),
        (np.array([[0, 255.0]], np.float32), "its floats range from 0 to 255, not from 0 to 1"),
        (np.array([[0, np.nan]], np.float32), "its floats range from nan to nan"),
        (np.array([[0, np.inf]], np.float32), "its floats range from 0 to inf"),
    ],
)
def test_values_outside_the_range_are_refused(tmp_path, values, message):
    Image.fromarray(np.tile(values, (4, 2))).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=f"x.tif: {message}"):
        read_image(tmp_path / "x.tif", Geometry(4, None))


def frames(path: Path, count: int = 3) -> Path:
    first, *others = [Image.fromarray(np.full((9, 9, 3), 80 * i, np.uint8)) for i in range(count)]
    kind = {"format": "MPO"} if path.suffix == ".jpg" else {}
    first.save(path, save_all=True, append_images=others, **kind)
    return path


@pytest.mark.parametrize("name", ["pages.tif", "animated.png", "animated.webp"])
def test_several_images_in_a_file_are_refused(tmp_path, name):
    path = frames(tmp_path / name)
    for read in (size, decode):
        with pytest.raises(DataError, match=f"{name}: holds 3 images .pages or frames.; save each"):
            read(path)


def test_previews_do_not_count_as_images(tmp_path):
    assert decode(frames(tmp_path / "camera.jpg", 2)).size == (9, 9)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "p.tif"), True) as file:
        for side, reduced in ((16, 0), (8, 1), (4, 1)):
            image = Image.fromarray(np.full((side, side, 3), side, np.uint8))
            image.save(file, format="TIFF", tiffinfo={254: reduced})
            file.newFrame()
    assert (np.asarray(decode(tmp_path / "p.tif")) == np.full((16, 16, 3), 16)).all()


def test_other_formats_are_refused_by_content(tmp_path):
    image = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    for kind in ("GIF", "PPM", "EPS", "PCX", "ICO"):
        image.save(tmp_path / "x.png", format=kind)
        with pytest.raises(DataError, match="x.png: cannot be decoded"):
            decode(tmp_path / "x.png")


def test_an_orientation_after_the_pixels_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 40, 3), np.uint8)
    path = png(tmp_path / "late.png", pixels, 8, 2, behind=exif.tobytes()[6:])
    with pytest.raises(DataError, match="late.png: its EXIF orientation is stored after"):
        decode(path)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1), (2, 3000)])
def test_thin_images(tmp_path, rng, shape):
    path = save_image(tmp_path / "thin.png", rng.integers(0, 255, (*shape, 3), dtype=np.uint8))
    assert read_image(path, Geometry(32, (24, 24))).shape == (24, 24, 3)
    assert read_image(path, Geometry((16, 8), None)).shape == (16, 8, 3)


def test_transparent_and_cmyk_masks(tmp_path):
    truth = np.zeros((12, 12), bool)
    truth[3:6, 4:9] = True
    drawn = np.full((12, 12, 4), 255, np.uint8)
    drawn[..., 3] = 255 * truth  # white everywhere, opaque on the defect
    save_image(tmp_path / "layer.png", drawn)
    np.testing.assert_array_equal(mask_pixels(tmp_path / "layer.png"), truth)
    print_colours = Image.fromarray(truth.astype(np.uint8) * 255).convert("CMYK")
    print_colours.save(tmp_path / "m.tif")
    np.testing.assert_array_equal(mask_pixels(tmp_path / "m.tif"), truth)
