"""Masks drawn as shapes: labelme files and COCO instances.

A labelme file describes one image, a COCO file many. A polygon is filled at pixel centres: the
pixel in row r and column c belongs to it if the point (c + 0.5, r + 0.5) is inside by the even-odd
rule, where (0, 0) is the upper left corner of the image. Nothing outside the image is drawn.
"""

import base64
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from indad.core.errors import DataError
from indad.data.data_warnings import counted
from indad.data.folder_layout import Parts, is_annotation, nfc

#: Kinds of annotation files.
LABELME, COCO = "labelme", "COCO"
#: Pixels by which a shape may reach out of its photo without a warning.
OVERSHOOT = 1
#: A coordinate beyond this is no drawing.
_FARTHEST = 10**6

Size = tuple[int, int]


class Photo(NamedTuple):
    """What has to be known of a photo to draw its shapes.

    Attributes:
        image: its path, with the category's name.
        size: ``(height, width)``, upright.
        labels: labels of the shapes that count as defects; () for all.
    """

    image: str
    size: Size
    labels: tuple[str, ...] = ()


class Shapes(NamedTuple):
    """The shapes of a photo.

    Attributes:
        used: labels of the drawn shapes.
        unused: labels of the others.
        remarks: what is unusual in the drawn shapes.
    """

    used: Counter[str]
    unused: Counter[str]
    remarks: tuple[str, ...]


class _Shape(NamedTuple):
    label: str
    kind: str
    points: Any
    pixels: Any = None  # PNG or run lengths


class _File(NamedTuple):
    """A parsed file: of COCO its images by name, and the shapes of each image by its id."""

    kind: str
    size: Size | None
    images: Mapping[str, list[dict[str, Any]]]
    shapes: Mapping[Any, list[_Shape]]


def kind(path: Path) -> str:
    """Return ``LABELME``, ``COCO``, or "" for a file that is neither."""
    if not is_annotation(path.name):
        return ""
    try:
        return _read(path).kind
    except DataError:
        return ""


def match(path: Path, photos: Iterable[Parts]) -> dict[str, list[Parts]]:
    """Find the photos of a COCO file.

    A name in the file is that of a photo if one path ends with the other, folder by folder.

    Args:
        path: the COCO file.
        photos: paths of the photos, with the category's name.

    Returns:
        The photos of each name.

    Raises:
        DataError: the file cannot be read.
    """
    by_name: dict[str, list[Parts]] = defaultdict(list)
    for photo in photos:
        by_name[nfc(photo[-1])].append(photo)
    named: dict[str, list[Parts]] = {}
    for records in _read(path).images.values():
        for name in (each["file_name"] for each in records):
            parts = _parts(name)
            named[name] = [photo for photo in by_name[parts[-1]] if _same_end(photo, parts)]
    return named


def draw(path: Path, photo: Photo) -> tuple[np.ndarray, Shapes]:
    """Draw the shapes of a photo whose labels count.

    Returns:
        bool ``(height, width)``, and what was drawn.

    Raises:
        DataError: the file is neither of labelme nor of COCO, belongs to an image of another size,
            or has a shape that cannot be drawn.
    """
    size, shapes = _shapes_of(path, photo.image)
    if size is not None and size != photo.size:
        raise DataError(
            f"{path}: drawn on an image of {size[1]} x {size[0]} pixels, but {photo.image} has "
            f"{photo.size[1]} x {photo.size[0]}; annotate the image itself"
        )
    mask, used, unused = np.zeros(photo.size, bool), Counter[str](), Counter[str]()
    problems, remarks = [], []
    for number, shape in enumerate(shapes, 1):
        if photo.labels and shape.label not in photo.labels:
            unused[shape.label] += 1
            continue
        used[shape.label] += 1
        name = f"shape {number} ({shape.label!r}, {shape.kind})"
        try:
            pixels = _DRAW[shape.kind](shape, photo.size) if shape.kind in _DRAW else None
            if pixels is None:
                raise ValueError(
                    "is no area; draw a polygon, or list the labels that count in 'mask_labels'"
                )
            remarks += [f"{name} {text}" for text in _remarks(shape, photo.size, pixels)]
            mask |= pixels
        except ValueError as error:
            problems.append(f"{name} {error}")
        except Exception as error:  # values of other types
            problems.append(f"{name} cannot be read ({error})")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems[:5])}")
    return mask, Shapes(used, unused, tuple(remarks))


