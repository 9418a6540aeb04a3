"""Archives from elsewhere, unpacked so that nothing gets outside the folder meant for it.

Files are written by name and content alone: no links, devices, owners or permissions.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.public.download import check_space

#: An archive that unpacks to more than this many times its size, and 1 GB, is a bomb: images
#: hardly shrink in an archive.
RATIO = 100
ALWAYS = 10**9
#: Bytes a tar header (a long name, extended attributes) may take: it is read into memory.
LONGEST_HEADER = 10**6

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a zip method Python lacks
    RuntimeError,  # an encrypted zip
    ValueError,
    struct.error,
)

#: A member: its name, its size in bytes, and how to open it.
Member = tuple[str, int, Callable[[], IO[bytes]]]


def safe_name(name: str) -> PurePosixPath:
    """Return a name from elsewhere as a relative path that stays below its folder.

    Raises:
        DataError: it does not.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or re.match(r"^[A-Za-z]:", name)
        or not name.isprintable()
    ):
        raise DataError(f"the name {name!r} leads out of the folder")
    return path


def unpack(
    archive: Path,
    folders: Mapping[str, Path],
    wants: Callable[[str, tuple[str, ...]], bool],
    progress: Progress = ignore,
) -> None:
    """Unpack, in one pass, what each category needs into a folder of its own.

    Args:
        archive: a zip file, or a tar file, plain or compressed with gzip, bzip2 or xz; told by
            content, not by name.
        folders: category to an existing empty folder.
        wants: ``wants(category, parts)`` tells whether a category needs the member of that path.
        progress: called with megabytes of the archive.

    Raises:
        DataError: the file is no archive or is damaged; a member is a link or a device, or leads
            out of the folder, or comes twice; more comes out than fits on the disk or than an
            honest archive holds.
    """
    size = archive.stat().st_size
    limit = max(RATIO * size, ALWAYS)
    written = 0
    try:
        for name, length, opened in _members(archive, size, progress):
            path = safe_name(name)
            written += length + 512  # unwanted members take time, headers too
            if written > limit:
                raise DataError(f"it unpacks to more than {limit:,} bytes: refused")
            if path.parts[0] == "__MACOSX" or path.name.startswith("."):
                continue
            for category, folder in folders.items():
                if not wants(category, path.parts):
                    continue
                check_space(folder, length)
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
                if target.stat().st_size != length:
                    raise DataError(f"{name} is cut off: the archive is damaged")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{archive}: {name} comes twice in it") from None
    except DataError as error:
        raise DataError(f"{archive}: {error}") from None
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise DataError(f"{archive}: no zip or tar file, or damaged ({reason})") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from None


def _members(archive: Path, size: int, progress: Progress) -> Iterator[Member]:
    """Yield the files of an archive; anything else but a folder is refused."""
    megabytes = max(1, size // 10**6)
    with archive.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        with zipfile.ZipFile(archive) as packed:
            infos = packed.infolist()
            for done, info in enumerate(infos, 1):
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise DataError(f"{info.filename} is a link or a device: refused")
                yield info.filename, info.file_size, lambda info=info: packed.open(info)
                progress(done * megabytes // len(infos), megabytes)
        return
    # A stream would read less, but cannot tell how far it has come.
    with (
        archive.open("rb") as file,
        tarfile.open(fileobj=file, mode="r:*", tarinfo=_TarInfo) as packed,
    ):
        for member in packed:
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{member.name} is a link or a device: refused")
            yield member.name, member.size, lambda member=member: _opened(packed, member)
            progress(min(file.tell() // 10**6, megabytes - 1), megabytes)
        progress(megabytes, megabytes)


_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class _TarInfo(tarfile.TarInfo):
    """A member whose headers may not fill the memory."""

    def _proc_member(self, packed: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > LONGEST_HEADER:
            raise DataError(f"a header of {self.size:,} bytes: refused")
        return super()._proc_member(packed)  # type: ignore[misc]


def _opened(packed: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = packed.extractfile(member)
    assert file is not None  # a regular file
    return file
