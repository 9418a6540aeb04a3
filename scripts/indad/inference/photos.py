"""Photos to score: opening one, finding those in folders, and those that arrive in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from indad.core.errors import DataError
from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES, decode

#: What can be scored: a path, a uint8 array ``(H, W, 3)`` or ``(H, W)``, a PIL image.
Photo = str | os.PathLike[str] | np.ndarray | Image.Image
#: Seconds after which an empty file is an image like others; until then it may still be written.
EMPTY_FOR = 30.0


def photo_name(photo: Photo) -> str | None:
    """Return the path of a photo, or None for pixels in memory."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def open_photo(photo: Photo) -> Image.Image:
    """Return a photo as a PIL image, upright.

    Raises:
        DataError: the file is missing or damaged, or the array is not an image.
    """
    if isinstance(photo, Image.Image):
        return photo
    if not isinstance(photo, np.ndarray):
        return decode(Path(photo))
    shape = photo.shape
    if photo.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise DataError(
            f"an array of type {photo.dtype} and shape {shape} is not an image; give uint8 of "
            "shape (H, W, 3), in the order red, green, blue, or (H, W)"
        )
    if 0 in shape:
        raise DataError(f"an array of shape {shape} has no pixels")
    return Image.fromarray(photo)


def find_photos(folder: Path, exclude: Path | None = None) -> Iterator[Path]:
    """List the image files in a folder and its sub-folders, sorted, without hidden ones.

    Formats that cannot be read are included, so that such a file is an error and not skipped.

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
            suffix = Path(name).suffix.lower()
            if not name.startswith(".") and suffix in (*SUFFIXES, *UNREADABLE_SUFFIXES):
                yield Path(root) / name


def list_photos(images: Sequence[Path], exclude: Path | None = None) -> list[Path]:
    """Return the files in ``images`` and all images in the folders in ``images``, each once.

    Raises:
        DataError: a file or folder does not exist, or a folder has no images.
    """
    found: dict[Path, Path] = {}
    for each in images:
        if not each.exists():
            raise DataError(f"{each}: no such image file or folder")
        inside = list(find_photos(each, exclude)) if each.is_dir() else [each]
        if not inside:
            raise DataError(f"{each}: no images in this folder ({', '.join(SUFFIXES)})")
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
        known = {path.resolve() for path in done}
        self._before: dict[Path, tuple[int, int]] = {}
        self._reported = {p: state for p, state in self._states().items() if p.resolve() in known}

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