# -- files ----------------------------------------------------------------------------------------


def _read(path: Path) -> _File:
    """Parse a file; the last ones are kept, since a COCO file is read for each of its images."""
    try:
        status = path.stat()
        return _parse(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=8)
def _parse(path: Path, *version: int) -> _File:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON file, or damaged ({error})") from None
    keys = content.keys() if isinstance(content, dict) else set()
    for name, needed, parse in (
        (LABELME, {"shapes"}, _parse_labelme),
        (COCO, {"images", "annotations", "categories"}, _parse_coco),
    ):
        if needed <= keys:
            try:
                return parse(content)
            except Exception as error:  # keys or values of other types
                raise DataError(f"{path}: no valid {name} file ({error!r})") from None
    raise DataError(
        f"{path}: neither a labelme file (it has no 'shapes') nor COCO instances (no 'images', "
        "'annotations' and 'categories')"
    )


def _parse_labelme(content: dict[str, Any]) -> _File:
    shapes = [
        # Old files have no type.
        _Shape(
            str(each["label"]),
            each.get("shape_type") or "polygon",
            each["points"],
            each.get("mask"),
        )
        for each in content["shapes"]
    ]
    return _File(LABELME, _size(content, "imageHeight", "imageWidth"), {}, {None: shapes})


def _parse_coco(content: dict[str, Any]) -> _File:
    images, shapes = defaultdict(list), defaultdict(list)
    for record in content["images"]:
        _size(record, "height", "width")
        images[_parts(record["file_name"])[-1]].append(record)
    labels = {each["id"]: str(each["name"]) for each in content["categories"]}
    for each in content["annotations"]:
        found, label = each.get("segmentation"), labels[each["category_id"]]
        if isinstance(found, dict):
            new = [_Shape(label, "rle", None, found)]
        elif found:
            new = [_Shape(label, "polygon", _pairs(part)) for part in found]
        else:
            new = [_Shape(label, "box without a polygon", None)]
        shapes[each["image_id"]] += new
    ids = {record["id"] for record in content["images"]}
    if unknown := shapes.keys() - ids:
        raise ValueError(f"no image has the id {next(iter(unknown))!r} of an annotation")
    return _File(COCO, None, dict(images), dict(shapes))


def _shapes_of(path: Path, image: str) -> tuple[Size | None, list[_Shape]]:
    """Return the size that a file states, if any, and the shapes of an image."""
    file, parts = _read(path), _parts(image)
    if file.kind == LABELME:
        return file.size, file.shapes[None]
    named = file.images.get(parts[-1], [])
    records = [each for each in named if _same_end(parts, _parts(each["file_name"]))]
    if len(records) != 1:
        raise DataError(f"{path}: names {image} {len(records)} times, not once")
    return _size(records[0], "height", "width"), file.shapes.get(records[0]["id"], [])


def _size(values: dict[str, Any], height: str, width: str) -> Size | None:
    found = values.get(height), values.get(width)
    return None if None in found else (int(found[0]), int(found[1]))  # type: ignore[arg-type]


def _parts(name: str) -> Parts:
    return tuple(map(nfc, PurePosixPath(name.replace("\\", "/")).parts))


def _same_end(one: Parts, other: Parts) -> bool:
    one = tuple(map(nfc, one))
    return all(a == b for a, b in zip(reversed(one), reversed(other), strict=False))


# -- shapes ---------------------------------------------------------------------------------------


def _pairs(flat: list[float]) -> np.ndarray:
    if len(flat) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    return np.array(flat, float).reshape(-1, 2)


def _points(shape: _Shape) -> np.ndarray:
    points = np.array(shape.points, float)
    if points.ndim != 2 or points.shape[1] != 2 or not (abs(points) < _FARTHEST).all():
        raise ValueError("has points that are no pairs of coordinates")
    return points


