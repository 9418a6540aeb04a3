"""Pictures inside the page: data URIs, compressed to fit a budget."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from indad.core.errors import StoreError

#: Widths in pixels to try, from the largest useful one to the smallest legible one.
WIDTHS = (1600, 1200, 960, 720, 540)


@dataclass(frozen=True)
class Picture:
    """A picture for the attribute ``src``.

    Attributes:
        uri: a ``data:`` URI.
        width, height: in pixels, as embedded.
    """

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Embedded:
    """All pictures of a page.

    Attributes:
        pictures: by path.
        width: maximum width in pixels.
        reduced: whether the budget required a smaller width than the largest one.
    """

    pictures: dict[Path, Picture]
    width: int
    reduced: bool


def embed(paths: Sequence[Path], budget: int, threads: int = 1) -> Embedded:
    """Compress pictures as WebP, all at the largest width at which they fit.

    Compression is lossy or lossless, whichever is smaller: photos are lossy, line art is lossless.

    Args:
        paths: the pictures, in any format that Pillow reads; repeated if shown several times.
        budget: maximum number of characters of all URIs. If the smallest width exceeds it, that
            width is used: no picture is left out.
        threads: number of pictures compressed at a time.

    Raises:
        StoreError: a file is not a picture.
    """
    different = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(threads) as pool:
        for width in WIDTHS:
            encoded = pool.map(partial(_encode, width=width), different)
            pictures = dict(zip(different, encoded, strict=True))
            if sum(len(pictures[path].uri) for path in paths) <= budget:
                break
    return Embedded(pictures, width, width != WIDTHS[0])


def _encode(path: Path, width: int) -> Picture:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete it and run again") from None
    if image.width > width:
        image = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    lossy, exact = io.BytesIO(), io.BytesIO()
    image.save(lossy, "WEBP", quality=82, method=4)
    # Few colours mean line art, which is often smaller and sharper without loss.
    if image.getcolors(4096) is not None:
        image.save(exact, "WEBP", lossless=True, quality=60, method=3)
    smaller = min(filter(None, (lossy.getvalue(), exact.getvalue())), key=len)
    text = base64.b64encode(smaller).decode("ascii")
    return Picture(f"data:image/webp;base64,{text}", image.width, image.height)
