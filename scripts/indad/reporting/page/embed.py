"""Pictures inside the page: compressed, as data URIs."""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from indad.core.errors import StoreError


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


def embed(paths: Iterable[Path], width: int, threads: int = 1) -> dict[Path, Picture]:
    """Compress pictures as WebP.

    Compression is lossy or lossless, whichever is smaller: photos are lossy, line art is lossless.

    Args:
        paths: the pictures, in any format that Pillow reads.
        width: maximum width in pixels; wider pictures are made smaller.
        threads: number of pictures compressed at a time.

    Raises:
        StoreError: a file is not a picture.
    """
    different = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(threads) as pool:
        encoded = pool.map(partial(_encode, width=width), different)
        return dict(zip(different, encoded, strict=True))


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
