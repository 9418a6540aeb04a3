"""Formats of image files: which one a file has, and damage that Pillow overlooks."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

#: Formats that are decoded, whatever the ending of the name. Formats that PIL passes to another
#: program (EPS) or that are animations (GIF) are not among them.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
#: Their usual endings, in lower case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
#: Endings of image files that cannot be read here, if their content is not one of ``FORMATS``.
UNREADABLE_SUFFIXES = (
    ".avif", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".npy", ".pbm",
    ".pcx", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga",
)  # fmt: skip
#: Endings of cameras' raw files. Many are TIFF files whose first image is a small preview.
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw",
)  # fmt: skip

#: How files begin, by format.
_BEGINNINGS = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"8BPS\0[\x01\x02]", "Photoshop"),
    (rb"P[1-7]\s|P[Ff]\s", "PNM"),
    (rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftyp(hei[cmsx]|hev[cx]|mif1|msf1)", "HEIF"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR"),
    (rb"DDS \x7c\0\0\0", "DDS"),
    (rb"\x93NUMPY", "NumPy"),
    (rb"SIMPLE  =", "FITS"),
    (rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"qoif", "QOI"),
    (rb"(<\?xml.*?)?\s*<svg[\s>]", "SVG"),
    (rb".{128}DICM", "DICOM"),
)
_KINDS = tuple((re.compile(begin, re.DOTALL), name) for begin, name in _BEGINNINGS)


def content_format(path: Path) -> str:
    """Return the format of an image file by its first bytes; "" if it is no known image.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(512)
    return next((name for kind, name in _KINDS if kind.match(beginning)), "")


def unreadable(what: str) -> str:
    """Return the message for an image of a kind that cannot be read."""
    return f"{what} cannot be read; convert it to PNG or remove it"


def why_unidentified(path: Path) -> str:
    """Explain why Pillow does not identify a file as an image of one of ``FORMATS``."""
    kind = content_format(path)
    if kind == "TIFF":
        return (
            "a TIFF file that is damaged, or whose kind of pixels is not read; save it with 1 or 3 "
            "channels of 8 or 16 bits"
        )
    if kind and kind not in FORMATS:
        return f"{kind} images are not read; convert it to PNG"
    return "not an image, or damaged"


# -- damaged JPEG files -----------------------------------------------------------------------

#: A marker other than a stuffed zero, a restart marker and the start of an image.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_END, _SCAN, _HUFFMAN, _PROGRESSIVE = 0xD9, 0xDA, 0xC4, 0xC2
#: Zero bytes in a row that no encoder writes, unless a zero bit means "nothing more in this block".
_ZEROS = bytes(32)


def jpeg_damage(content: bytes, image: Image.Image) -> str:
    """Explain what is wrong with the data of a JPEG file that libjpeg decodes all the same.

    libjpeg fills missing blocks with grey, and decodes whatever the bytes are, without an error.

    Args:
        content: the whole file.
        image: the decoded image, before it is turned upright.

    Returns:
        "" if nothing is found.
    """
    problem, end = _scan_problem(content)
    if problem or end < 0 or image.mode not in ("L", "RGB") or image.info.get("progressive"):
        return problem
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    if (pixels[-8:, -8:] == 128).all():
        # Either it ends with a grey area, or its data end before: then fewer data change more.
        shorter = Image.open(io.BytesIO(content[: end - 8] + b"\xff\xd9"), formats=["JPEG"])
        changed = np.asarray(shorter).reshape(pixels.shape) != pixels
        drawn = np.flatnonzero((pixels != 128).any(axis=(1, 2)))
        if len(drawn) and changed[: drawn[-1] + 1].any():
            return "its data end before the image does: the lower part is grey"
    return ""


def _scan_problem(content: bytes) -> tuple[str, int]:
    """Return what is wrong with the scans of a JPEG file, and where its end marker is; else -1."""
    position, progressive = 2, False
    zero_ends: dict[int, bool] = {}  # AC table: whether zero bits mean the end of a block
    missing: dict[int, int] = {}  # progressive: component to its bits that are still missing
    while (found := _MARKER.search(content, position)) is not None:
        marker, start = content[found.end() - 1], found.end()
        if marker == _END:
            cut = "its last scans are missing: the file is cut" if any(missing.values()) else ""
            return cut, found.start()
        length = int.from_bytes(content[start : start + 2], "big")
        segment, position = content[start + 2 : start + length], start + length
        if marker == _PROGRESSIVE:
            progressive = True
            missing = {segment[6 + 3 * i]: 16 for i in range(segment[5])}
        elif marker == _HUFFMAN:
            zero_ends |= _zero_codes(segment)
        elif marker == _SCAN:
            count = segment[0]
            tables = {segment[1 + 2 * i]: segment[2 + 2 * i] & 15 for i in range(count)}
            first, bits = segment[1 + 2 * count], segment[3 + 2 * count]
            if progressive and first:
                missing |= dict.fromkeys(tables, bits & 15)
            following = _MARKER.search(content, position)
            data = content[position : following.start() if following else len(content)]
            coded = not progressive or (first and not bits >> 4)
            zeros_mean_end = all(zero_ends.get(table, True) for table in tables.values())
            if coded and not zeros_mean_end and _ZEROS in data:
                return "its data are partly overwritten with zeros", -1
    return "", -1


def _zero_codes(segment: bytes) -> dict[int, bool]:
    """Return for each AC table of a Huffman segment whether its code of zeros ends a block."""
    found, position = {}, 0
    while position + 17 <= len(segment):
        kind, counts = segment[position], segment[position + 1 : position + 17]
        if kind >> 4 == 1 and position + 17 < len(segment):
            # Canonical codes: the first symbol has the code of zeros only.
            found[kind & 15] = segment[position + 17] & 15 == 0
        position += 17 + sum(counts)
    return found
