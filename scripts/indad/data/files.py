"""The files below a folder: images, other files, and what systems leave there.

Training data and photos to score are found by the same functions, so that both read the same files.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indad.data.folder_layout import Parts
from indad.data.formats import (
    FORMATS,
    RAW_SUFFIXES,
    SUFFIXES,
    UNREADABLE_SUFFIXES,
    content_format,
    unreadable,
)

#: Files and folders of network storage, recycle bins, archives and file systems, in lower case.
#: Names that begin with a dot are left out, too.
SYSTEM_NAMES = frozenset(
    {
        "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "@__thumb", "#recycle",
        "#snapshot", "~snapshot", "$recycle.bin", "recycler", "recycled", "lost+found",
        "system volume information", "network trash folder", "temporary items", "__macosx",
        "__pycache__", "found.000", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
        "icon\r",
    }
)  # fmt: skip
_SYSTEM_ENDINGS = ("@synoeastream", "@synoresource")
#: Endings of files that the workflow does not examine each time it is planned.
TEXT_SUFFIXES = (
    ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".ini", ".log", ".html",
    ".pdf",
)  # fmt: skip


class File(NamedTuple):
    """A file, or a folder that cannot be listed.

    Attributes:
        parts: its path.
        status: status of the file, links followed; None if it cannot be used.
        problem: what is wrong with it; "" if nothing is.
        is_folder: whether it is a folder.
    """

    parts: Parts
    status: os.stat_result | None = None
    problem: str = ""
    is_folder: bool = False


class Folder(NamedTuple):
    """What a folder and its sub-folders contain, sorted by path.

    Attributes:
        images: the image files. Those with a ``problem`` cannot be read.
        others: files that are no images.
        left_out: hidden files and folders, those in ``SYSTEM_NAMES``, and links to a folder above,
            whose files are found without them.
    """

    images: list[File]
    others: list[Parts]
    left_out: list[Parts]


def is_left_out(name: str) -> bool:
    """Tell whether a file or folder is hidden, or belongs to a storage or operating system."""
    lowered = name.lower()
    return (
        name.startswith((".", "~$")) or lowered in SYSTEM_NAMES or lowered.endswith(_SYSTEM_ENDINGS)
    )


def listing(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted; none if it is missing or unreadable."""
    readable = folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    return sorted(folder.iterdir()) if readable else []


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without those that `is_left_out` names."""
    return [path for path in listing(folder) if not is_left_out(path.name) and path.is_dir()]


def scan(folder: Path, exclude: Collection[Path] = ()) -> Folder:
    """Find the images below a folder, by their content.

    Links are followed, except to a folder above. An image in a format that cannot be read, and
    whatever else cannot be read, has a problem.

    Args:
        folder: where to search.
        exclude: folders that are left out.
    """
    left_out: list[Parts] = []
    images, others = [], []
    for file in walk(folder, exclude, left_out):
        problem: str | None = file.problem
        if not problem:
            problem = refusal(folder.joinpath(*file.parts))
        elif not file.is_folder and not _looks_like_image(file.parts[-1]):
            problem = None
        if problem is None:
            others.append(file.parts)
        else:
            images.append(file._replace(problem=problem))
    return Folder(images, others, sorted(left_out))


def refusal(path: Path) -> str | None:
    """Return why an image cannot be read, "" if it can, or None if the file is no image.

    Only the beginning of the file is read: damage is found when the image is decoded.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    try:
        kind = content_format(path)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if suffix in RAW_SUFFIXES:  # a TIFF file, but its first image is a preview
        return unreadable(f"{suffix} files")
    if kind in FORMATS:
        return ""
    if kind:
        return unreadable(f"{kind} images")
    return unreadable(f"{suffix} files") if suffix in UNREADABLE_SUFFIXES else None


def walk(
    folder: Path, exclude: Collection[Path] = (), left_out: list[Parts] | None = None
) -> list[File]:
    """List all files below ``folder``, sorted by path, without opening them.

    Links are followed, except to a folder above. What cannot be read is listed with its problem.

    Args:
        folder: where to search.
        exclude: folders that are left out.
        left_out: is extended by what is left out, see `Folder`.
    """
    excluded = {_identity(each) for each in exclude if each.exists()}
    seen: list[Parts] = [] if left_out is None else left_out

    # os.scandir and not pathlib: this runs over all files each time the workflow is planned.
    def visit(path: str, parts: Parts, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
        try:
            identity = _identity(path)
            with os.scandir(path) as scanned:
                entries = list(scanned)
        except OSError as error:
            if parts:
                yield File(parts, None, f"cannot be listed ({error.strerror})", is_folder=True)
            return
        if identity in above:
            seen.append(parts)
            return
        if parts and identity in excluded:
            return
        for entry in entries:
            here = (*parts, entry.name)
            if is_left_out(entry.name):
                seen.append(here)
            elif entry.is_dir():
                yield from visit(entry.path, here, (*above, identity))
            else:
                yield _file(entry, here)

    return sorted(visit(str(folder), (), ()), key=lambda file: file.parts)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _file(entry: os.DirEntry[str], parts: Parts) -> File:
    try:
        status = entry.stat()
    except OSError as error:
        return File(parts, problem=f"a broken link ({error.strerror}); repair or remove it")
    if not stat.S_ISREG(status.st_mode):
        return File(parts, problem="not a regular file; remove it")
    return File(parts, status)


def _looks_like_image(name: str) -> bool:
    """Tell whether the name of a file that cannot be opened may be that of an image."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in (*SUFFIXES, *UNREADABLE_SUFFIXES, *RAW_SUFFIXES, "")


def is_text(name: str) -> bool:
    """Tell whether a file has the ending of a text."""
    return PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES
