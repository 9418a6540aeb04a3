"""Space on the disk for archives and their content."""

from __future__ import annotations

from pathlib import Path

from indad.core import disk
from indad.core.errors import DataError

#: Bytes that must stay free on the disk.
RESERVE = 200_000_000


def check_space(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes and a reserve fit on the disk of ``folder``.

    Raises:
        DataError: they do not.
    """
    if problem := disk.shortage(folder, needed, RESERVE):
        raise DataError(problem)