def _corners(shape: _Shape) -> np.ndarray:
    """Return the corners of a rectangle from two opposite ones, or from all four."""
    points = _points(shape)
    if len(points) != 2:
        return points
    (left, top), (right, bottom) = points
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _polygon(shape: _Shape, size: Size) -> np.ndarray:
    points = _corners(shape) if shape.kind == "rectangle" else _points(shape)
    if len(points) < 3:
        raise ValueError(f"has {counted(len(points), 'point')}, a polygon needs three")
    return fill(points, size)


def fill(points: np.ndarray, size: Size) -> np.ndarray:
    """Fill a polygon by the even-odd rule at pixel centres.

    Args:
        points: ``(n, 2)``, each x and y in pixels from the upper left corner of the image.
        size: ``(height, width)`` of the image.

    Returns:
        bool ``(height, width)``.
    """
    height, width = size
    # A pixel is inside if an odd number of edges cross its row at its centre or left of it.
    crossed = np.zeros((height, width + 1), bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, end = np.ceil(np.array(sorted((y1, y2))) - 0.5).clip(0, height).astype(int)
        rows = np.arange(first, end)
        if len(rows):
            x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            crossed[rows, np.ceil(x - 0.5).clip(0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]


def _circle(shape: _Shape, size: Size) -> np.ndarray:
    """Fill a circle, given by its centre and a point on it."""
    (x, y), on_it = _points(shape)
    rows, columns = np.ogrid[: size[0], : size[1]]
    squared = (on_it[0] - x) ** 2 + (on_it[1] - y) ** 2
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= squared


def _raster(shape: _Shape, size: Size) -> np.ndarray:
    """Place labelme's mask, a PNG, at the first of its two points."""
    with Image.open(io.BytesIO(base64.b64decode(shape.pixels)), formats=["PNG"]) as image:
        if image.height > size[0] or image.width > size[1]:
            raise ValueError(f"has {image.width} x {image.height} pixels, more than its photo")
        inside = np.asarray(image.convert("L")) > 0
    left, top = _points(shape)[0].astype(int)
    if min(left, top) < 0 or left + inside.shape[1] > size[1] or top + inside.shape[0] > size[0]:
        raise ValueError("is outside its photo")
    mask = np.zeros(size, bool)
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def _run_lengths(shape: _Shape, size: Size) -> np.ndarray:
    """Decode COCO's run lengths: pixels outside and inside in turn, column by column."""
    counts = shape.pixels["counts"]
    lengths = np.array(_unpack(counts) if isinstance(counts, str) else counts, int)
    if (
        tuple(shape.pixels["size"]) != size
        or (lengths < 0).any()
        or lengths.sum() != size[0] * size[1]
    ):
        raise ValueError(f"has run lengths that are not those of {size[1]} x {size[0]} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[::-1]).T


def _unpack(text: str) -> list[int]:
    """Read COCO's compressed run lengths.

    Each character has five bits of a number, the lowest first, and a bit that says whether more
    follow. From the fourth number on, it is the difference to the last but one.
    """
    numbers: list[int] = []
    value = bits = 0
    for code in text.encode("ascii"):
        value |= (code - 48 & 31) << bits
        bits += 5
        if code - 48 & 32:
            continue
        if value >> bits - 1:  # negative
            value -= 1 << bits
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = bits = 0
    return numbers


def _remarks(shape: _Shape, size: Size, pixels: np.ndarray) -> Iterator[str]:
    """Say what is unusual in a shape that can be drawn.

    Raises:
        ValueError: it is outside its photo.
    """
    if shape.kind in ("polygon", "rectangle", "circle"):
        points = _points(shape)
        low, high = points.min(axis=0), points.max(axis=0)
        if shape.kind == "circle":
            radius = np.hypot(*(points[1] - points[0]))
            low, high = points[0] - radius, points[0] + radius
        photo = np.array(size[::-1])
        if (low > photo).any() or (high < 0).any():
            raise ValueError("is outside its photo")
        if (beyond := max(*(high - photo), *-low)) > OVERSHOOT:
            yield f"reaches {beyond:.0f} pixels out of its photo, which are left out"
    if not pixels.any():
        yield "contains no pixel's centre"


_DRAW = {
    "polygon": _polygon,
    "rectangle": _polygon,
    "circle": _circle,
    "mask": _raster,
    "rle": _run_lengths,
}
