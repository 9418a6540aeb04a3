"""Read image and mask files: sizes, pixels as the backbone sees them, ground truth.

The preprocessing is that of the papers: the short side is resized to ``resize`` (bilinear,
antialiased), then the centre is cropped. This module needs Pillow and NumPy only, not torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from indad.core.errors import DataError
from indad.data.annotations import Photo, draw
from indad.data.folder_layout import is_annotation
from indad.data.formats import FORMATS, jpeg_damage, why_unidentified

#: ``(height, width)`` in pixels.
Size = tuple[int, int]

#: Largest image in pixels, in the file and after the resize (0.5 GB as RGB). A file of a few bytes
#: can declare any size. PIL's own limits stay as they are: by default it raises an error above the
#: same number of pixels, and only warns above half of it.
MAX_PIXELS = 178_956_970

#: TIFF tag NewSubfileType. Its lowest bit marks a reduced version of another image in the file.
_SUBFILE_TYPE = 254
#: The value from which a pixel of a mask with compression losses counts.
_HALF = 128
#: TIFF tag with the bits of each channel.
_BITS_PER_SAMPLE = 258


@dataclass(frozen=True)
class Geometry:
    """The preprocessing: resize, then centre crop.

    Attributes:
        resize: length of the short side in pixels, or an exact ``(height, width)``.
        crop: ``(height, width)`` of the centre crop in pixels; None for no crop.
    """

    resize: int | Size
    crop: Size | None

    @classmethod
    def from_config(cls, resize: int | list[int], crop: int | list[int] | None) -> Self:
        """Read ``resize: 256`` or ``[H, W]``, and ``crop: 224``, ``[H, W]`` or null."""
        crop = [crop, crop] if isinstance(crop, int) else crop
        return cls(
            resize if isinstance(resize, int) else (resize[0], resize[1]),
            None if crop is None else (crop[0], crop[1]),
        )

    @property
    def name(self) -> str:
        """A name for files: ``256-224``; ``300x400`` without a crop."""
        sides = [(self.resize,) if isinstance(self.resize, int) else self.resize]
        if self.crop is not None:
            sides.append(tuple(dict.fromkeys(self.crop)))
        return "-".join("x".join(map(str, side)) for side in sides)

    def resized(self, height: int, width: int) -> Size:
        """Return the size of an image after the resize."""
        if not isinstance(self.resize, int):
            return self.resize
        # The long side is rounded down, as in torchvision's Resize.
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def output(self, height: int, width: int) -> Size:
        """Return the size of an image after resize and crop."""
        return self.crop or self.resized(height, width)

    def refusal(self, height: int, width: int) -> str:
        """Explain why an image of this size cannot be used; "" if it can."""
        rows, columns = self.resized(height, width)
        resized = f"{width} x {height} pixels are resized to {columns} x {rows}"
        if rows * columns > MAX_PIXELS:
            return f"{resized}, which is too large; crop the file, or set 'resize: [height, width]'"
        if self.crop is not None and (self.crop[0] > rows or self.crop[1] > columns):
            return (
                f"{resized}, smaller than the crop of {self.crop[1]} x {self.crop[0]}; choose a "
                "larger 'resize' or a smaller 'crop'"
            )
        return ""

    def apply(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Resize and crop ``image``.

        Raises:
            ValueError: the resized image is smaller than the crop, or too large.
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

    def box_of(self, other: Self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the part of an image that another geometry keeps, in this one's output.

        Args:
            other: the other geometry.
            height: of the image in pixels.
            width: of the image in pixels.

        Returns:
            ``(left, top, right, bottom)`` in pixels of this geometry's output. They are outside of
            it where the other one keeps more.
        """
        tall, wide = self.resized(height, width)
        other_tall, other_wide = other.resized(height, width)
        rows, columns = other.output(height, width)
        top, left = other._corner(other_tall, other_wide)
        own_top, own_left = self._corner(tall, wide)
        down, across = tall / other_tall, wide / other_wide
        return (
            left * across - own_left,
            top * down - own_top,
            (left + columns) * across - own_left,
            (top + rows) * down - own_top,
        )

    def share_seen(self, height: int, width: int) -> float:
        """Return the share of an image's area that the crop keeps, in [0, 1]."""
        tall, wide = self.resized(height, width)
        rows, columns = self.output(height, width)
        return rows * columns / (tall * wide)

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return ``(top, left, bottom, right)`` of the part that is kept, in image pixels."""
        tall, wide = self.resized(height, width)
        rows, columns = self.output(height, width)
        top, left = self._corner(tall, wide)
        return (
            round(top * height / tall),
            round(left * width / wide),
            round((top + rows) * height / tall),
            round((left + columns) * width / wide),
        )


class Decoded(NamedTuple):
    """A decoded image, upright and in its own mode, with what its file has.

    Attributes:
        image: the image.
        format: Pillow's name of the file's format.
        bits: bits of each channel in the file, of which Pillow may have kept 8.
    """

    image: Image.Image
    format: str
    bits: int


def decode(path: Path) -> Image.Image:
    """Decode an image file completely, rotated as its EXIF orientation says, in its own mode.

    Raises:
        DataError: the file is missing, damaged, too large, not an image, or holds several images.
    """
    return decode_file(path).image


def decode_file(path: Path) -> Decoded:
    """Decode an image file as `decode`, and say what the file has.

    Raises:
        DataError: as `decode`.
    """
    with _opened(path) as image:
        bits = _stored_bits(image)
        image.load()
        if image.format in ("JPEG", "MPO") and (damage := jpeg_damage(path.read_bytes(), image)):
            raise DataError(f"{path}: damaged, {damage}; replace or remove it")
        upright = ImageOps.exif_transpose(image)
    # A PNG may have its EXIF data after the pixels, where `size` does not read it.
    if image.format == "PNG" and (upright.height, upright.width) != size(path):
        raise DataError(
            f"{path}: its EXIF orientation is stored after the pixels, where it is not read; "
            "rotate the image and save it again"
        )
    return Decoded(upright, image.format or "", bits)


def _stored_bits(image: Image.Image) -> int:
    """Return the bits of each channel in an image file that is opened but not loaded."""
    if image.mode.startswith(("I", "F")):
        return 32 if image.mode == "F" else 16
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))  # type: ignore[attr-defined]
    return 16 if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) else 8


def size(path: Path) -> Size:
    """Read ``(height, width)`` of an image file from its header, EXIF orientation applied.

    Raises:
        DataError: the file is missing, too large, holds several images, or has no valid header.
            Damage after the header is found by ``decode`` only.
    """
    with _opened(path) as image:
        sides = (image.height, image.width)
        # PIL applies the orientation of a TIFF file to its size itself.
        quarter = _orientation(image) in (5, 6, 7, 8) and image.format != "TIFF"
    return sides[::-1] if quarter else sides


def is_rotated(path: Path) -> bool:
    """Tell whether the EXIF orientation of an image file rotates or mirrors it.

    Raises:
        DataError: as ``size``.
    """
    with _opened(path) as image:
        return _orientation(image) in range(2, 9)


def _orientation(image: Image.Image) -> int:
    # PngImageFile.getexif would decode the whole image to find EXIF data after the pixels.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)


def _frames(image: Image.Image) -> int:
    """Count the images in a file, without reduced versions of the first one."""
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


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise DataError(
                    f"{path}: refused, its header declares {image.width} x {image.height} pixels; "
                    f"the limit is {MAX_PIXELS / 1e6:.0f} megapixels: cut it into pieces"
                )
            if (count := _frames(image)) > 1:
                raise DataError(
                    f"{path}: holds {count} images (pages or frames); save each one as a file, or "
                    "keep one"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: refused, {error}") from None
    except Exception as error:  # PIL raises errors of any kind on damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        reason = why_unidentified(path) if unknown else error
        raise DataError(f"{path}: cannot be decoded ({reason}); replace or remove it") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB. Grey becomes three equal channels; transparency is ignored.

    Integers of 16 or 32 bits are scaled from 0..65535, floats from 0..1.

    Raises:
        ValueError: a value is out of that range, or PIL cannot convert the mode to RGB.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        deep = np.asarray(image)
        kind, white = ("floats", 1.0) if image.mode == "F" else ("whole numbers", 65535.0)
        if not (deep.min() >= 0 and deep.max() <= white):  # also true for NaN
            raise ValueError(
                f"its {kind} range from {deep.min():g} to {deep.max():g}, not from 0 to {white:g}; "
                "save it with 8 or 16 bits"
            )
        grey = np.empty(deep.shape, np.uint8)
        for row in range(len(deep)):  # row by row, to save memory: float64 has 8 bytes per pixel
            grey[row] = deep[row] * (255.0 / white) + 0.5
        image = Image.fromarray(grey)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def prepare(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Preprocess a decoded image, without normalisation: uint8 ``(H, W, 3)``.

    Raises:
        ValueError: as ``to_rgb`` and ``Geometry.apply``.
    """
    return np.asarray(geometry.apply(to_rgb(image), Image.Resampling.BILINEAR))


