"""Photos to score: opening one, finding those in folders, and those that arrive in a folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from indad.core.errors import DataError
from indad.core.names import printable
from indad.data.data_warnings import first_names
from indad.data.files import scan
from indad.data.formats import FORMATS, SUFFIXES
from indad.data.images import decode
from indad.data.siblings import find_siblings
from indad.inference.result import FileState, file_state

#: What can be scored: a path, an array (see `open_photo`), a PIL image.
Photo = str | os.PathLike[str] | np.ndarray | Image.Image
#: Seconds after which an empty file is an image like others; until then it may still be written.
EMPTY_FOR = 30.0
#: PIL images are loaded when they are first used, and not by two threads at once.
_LOADING = threading.Lock()


class PhotoTypeError(DataError, TypeError):
    """An object that is not an image of a type that can be scored."""


def photo_name(photo: Photo) -> str | None:
    """Return the path of a photo, or None for pixels in memory."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def open_photo(photo: Photo) -> Image.Image:
    """Return a photo as a PIL image, upright.

    Args:
        photo: a path; a PIL image, whose EXIF orientation is applied as for a file; or an array:
            uint8 ``(H, W, 3)`` in the order red, green, blue, or grey ``(H, W)`` of uint8, uint16
            or floats from 0 to 1.

    Raises:
        PhotoTypeError: ``photo`` has another type.
        DataError: the file is missing or damaged, or the array has no pixels.
    """
    if isinstance(photo, (str, os.PathLike)):
        return decode(Path(photo))
    if isinstance(photo, Image.Image):
        return _upright(photo)
    if not isinstance(photo, np.ndarray):
        name = f"{type(photo).__module__}.{type(photo).__qualname__}".removeprefix("builtins.")
        raise PhotoTypeError(
            f"an object of type {name} is not an image; give a path, a PIL image (encoded bytes: "
            "PIL.Image.open(io.BytesIO(data))) or a NumPy array of uint8, shape (H, W, 3)"
        )
    shape, grey = photo.shape, photo.ndim == 2
    deep = photo.dtype == np.uint16 or np.issubdtype(photo.dtype, np.floating)
    colour = photo.ndim == 3 and shape[2] == 3
    if not (photo.dtype == np.uint8 and (grey or colour)) and not (deep and grey):
        raise PhotoTypeError(
            f"an array of type {photo.dtype} and shape {shape} is not an image; give uint8 of "
            "shape (H, W, 3), in the order red, green, blue (OpenCV has blue first: "
            "image[..., ::-1]), or grey (H, W) of uint8, uint16 or floats from 0 to 1"
        )
    if 0 in shape:
        raise DataError(f"an array of shape {shape} has no pixels")
    return Image.fromarray(photo.astype(np.float32) if photo.dtype.kind == "f" else photo)


def _upright(image: Image.Image) -> Image.Image:
    """Load a PIL image, and apply its EXIF orientation as `decode` does."""
    name = getattr(image, "filename", "")
    unread = bool(getattr(image, "tile", None)) and image.tell() == 0
    if unread and image.format in FORMATS and isinstance(name, str) and Path(name).is_file():
        return decode(Path(name))  # Image.open(path): the file is read, and checked, like a path
    name = name or "an image in memory"
    if 0 in image.size:
        raise DataError(f"{name}: has no pixels")
    try:
        with _LOADING:
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:  # PIL raises errors of any kind on damaged files
        raise DataError(f"{name}: cannot be decoded ({error})") from None


def find_photos(folder: Path, exclude: Collection[Path] = ()) -> Iterator[Path]:
    """List the image files in a folder and its sub-folders, sorted, as training images are found.

    Formats that cannot be read are included, so that such a file is an error and not skipped. Links
    are followed, except to a folder above.

    Args:
        folder: where to search.
        exclude: folders that are left out.
    """
    for file in scan(folder, exclude).images:
        yield folder.joinpath(*file.parts)


def describe_others(images: Sequence[Path], exclude: Collection[Path] = ()) -> list[str]:
    """Name the files in the folders of ``images`` that are no photos, one line for each reason."""
    others: list[str] = []
    left_out: list[str] = []
    siblings: list[str] = []
    for folder in (each for each in images if each.is_dir()):
        found = scan(folder, exclude)
        paths = [file.parts for file in found.images if not file.is_folder]
        others += [str(folder.joinpath(*parts)) for parts in found.others]
        left_out += [str(folder.joinpath(*parts)) for parts in found.left_out]
        siblings += [str(folder.joinpath(*parts)) for parts in find_siblings(paths)]
    lines = {
        "not scored, no images": others,
        "not scored, hidden or of a storage or operating system": left_out,
        "scored, but seem to be masks, other channels or previews of other photos": siblings,
    }
    return [
        f"{text}: {len(names)}, {printable(first_names(names))}"
        for text, names in lines.items()
        if names
    ]


def list_photos(images: Sequence[Path], exclude: Collection[Path] = ()) -> list[Path]:
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
        exclude: sub-folders that are left out.
        done: images that are not to be reported, by their resolved and `printable` path, with the
            state that was scored.
    """

    def __init__(
        self,
        folder: Path,
        exclude: Collection[Path] = (),
        done: Mapping[str, FileState] | None = None,
    ) -> None:
        self.folder, self.exclude = folder, exclude
        self._before: dict[Path, FileState] = {}
        self._reported = {
            path: state
            for path, state in self._states().items()
            if done and done.get(printable(str(path.resolve()))) == state
        }

    def _states(self) -> dict[Path, FileState]:
        """Return the state of each image."""
        states = {}
        for path in find_photos(self.folder, self.exclude):
            try:
                found = path.stat()
            except FileNotFoundError:  # removed since the folder was listed
                continue
            if found.st_size or time.time() - found.st_mtime > EMPTY_FOR:
                states[path] = file_state(found)
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
