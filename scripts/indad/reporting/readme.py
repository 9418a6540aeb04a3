"""Generated parts of a document, between markers, and its pictures."""

import difflib
import re
from pathlib import Path

from PIL import Image

from indad.core import atomic
from indad.core.errors import DataError


def update(path: Path, name: str, content: str) -> bool:
    """Replace a block of the document at ``path``; return whether it changed.

    Raises:
        DataError: the document or its markers are missing.
    """
    before, after = _versions(path, name, content)
    if after != before:
        atomic.write_text(path, after)
    return after != before


def difference(path: Path, name: str, content: str) -> str:
    """Return the lines in which a block differs from ``content``; "" if it is up to date.

    Raises:
        DataError: the document or its markers are missing.
    """
    before, after = _versions(path, name, content)
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n".join(line for line in lines if line.startswith(("- ", "+ ")))


def shrink(picture: Path, output: Path) -> None:
    """Copy a picture with at most 256 colours, about a fifth of the size, for a repository."""
    with Image.open(picture) as image, atomic.replacing(output) as temporary:
        # Maximum coverage preserves white and the ends of a colour scale.
        few = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
        few.save(temporary, optimize=True)


def _versions(path: Path, name: str, content: str) -> tuple[str, str]:
    """Return the current and the updated document."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    after, count = pattern.subn(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", before)
    if count != 1:
        raise DataError(
            f"{path}: needs the markers '{begin}' and '{end}', each on its own line and exactly "
            f"once; found {count} such blocks"
        )
    return before, after
