"""What only the pixels of a category's images show: used by `indad check` and the rule `decode`."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from indad.core.errors import DataError
from indad.data.findings import Findings
from indad.data.images import Decoded, Geometry, Size, decode_file, read_masks, to_rgb
from indad.data.manifest import mask_files, photo_of

#: Images of more than 8 bits whose brightest pixels are below this share of white are nearly black.
DARK = 0.25
#: Share of a photo below which the crop is reported.
LEAST_SEEN = 0.6
#: Share of successive black or grey rows, more than usual, from which a file may be incomplete.
BLANK = 0.05


class Facts(NamedTuple):
    """What the pixels of an image and its mask show.

    Attributes:
        mode: file type and PIL mode, such as ``PNG RGB``.
        bits: bits of each channel in the file.
        colour: whether any pixel is not grey.
        peak: brightest value as a share of white, without isolated pixels; NaN for 8 bits.
        blank: largest share of successive rows that are black or medium grey.
        kept: share of the mask that is inside the crop; NaN without a mask.
    """

    mode: str = ""
    bits: int = 8
    colour: bool = False
    peak: float = math.nan
    blank: float = 0.0
    kept: float = math.nan


def read(folder: Path, row: Any, geometry: Geometry) -> tuple[np.ndarray, np.ndarray | None, Facts]:
    """Decode and preprocess an image of a manifest and its mask.

    Args:
        folder: the category folder.
        row: the image's row of the manifest.
        geometry: the preprocessing.

    Returns:
        uint8 ``(H, W, 3)``, the mask as bool ``(H, W)`` if there is one, and what they show.

    Raises:
        DataError: a file cannot be decoded, or does not fit ``geometry``.
    """
    path = folder / row.image
    decoded = decode_file(path)
    try:
        rgb = to_rgb(decoded.image)
        image = np.asarray(geometry.apply(rgb, Image.Resampling.BILINEAR))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    mask, kept = None, math.nan
    if masks := [folder / name for name, _ in mask_files(row)]:
        mask, kept = read_masks(masks, geometry, photo_of(folder, row))
    pixels = np.asarray(rgb)
    facts = Facts(
        mode=f"{decoded.format} {decoded.image.mode}",
        bits=decoded.bits,
        # Row by row: most often the first one decides.
        colour=any((row != row[:, :1]).any() for row in pixels),
        peak=_peak(decoded, pixels) if decoded.bits > 8 else math.nan,
        blank=_blank_rows(pixels),
        kept=kept,
    )
    return image, mask, facts


def _peak(decoded: Decoded, rgb: np.ndarray) -> float:
    """Return the brightest value as a share of white; some hot pixels do not count."""
    image = decoded.image
    if image.mode.startswith(("I", "F")):
        values, white = np.asarray(image).ravel(), 1.0 if image.mode == "F" else 65535.0
    else:  # Pillow keeps the upper 8 of 16 bits of a colour image
        values, white = rgb.max(axis=2).ravel(), 255.0
    ignored = min(len(values), max(10, len(values) // 10_000))
    return float(np.partition(values, -ignored)[-ignored]) / white


def _blank_rows(pixels: np.ndarray) -> float:
    """Return the share of the longest run of rows that are completely black or medium grey."""
    longest = 0
    # The colours of missing data: zeros, and the grey that JPEG decoders fill in.
    for value in (0, 128):
        columns = [0, pixels.shape[1] // 2, -1]  # these rule out most rows
        blank = (pixels[:, columns] == value).all(axis=(1, 2))
        blank[blank] = (pixels[blank] == value).all(axis=(1, 2))
        ends = np.flatnonzero(np.concatenate([[True], ~blank, [True]]))
        longest = max(longest, int(np.diff(ends).max()) - 1)
    return longest / len(pixels)


def warn_of_pixels(found: Findings, geometry: Geometry, patch: int = 0) -> None:
    """Add the warnings about the pixels of a category.

    Args:
        found: its table is the manifest, joined with `Facts`.
        geometry: the preprocessing.
        patch: as `whole_images`.
    """
    _warn_of_crop(found, geometry, patch)
    _warn_of_depth(found)
    _warn_of_kinds(found)
    _warn_of_damage(found)


def _warn_of_crop(found: Findings, geometry: Geometry, patch: int) -> None:
    """Warn of a crop that hides much of the photos, or defects."""
    table = found.table
    sizes = table[["height", "width"]]
    shares = pd.Series([geometry.share_seen(row.height, row.width) for row in sizes.itertuples()])
    little = shares[shares < LEAST_SEEN]
    whole = whole_images(table, geometry, patch)
    if len(little):
        percent = " to ".join(
            dict.fromkeys(f"{100 * each:.0f}" for each in (little.min(), little.max()))
        )
        found.warn(
            "crop-share",
            f"the methods see only {percent} % of the area of {len(little)} of {len(table)} "
            f"images: the centre crop ({geometry.name}) hides the rest",
            (),
            f"set {' or '.join(whole)} in the extractor",
        )
    masked = table[table["mask"] != ""]
    lost = masked["mask"][masked["kept"] == 0]
    partly = int(masked["kept"].between(0, 0.995, inclusive="neither").sum())
    half = masked["mask"][masked["kept"].between(0, 0.5, inclusive="neither")]
    if len(lost):
        found.warn(
            "crop-lost",
            f"{len(lost)} of {len(masked)} defects are completely outside the centre crop "
            f"({geometry.name}): no method can find them, and their images still count as "
            "defective",
            lost,
            f"set {whole[0]}",
        )
    if partly:
        found.warn(
            "crop-partly",
            f"{partly} of {len(masked)} defects are partly outside the centre crop "
            f"({geometry.name}), {len(half) or 'none'} by more than half",
            half,
            f"{whole[0]} keeps them complete",
        )


def whole_images(table: pd.DataFrame, geometry: Geometry, patch: int = 0) -> list[str]:
    """Return settings of an extractor with which all images are seen whole and have one size.

    Args:
        table: has the columns ``height`` and ``width``.
        geometry: the present preprocessing.
        patch: number of pixels that divides the sides, for a transformer; 0 for any.
    """
    sizes = table[["height", "width"]].drop_duplicates()
    height, width = suggested_size(*sizes.median().round().astype(int), patch or 32)
    found = [f"'resize: [{height}, {width}]' and 'crop: null'"]
    whole = Geometry(geometry.resize, None)
    resized = {whole.output(row.height, row.width) for row in sizes.itertuples()}
    if len(resized) == 1 and fits(resized, patch):
        found.insert(0, "'crop: null'")
    return found


def fits(sizes: Iterable[Size], patch: int) -> bool:
    """Tell whether images can be divided into patches; 0 for a network without patches."""
    return not patch or all(side % patch == 0 for size in sizes for side in size)


def suggested_size(height: int, width: int, multiple: int = 32) -> tuple[int, int]:
    """Return a size of the same shape with about the pixels of 256 x 256."""
    scale = 256 / math.sqrt(height * width)
    return tuple(max(1, round(side * scale / multiple)) * multiple for side in (height, width))  # type: ignore[return-value]


def _warn_of_depth(found: Findings) -> None:
    """Warn of images with more than 8 bits whose values use a small part of the range."""
    table = found.table
    for split, rows in table[table["peak"].notna()].groupby("split", sort=False):
        brightest = rows["peak"].max()
        if brightest < DARK:
            kind = "training" if split == "train" else "test"
            bits = max(1, math.ceil(math.log2(65536 * brightest))) if brightest else 0
            found.warn(
                "dark",
                f"{len(rows)} {kind} images of more than 8 bits are almost black for the backbone: "
                f"their values reach {100 * brightest:.2g} % of white, as from a camera of {bits} "
                "bits",
                rows["image"],
                "stretch all images in the same way to 16 bits, or save them with 8 bits",
            )


def _warn_of_kinds(found: Findings) -> None:
    """Warn of test images of a kind that no training image has."""
    table = found.table
    deep = np.where(table["bits"] > 8, "more than 8 bits", "8 bits")
    kinds = pd.Series(deep, table.index) + np.where(table["colour"], ", colour", ", grey")
    train, test = kinds[table["split"] == "train"], kinds[table["split"] == "test"]
    for kind, names in table.loc[test.index, "image"].groupby(test):
        if len(train) and kind not in set(train):
            found.warn(
                "kinds-differ",
                f"{len(names)} of {len(test)} test images have {kind}, but training images have "
                f"{' or '.join(sorted(set(train)))}",
                names,
                "save all images in the same way: a method may detect the kind of file",
            )


def _warn_of_damage(found: Findings) -> None:
    """Warn of images with many black or grey rows, unlike the others."""
    table = found.table
    usual = table["blank"].median()
    suspected = table["image"][(table["blank"] >= usual + BLANK) & ~(table["peak"] < DARK)]
    if 0 < len(suspected) <= len(table) / 4:  # else it is the product
        found.warn(
            "blank",
            f"{len(suspected)} images have black or medium grey rows ({BLANK:.0%} of the height or "
            "more), unlike the others, as incomplete files do",
            suspected,
            "look at them, and replace damaged files",
        )
