"""Generated parts of a document, between markers."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from indad.core import atomic
from indad.core.errors import DataError


def _block(name: str) -> re.Pattern[str]:
    marker = re.escape(name)
    return re.compile(rf"(<!-- begin {marker} -->\n).*?(<!-- end {marker} -->)", re.DOTALL)


def replace_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with the text between the markers of ``name`` replaced.

    Raises:
        ValueError: the markers are missing, or there are several pairs.
    """
    pattern = _block(name)
    count = len(pattern.findall(text))
    if count != 1:
        raise ValueError(
            f"needs the markers '<!-- begin {name} -->' and '<!-- end {name} -->', each on its own "
            f"line and exactly once; found {count} such blocks"
        )
    return pattern.sub(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", text)


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


def _versions(path: Path, name: str, content: str) -> tuple[str, str]:
    """Return the current and the updated document."""
    try:
        before = path.read_text(encoding="utf-8")
        return before, replace_block(before, name, content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
