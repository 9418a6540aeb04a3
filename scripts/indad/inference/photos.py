"""Find the images to score: files, what is in folders, and what arrives in one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from indad.core.errors import DataError
from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES

#: Kinds of files that are taken for images in a folder: those that cannot be read among them, so
#: that they are pointed out rather than passed over.
KINDS = (*SUFFIXES, *UNREADABLE_SUFFIXES)
#: Seconds after which an empty file is no longer taken for one that is about to be written.
EMPTY_FOR = 30.0


def below(folder: Path, exclude: Path | None = None) -> Iterator[Path]:
    """List the image files in a folder and its sub-folders, sorted; no hidden ones.

    Args:
        folder: where to look. Links to folders are not followed.
        exclude: a folder that is left out.
    """
    without = None if exclude is None else exclude.resolve()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(root) / name).resolve() != without
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in KINDS:
                yield Path(root) / name


def listed(images: Sequence[Path], exclude: Path | None = None) -> list[Path]:
    """Return the files among ``images`` and all images in the folders among them, each once.

    Raises:
        DataError: a file or folder is not there, or a folder has no images.
    """
    found: dict[Path, Path] = {}
    for each in images:
        if each.is_dir():
            inside = list(below(each, exclude))
            if not inside:
                raise DataError(f"{each}: no images in this folder ({', '.join(SUFFIXES)})")
        elif each.exists():
            inside = [each]
        else:
            raise DataError(f"{each}: no such image file or folder")
        for path in inside:
            found.setdefault(path.resolve(), path)
    return list(found.values())


class Arrivals:
    """New images in a folder, each reported once it is written.

    A file is taken as written when its size and time have not changed between two looks. A file
    that is overwritten later is a new image.

    Args:
        folder: the folder, with its sub-folders.
        exclude: a sub-folder that is left out.
        done: images there that are not to be reported.
    """

    def __init__(
        self, folder: Path, exclude: Path | None = None, done: Iterable[Path] = ()
    ) -> None:
        self.folder, self.exclude = folder, exclude
        self._before: dict[Path, tuple[int, int]] = {}
        self._reported: dict[Path, tuple[int, int]] = {}
        known = {path.resolve() for path in done}
        if known:
            self._reported = {
                path: state for path, state in self._look().items() if path.resolve() in known
            }

    def _look(self) -> dict[Path, tuple[int, int]]:
        seen = {}
        for path in below(self.folder, self.exclude):
            try:
                state = path.stat()
            except FileNotFoundError:  # gone since the folder was listed
                continue
            if state.st_size or time.time() - state.st_mtime > EMPTY_FOR:
                seen[path] = (state.st_size, state.st_mtime_ns)
        return seen

    def poll(self) -> list[Path]:
        """Return the images that are finished since the last look.

        Raises:
            DataError: the folder is not there.
        """
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder to watch")
        now = self._look()
        new = [
            path
            for path, state in now.items()
            if self._before.get(path) == state and self._reported.get(path) != state
        ]
        self._before = now
        self._reported |= {path: now[path] for path in new}
        return new
