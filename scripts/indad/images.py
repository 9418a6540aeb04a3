"""From an image file to the pixels a backbone sees, and from a mask file to ground truth.

Geometry as in the papers: the short side is resized to ``resize`` (bilinear, antialiased), then
the centre is cropped. Everything here is PIL and NumPy, so that no stage needs torch to read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from indad.errors import DataError

#: File name endings that count as images, in lower case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

#: Endings of image files that cannot be read here; they are pointed out, never passed over.
UNREADABLE_SUFFIXES = (
    ".avif", ".dng", ".exr", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".npy", ".pgm", ".ppm",
    ".raw", ".svg",
)  # fmt: skip

Size = tuple[int, int]

#: Most pixels of an image, as it is in the file or after the resize: 0.5 GB as RGB. A file of a
#: few bytes can state any size, and be decoded to it.
MAX_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Of those up to twice as large PIL only warns: `_opened` refuses them.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Geometry:
    """Resize, then centre crop.

    Attributes:
        resize: the short side's length in pixels, or ``(height, width)`` for exactly that size.
        crop: ``(height, width)`` in pixels of the centre crop, or None for no crop.
    """

    resize: int | Size
    crop: Size | None

    @classmethod
    def from_config(cls, resize: int | list[int], crop: int | list[int] | None) -> Geometry:
        """Read ``resize: 256`` or ``[H, W]`` and ``crop: 224``, ``[H, W]`` or null."""
        crop = [crop, crop] if isinstance(crop, int) else crop
        return cls(
            resize if isinstance(resize, int) else (resize[0], resize[1]),
            None if crop is None else (crop[0], crop[1]),
        )

    @property
    def name(self) -> str:
        """A file name for it: ``256-224``, ``300x400`` for no crop."""
        sides = [(self.resize,) if isinstance(self.resize, int) else self.resize]
        if self.crop is not None:
            sides.append(tuple(dict.fromkeys(self.crop)))
        return "-".join("x".join(map(str, side)) for side in sides)

    def resized(self, height: int, width: int) -> Size:
        """Return the size after the resize, of an image of ``height`` x ``width``."""
        if not isinstance(self.resize, int):
            return self.resize
        # The long side is cut to whole pixels, as torchvision's Resize does.
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def output(self, height: int, width: int) -> Size:
        """Return the size after resize and crop."""
        return self.crop or self.resized(height, width)

    def apply(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Resize and crop ``image``.

        Raises:
            ValueError: the crop is larger than the resized image.
        """
        height, width = self.resized(image.height, image.width)
        if (height, width) != (image.height, image.width):
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"its {image.width} x {image.height} pixels would be resized to {width} x "
                    f"{height}, more than {MAX_PIXELS / 1e6:.0f} megapixels; cut it into pieces"
                )
            image = image.resize((width, height), resample)
        if self.crop is None:
            return image
        rows, columns = self.crop
        if rows > height or columns > width:
            raise ValueError(
                f"it is {height} x {width} pixels after the resize, smaller than the crop of "
                f"{rows} x {columns}; choose a larger 'resize' or a smaller 'crop'"
            )
        top, left = self._corner(height, width)
        return image.crop((left, top, left + columns, top + rows))

    def _corner(self, height: int, width: int) -> Size:
        """Return the upper left corner of the crop in a resized image."""
        rows, columns = self.crop or (height, width)
        return round((height - rows) / 2), round((width - columns) / 2)

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return ``(top, left, bottom, right)`` of what is seen of an image, in its own pixels."""
        tall, wide = self.resized(height, width)
        rows, columns = self.output(height, width)
        top, left = self._corner(tall, wide)
        return (
            round(top * height / tall),
            round(left * width / wide),
            round((top + rows) * height / tall),
            round((left + columns) * width / wide),
        )


def decode(path: Path) -> Image.Image:
    """Read an image file whole, upright (EXIF), in its own mode.

    Raises:
        DataError: the file is missing, damaged, or not an image.
    """
    with _opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def size(path: Path) -> Size:
    """Read ``(height, width)`` of an image file, upright, from its header alone.

    Raises:
        DataError: the file is missing, or does not begin as an image does. Damage further on is
            found by ``decode``.
    """
    with _opened(path) as image:
        sides = (image.height, image.width)
        # A PNG's own getexif decodes all of it, to look for a chunk behind the pixels.
        exif = Image.Image.getexif(image)
        quarter = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        turned = quarter and image.format != "TIFF"  # which PIL turns itself, size and all
    return sides[::-1] if turned else sides


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise DataError(
                    f"{path}: refused, it states {image.width} x {image.height} pixels; at most "
                    f"{MAX_PIXELS / 1e6:.0f} megapixels are read: cut it into pieces"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: refused, {error}") from None
    except Exception as error:  # damaged files make PIL's readers raise errors of any kind
        reason = "not an image, or damaged" if "cannot identify" in str(error) else error
        raise DataError(f"{path}: cannot be decoded ({reason}); replace or remove it") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB. Grey becomes three equal channels; 16 bits are scaled to 8.

    Raises:
        ValueError: a pixel is NaN or infinite.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16-bit files hold 0..65535 whatever mode PIL gives them; floats are taken as 0..1.
        scale = 255.0 if image.mode == "F" else 255.0 / 65535.0
        deep = np.asarray(image)
        grey = np.empty(deep.shape, np.uint8)
        for row in range(len(deep)):  # by the row: eight bytes a pixel are much for a large image
            values = deep[row] * scale + 0.5
            if not np.isfinite(values).all():
                raise ValueError("it has pixels that are no finite numbers")
            grey[row] = np.clip(values, 0, 255)
        image = Image.fromarray(grey)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_image(path: Path, geometry: Geometry) -> np.ndarray:
    """Read an image as the backbone sees it, before normalisation: uint8 ``(H, W, 3)``.

    Raises:
        DataError: the file cannot be decoded, or is smaller than the crop.
    """
    try:
        return prepare(decode(path), geometry)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def prepare(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Return a decoded image as the backbone sees it, before normalisation: uint8 ``(H, W, 3)``.

    Raises:
        ValueError: it is smaller than the crop.
    """
    return np.asarray(geometry.apply(to_rgb(image), Image.Resampling.BILINEAR))


def read_mask(path: Path, geometry: Geometry) -> np.ndarray:
    """Read a ground truth mask at the evaluation size: bool ``(H, W)``, True where ``> 0``.

    Nearest-neighbour resize, so that a mask stays a mask.

    Raises:
        DataError: as ``read_image``.
    """
    try:
        mask = Image.fromarray(mask_pixels(path).astype(np.uint8))
        return np.asarray(geometry.apply(mask, Image.Resampling.NEAREST)) > 0
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def mask_pixels(path: Path) -> np.ndarray:
    """Read a mask file at its own size: bool ``(height, width)``, True where any channel is > 0."""
    image = decode(path)
    if image.mode == "P":  # what a palette mask shows, not the number of its colour
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if image.mode in ("RGBA", "LA"):  # an opaque alpha channel says nothing of defects
        pixels = pixels[..., :-1]
    return pixels.any(axis=-1) if pixels.ndim == 3 else pixels > 0