def read_masks(
    paths: Sequence[Path], geometry: Geometry, photo: Photo | None = None
) -> tuple[np.ndarray, float]:
    """Read the masks of an image, and preprocess their union with nearest-neighbour resize.

    Args:
        paths: the masks.
        geometry: resize and crop.
        photo: the image, which annotation files need.

    Returns:
        bool ``(H, W)``, and the share of the union that is inside the crop.

    Raises:
        DataError: as ``decode``; the masks differ in size, or do not fit ``geometry``.
    """
    drawn = Image.fromarray(mask_pixels(*paths, photo=photo).astype(np.uint8))
    try:
        whole = Geometry(geometry.resize, None).apply(drawn, Image.Resampling.NEAREST)
        mask = np.asarray(geometry.apply(drawn, Image.Resampling.NEAREST)) > 0
    except ValueError as error:
        raise DataError(f"{paths[0]}: {error}") from None
    # A mask thinner than a pixel may vanish in the resize.
    return mask, np.count_nonzero(mask) / max(1, np.count_nonzero(whole))


def mask_pixels(*paths: Path, photo: Photo | None = None) -> np.ndarray:
    """Read the mask files of an image at their own size: bool ``(height, width)``, their union.

    True where any channel is above 0 and the pixel is not transparent; in a mask that was
    compressed with losses, where it is at least half of white. Annotation files need ``photo``.

    Raises:
        DataError: as ``decode``; or the masks differ in size.
    """
    drawn: np.ndarray | None = None
    for path in paths:
        pixels = drawn_pixels(mask_values(path, photo))
        if drawn is not None and drawn.shape != pixels.shape:
            raise DataError(f"{path}: differs in size from {paths[0]}, a mask of the same image")
        drawn = pixels if drawn is None else drawn | pixels
    assert drawn is not None
    return drawn


