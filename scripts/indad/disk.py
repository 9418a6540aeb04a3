"""Room on a disk, looked at before it is written to.

HDF5 cannot be told that a disk is full: it ends the process. What is written is of known size.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from indad.errors import DiskError


def shortage(folder: Path, needed: int, reserve: int) -> str:
    """Say that ``needed`` bytes and a reserve do not fit on the disk of a folder; "" if they do."""
    free = shutil.disk_usage(folder).free
    if needed + reserve <= free:
        return ""
    unit, name = (1e9, "GB") if needed >= 1e9 else (1e6, "MB")
    return (
        f"not enough disk space in {folder}: {needed / unit:.1f} {name} needed, "
        f"{max(0, free - reserve) / unit:.1f} {name} free"
    )


def require_room(path: Path, needed: int) -> None:
    """Make sure that a file of ``needed`` bytes can be written at ``path``.

    Raises:
        DiskError: it cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hundredth and half a megabyte for what HDF5 keeps beside the numbers.
    if said := shortage(path.parent, needed + needed // 100, 1 << 19):
        raise DiskError(
            f"{path}: the disk is full: {said}; free some space, then run again; what is finished "
            "is kept"
        )
