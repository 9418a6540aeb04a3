"""Room on a disk, looked at before it is written to.

HDF5 cannot be told that a disk is full: it ends the process. What is written is of known size.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from indad.core.errors import DiskError, IndadError


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


#: What a full or write-protected disk makes of a write, and what to do about it. HDF5 and
#: safetensors give the number in their text only.
_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another 'results' folder",
    errno.EACCES: "permission denied; make the folder writable or choose another 'results' folder",
    errno.EIO: "the disk failed to read or write; check it",
}


@contextlib.contextmanager
def explain_disk_errors() -> Iterator[None]:
    """Turn the errors of a full, failing or write-protected disk into one the user can mend.

    Raises:
        DiskError: for these; any other error passes.
    """
    try:
        yield
    except IndadError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in _DISK:
            found = re.search(r"(?:errno = |os error )(\d+)", str(error))
            number = int(found[1]) if found else None
        if number not in _DISK:
            raise
        place = getattr(error, "filename", None)
        raise DiskError(
            f"{f'{place}: ' if place else ''}{_DISK[number]}, then run again; what is finished is "
            f"kept [{type(error).__name__}: {str(error).splitlines()[0]}]"
        ) from error
