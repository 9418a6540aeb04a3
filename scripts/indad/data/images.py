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

from indad.core.errors import DataError

#: File name endings that count as images, in lower case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

#: Endings of image files that cannot be read here; they are pointed out, never passed over.
UNREADABLE_SUFFIXES = (
    ".avif", ".dng", ".exr", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".npy", ".pgm", ".ppm",
    ".raw", ".svg",
)  # fmt: skip

#: What is decoded, whatever the ending: no format that PIL hands to another program, or plays.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")

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

    def refusal(self, height: int, width: int) -> str:
        """Say why an image of ``height`` x ``width`` cannot be used; "" if it can."""
        rows, columns = self.resized(height, width)
        become = f"{width} x {height} pixels become {columns} x {rows} by the resize"
        if rows * columns > MAX_PIXELS:
            return f"{become}, too many; cut it to shape, or set 'resize: [height, width]'"
        if self.crop is not None and (self.crop[0] > rows or self.crop[1] > columns):
            return (
                f"{become}, smaller than the crop of {self.crop[1]} x {self.crop[0]}; choose a "
                "larger 'resize' or a smaller 'crop'"
            )
        return ""

    def apply(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Resize and crop ``image``.

        Raises:
            ValueError: the crop is larger than the resized image, or that is far too large.
        """
        if refusal := self.refusal(image.height, image.width):
            raise ValueError(refusal)
        height, width = self.resized(image.height, image.width)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), resample)
        if self.crop is None:
            return image
        rows, columns = self.crop
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
        DataError: the file is missing, damaged, not an image, or more than one.
    """
    with _opened(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    # A PNG may tell how it is to be turned behind its pixels, where the index does not look.
    if image.format == "PNG" and (upright.height, upright.width) != size(path):
        raise DataError(
            f"{path}: says only behind its pixels that it is to be turned; save it upright"
        )
    return upright


def size(path: Path) -> Size:
    """Read ``(height, width)`` of an image file, upright, from its header alone.

    Raises:
        DataError: the file is missing, does not begin as an image does, or holds more than one.
            Damage further on is found by ``decode``.
    """
    with _opened(path) as image:
        sides = (image.height, image.width)
        # Which PIL turns itself, size and all.
        quarter = _orientation(image) in (5, 6, 7, 8) and image.format != "TIFF"
    return sides[::-1] if quarter else sides


def is_turned(path: Path) -> bool:
    """Tell whether the header asks for the image to be turned or mirrored.

    Raises:
        DataError: as ``size``.
    """
    with _opened(path) as image:
        return _orientation(image) in range(2, 9)


def _orientation(image: Image.Image) -> int:
    # A PNG's own getexif decodes all of it, to look for a chunk behind the pixels.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)


def _frames(image: Image.Image) -> int:
    """Count the images of a file. Smaller versions of the first do not count."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # a camera's photo with its preview
        return 1
    if image.format == "TIFF":
        full = 0
        for number in range(count):
            image.seek(number)
            full += not image.tag_v2.get(_SUBFILE_TYPE, 0) & 1  # type: ignore[attr-defined]
        image.seek(0)
        return full
    return count


#: TIFF's NewSubfileType; its lowest bit marks a reduced version of another image of the file.
_SUBFILE_TYPE = 254


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise DataError(
                    f"{path}: refused, it states {image.width} x {image.height} pixels; at most "
                    f"{MAX_PIXELS / 1e6:.0f} megapixels are read: cut it into pieces"
                )
            if (count := _frames(image)) > 1:
                raise DataError(
                    f"{path}: holds {count} images (pages or frames); save each as a file, or "
                    "keep one"
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
    """Return 8-bit RGB. Grey becomes three equal channels; transparency is ignored.

    16-bit files hold 0 to 65535, whatever mode PIL gives them, and floats 0 to 1.

    Raises:
        ValueError: values lie outside of that, or PIL knows no way to RGB.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        deep = np.asarray(image)
        kind, white = ("floats", 1.0) if image.mode == "F" else ("whole numbers", 65535.0)
        if not (deep.min() >= 0 and deep.max() <= white):  # NaN is neither
            raise ValueError(
                f"its {kind} are {deep.min():g} to {deep.max():g}, not 0 to {white:g}; save it "
                "with 8 or 16 bits"
            )
        grey = np.empty(deep.shape, np.uint8)
        for row in range(len(deep)):  # by the row: eight bytes a pixel are much for a large image
            grey[row] = deep[row] * (255.0 / white) + 0.5
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
    """Read a mask file at its own size: bool ``(height, width)``, True where any channel is > 0.

    Nothing is drawn where it is transparent.

    Raises:
        DataError: as ``decode``.
    """
    image = decode(path)
    if image.mode in ("P", "PA"):  # what a palette mask shows, not the number of its colour
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # whose black is not zero
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels > 0
    if image.mode in ("RGBA", "LA"):
        return pixels[..., :-1].any(axis=-1) & (pixels[..., -1] > 0)
    return pixels.any(axis=-1)
