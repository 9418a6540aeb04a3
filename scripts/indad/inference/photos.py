"""Find the photos to score: files, the images in folders, and images that arrive in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from indad.core.errors import DataError
from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES

#: Endings of image files in a folder. Formats that cannot be read are included, so that such a file
#: is an error and not skipped.
KINDS = (*SUFFIXES, *UNREADABLE_SUFFIXES)
#: Seconds after which an empty file is an image like others; until then it may still be written.
EMPTY_FOR = 30.0


def find_photos(folder: Path, exclude: Path | None = None) -> Iterator[Path]:
    """List the image files in a folder and its sub-folders, sorted, without hidden ones.

    Args:
        folder: where to search. Links to folders are not followed.
        exclude: a folder that is left out.
    """
    excluded = None if exclude is None else exclude.resolve()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(root) / name).resolve() != excluded
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in KINDS:
                yield Path(root) / name


def list_photos(images: Sequence[Path], exclude: Path | None = None) -> list[Path]:
    """Return the files in ``images`` and all images in the folders in ``images``, each once.

    Raises:
        DataError: a file or folder does not exist, or a folder has no images.
    """
    found: dict[Path, Path] = {}
    for each in images:
        if each.is_dir():
            inside = list(find_photos(each, exclude))
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
    """New images in a folder, each reported once it is completely written.

    A file is complete when its size and time have not changed between two polls. A file that is
    overwritten later is a new image.

    Args:
        folder: the folder, with its sub-folders.
        exclude: a sub-folder that is left out.
        done: images in the folder that are not to be reported.
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
                path: state for path, state in self._states().items() if path.resolve() in known
            }

    def _states(self) -> dict[Path, tuple[int, int]]:
        """Return size and modification time of each image."""
        states = {}
        for path in find_photos(self.folder, self.exclude):
            try:
                found = path.stat()
            except FileNotFoundError:  # removed since the folder was listed
                continue
            if found.st_size or time.time() - found.st_mtime > EMPTY_FOR:
                states[path] = (found.st_size, found.st_mtime_ns)
        return states

    def poll(self) -> list[Path]:
        """Return the images that have become complete since the last poll.

        Raises:
            DataError: the folder does not exist.
        """
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder to watch")
        states = self._states()
        new = [
            path
            for path, state in states.items()
            if self._before.get(path) == state and self._reported.get(path) != state
        ]
        self._before = states
        self._reported |= {path: states[path] for path in new}
        return new
