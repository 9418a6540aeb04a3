"""Images and masks become what the papers' preprocessing makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from conftest import save_image
from indad import images
from indad.errors import DataError
from indad.images import Geometry, decode, mask_pixels, read_image, read_mask, size, to_rgb

STANDARD = Geometry.from_config(256, 224)


@pytest.mark.parametrize("size", [(256, 256), (300, 400), (401, 299), (900, 900), (257, 640)])
def test_geometry_equals_torchvision(tmp_path, rng, size):
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    path = save_image(tmp_path / "a.png", rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    image = Image.open(path)
    bilinear = transforms.Compose(
        [transforms.Resize(256, InterpolationMode.BILINEAR), transforms.CenterCrop(224)]
    )
    np.testing.assert_array_equal(read_image(path, STANDARD), np.asarray(bilinear(image)))
    mask = save_image(tmp_path / "m.png", (rng.random(size) < 0.3).astype(np.uint8) * 255)
    nearest = transforms.Compose(
        [transforms.Resize(256, InterpolationMode.NEAREST), transforms.CenterCrop(224)]
    )
    expected = np.asarray(nearest(Image.open(mask))) > 0
    np.testing.assert_array_equal(read_mask(mask, STANDARD), expected)


def test_an_image_of_the_right_size_is_unchanged(tmp_path, rng):
    pixels = rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    path = save_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(path, STANDARD), pixels[16:240, 16:240])


def test_resize_to_an_exact_size_and_no_crop(tmp_path, rng):
    path = save_image(tmp_path / "a.png", rng.integers(0, 255, (50, 90, 3), dtype=np.uint8))
    assert read_image(path, Geometry.from_config([64, 32], None)).shape == (64, 32, 3)
    assert read_image(path, Geometry.from_config(25, None)).shape == (25, 45, 3)


def test_an_image_smaller_than_the_crop_is_named(tmp_path, rng):
    path = save_image(tmp_path / "tiny.png", rng.integers(0, 255, (10, 10, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"tiny\.png: it is 100 x 100 .* smaller than the crop"):
        read_image(path, Geometry.from_config(100, 224))


def test_grey_becomes_three_equal_channels():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    rgb = np.asarray(to_rgb(grey))
    assert (rgb == np.asarray(grey)[..., None]).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    path = save_image(tmp_path / "deep.png", deep)
    np.testing.assert_array_equal(np.asarray(to_rgb(decode(path)))[..., 0], deep // 257)


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp", "turned.tif"])
def test_exif_rotation_is_applied(tmp_path, name):
    pixels = np.zeros((20, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
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
def test_images_that_state_absurd_sizes_are_refused(tmp_path, suffix, monkeypatch):
    """A small file, decoded, may be any size: from its header alone it is refused."""
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert images.MAX_PIXELS < 40 * 40 < 2000 < 50 * 50
    for width in (40, 50):  # above the limit, and where PIL itself refuses
        path = save_image(tmp_path / f"bomb.{suffix}", np.zeros((width, width), np.uint8))
        for read in (decode, size, mask_pixels, lambda path: read_image(path, STANDARD)):
            with pytest.raises(DataError, match=r"bomb\.\w+: refused, .* pixels"):
                read(path)


def test_an_image_that_the_resize_would_blow_up_is_refused(tmp_path):
    path = save_image(tmp_path / "line.png", np.zeros((1, 60_000), np.uint8))
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"line\.png: its 60000 x 1 pixels would be resized to"):
            read(path, Geometry.from_config(256, 224))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    pixels = np.full((30, 30), 0.5, np.float32)
    path = save_image(tmp_path / "float.tif", pixels)
    assert (read_image(path, Geometry.from_config(30, None)) == 128).all()
    pixels[3, 4] = value
    save_image(path, pixels)
    with pytest.raises(DataError, match=r"float\.tif: it has pixels that are no finite numbers"):
        read_image(path, Geometry.from_config(30, None))


def test_geometries_have_names_of_their_own():
    names = [
        Geometry.from_config(resize, crop).name
        for resize, crop in (
            (256, 224), (256, None), ([256, 256], 224), (256, [224, 192]), ([300, 400], None)
        )
    ]  # fmt: skip
    assert names == ["256-224", "256", "256x256-224", "256-224x192", "300x400"]
