"""Unpack archives from the internet: files only, and only below their folder.

Members are opened by ``tarfile`` and ``zipfile`` and written here by name and content, without
owners, permissions or times. The ``extract`` methods of these modules are not used: tarfile's
``data`` filter and zipfile change absolute names and accept links, and a sparse tar member may
write more than its size. Here such archives are refused, as are decompression bombs.
"""

import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.public.download import check_space

#: An archive that unpacks to more than RATIO times its size, and to more than ALWAYS bytes, is
#: refused as a decompression bomb: images hardly shrink in an archive.
RATIO = 100
ALWAYS = 10**9
#: Largest tar header in bytes (long names, extended attributes): headers are read into memory.
LONGEST_HEADER = 10**6

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # an unknown zip compression
    RuntimeError,  # an encrypted zip
    ValueError,
    struct.error,
)


class _Member(NamedTuple):
    """A file of an archive: its name, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def safe_name(name: str) -> PurePosixPath:
    """Return a name from an archive as a relative path that stays below its folder.

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
    """Unpack the files of several categories, each into its own folder, in one pass.

    Args:
        archive: a zip file, or a tar file, plain or compressed with gzip, bzip2 or xz. The content
            decides which, not the name.
        folders: an existing empty folder for each category.
        wants: ``wants(category, parts)`` tells whether a category needs the file of that path.
        progress: called with megabytes of the archive done and in total.

    Raises:
        DataError: the file is not an archive or is damaged; a member is a link or a device, leads
            out of the folder or occurs twice; the content is larger than the disk or the limit.
    """
    size = archive.stat().st_size
    limit = max(RATIO * size, ALWAYS)
    unpacked = 0
    try:
        with archive.open("rb") as file:
            members = _zip_members if file.read(2) == b"PK" else _tar_members
        for member in members(archive, max(1, size // 10**6), progress):
            path = safe_name(member.name)
            unpacked += member.size + 512  # members that are skipped and headers take time, too
            if unpacked > limit:
                raise DataError(f"it unpacks to more than {limit:,} bytes: refused")
            if path.parts[0] == "__MACOSX" or path.name.startswith("."):
                continue
            for category, folder in folders.items():
                if wants(category, path.parts):
                    _write(member, folder / path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{archive}: {member.name} occurs twice in it") from None
    except DataError as error:
        raise DataError(f"{archive}: {error}") from None
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise DataError(f"{archive}: not a zip or tar file, or damaged ({reason})") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from None


def _write(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(target.parent, member.size)
    source = member.open()
    assert source is not None  # it is a regular file
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file)
    if target.stat().st_size != member.size:
        raise DataError(f"{member.name} is truncated: the archive is damaged")


def _zip_members(archive: Path, megabytes: int, progress: Progress) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        infos = packed.infolist()
        for done, info in enumerate(infos, 1):
            if info.is_dir():
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise DataError(f"{info.filename} is a link or a device: refused")
            yield _Member(info.filename, info.file_size, partial(packed.open, info))
            progress(done * megabytes // len(infos), megabytes)


def _tar_members(archive: Path, megabytes: int, progress: Progress) -> Iterator[_Member]:
    # Not a tarfile stream ("r|*"), because the position in the file gives the progress.
    with (
        archive.open("rb") as file,
        tarfile.open(fileobj=file, mode="r:*", tarinfo=_TarInfo) as packed,
    ):
        for info in packed:
            if info.isdir():
                continue
            if not info.isreg():
                raise DataError(f"{info.name} is a link or a device: refused")
            yield _Member(info.name, info.size, partial(packed.extractfile, info))
            progress(min(file.tell() // 10**6, megabytes - 1), megabytes)
        progress(megabytes, megabytes)


class _TarInfo(tarfile.TarInfo):
    """A member whose headers are limited in size."""

    def _proc_member(self, packed: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > LONGEST_HEADER:
            raise DataError(f"a header of {self.size:,} bytes: refused")
        return super()._proc_member(packed)  # type: ignore[misc]
