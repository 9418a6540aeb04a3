"""Free disk space, checked before writing: HDF5 ends the process when a disk is full."""

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from indad.core.errors import DiskError, IndadError


def shortage(folder: Path, needed: int, reserve: int) -> str:
    """Return a message if ``needed`` bytes and a reserve do not fit on a folder's disk, else ""."""
    free = shutil.disk_usage(folder).free
    if needed + reserve <= free:
        return ""
    unit, name = (1e9, "GB") if needed >= 1e9 else (1e6, "MB")
    return (
        f"not enough disk space in {folder}: {needed / unit:.1f} {name} needed, "
        f"{max(0, free - reserve) / unit:.1f} {name} free"
    )


def require_room(path: Path, needed: int) -> None:
    """Check that a file of ``needed`` bytes fits on the disk of ``path``.

    Raises:
        DiskError: it does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hundredth and half a megabyte for the metadata of HDF5.
    if message := shortage(path.parent, needed + needed // 100, 1 << 19):
        raise DiskError(
            f"{path}: the disk is full: {message}; free some space, then run again; finished "
            "results are kept"
        )


#: Error numbers of full, failing and write-protected disks, with messages. HDF5 and safetensors
#: give the number in their text only.
_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another 'results' folder",
    errno.EACCES: "permission denied; make the folder writable or choose another 'results' folder",
    errno.EIO: "the disk failed to read or write; check it",
}


@contextlib.contextmanager
def explain_disk_errors() -> Iterator[None]:
    """Replace the errors of a full, failing or write-protected disk by one with clear advice.

    Raises:
        DiskError: for these; other errors are raised unchanged.
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
            f"{f'{place}: ' if place else ''}{_DISK[number]}, then run again; finished results "
            f"are kept [{type(error).__name__}: {str(error).splitlines()[0]}]"
        ) from error
