"""The image files below a category folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES

#: The parts of a path relative to the category folder.
Parts = tuple[str, ...]


class File(NamedTuple):
    """An image file, or a folder that cannot be listed.

    Attributes:
        parts: its path.
        status: status of the file, links followed; None if it cannot be used.
        problem: what is wrong with it; "" if nothing is.
    """

    parts: Parts
    status: os.stat_result | None = None
    problem: str = ""


def walk(folder: Path) -> list[File]:
    """List all files below ``folder`` that have an image's extension, sorted by path.

    Hidden files and folders are left out. Links are followed, except in circles. What cannot be
    read is listed with its problem.
    """
    return sorted(_walk(str(folder), (), ()), key=lambda file: file.parts)


def _walk(folder: str, parts: Parts, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
    # os.scandir and not pathlib: this runs over all files each time the workflow is planned.
    try:
        own = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
    except OSError as error:
        if parts:
            yield File(parts, problem=f"cannot be listed ({error.strerror})")
        return
    identity = (own.st_dev, own.st_ino)
    if identity in above:
        yield File(parts, problem="a link that leads back to a folder above it; remove it")
        return
    for entry in entries:
        here = (*parts, entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, here, (*above, identity))
        elif entry.name.lower().endswith((*SUFFIXES, *UNREADABLE_SUFFIXES)):
            try:
                status = entry.stat()
            except OSError as error:
                problem = f"a broken link ({error.strerror}); repair or remove it"
                yield File(here, problem=problem)
                continue
            if stat.S_ISREG(status.st_mode):
                yield File(here, status)
            else:
                yield File(here, problem="not a regular file; remove it")