def mask_values(path: Path, photo: Photo | None = None) -> np.ndarray:
    """Read the largest value of each pixel's channels, 0 where it is transparent: ``(H, W)``.

    In an annotation file the pixels inside the shapes of ``photo`` have the value 1.

    Raises:
        DataError: as ``decode``, or as ``annotations.draw``.
    """
    if photo is not None and is_annotation(path.name):
        return draw(path, photo)[0].astype(np.uint8)
    image = decode(path)
    if image.mode in ("P", "PA"):  # the colours of the palette count, not their indices
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # in these, black is not 0
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels
    if image.mode in ("RGBA", "LA"):
        return np.where(pixels[..., -1] > 0, pixels[..., :-1].max(axis=-1), 0)
    return pixels.max(axis=-1)


def drawn_pixels(values: np.ndarray) -> np.ndarray:
    """Return which pixels of a mask belong to a defect, from its `mask_values`."""
    return values >= _HALF if is_lossy(values) else values > 0


def is_lossy(values: np.ndarray) -> bool:
    """Tell whether the values of a mask have the traces of a compression with losses.

    JPEG leaves more values just above black and just below white than between them. In a mask with
    smooth edges the values between are most frequent; one with classes has no such values.
    """
    if values.dtype != np.uint8:
        return False
    counts = np.bincount(values.ravel(), minlength=256)
    low, middle, high = counts[1:32], counts[32:224], counts[224:]
    several = np.count_nonzero(low) >= 3 or np.count_nonzero(high) >= 2
    return bool(several and high.any() and low.sum() > middle.sum())
