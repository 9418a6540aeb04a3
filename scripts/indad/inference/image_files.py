"""Write the heat map, the anomaly map and the mask of each scored image."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from indad.core import atomic
from indad.core.errors import ConfigError
from indad.data.formats import SUFFIXES, UNREADABLE_SUFFIXES
from indad.inference import png
from indad.inference.result import Result

if TYPE_CHECKING:
    from indad.inference.model import Model


class ImageFiles:
    """Folders of pictures, one of each kind for each image.

    The pictures of a file below ``base`` are at the same place below their folder.

    Args:
        base: the folder that all images are below.
        heat_maps: the folder of heat maps: PNG, the anomaly map over the image.
        maps: the folder of anomaly maps: TIFF, float32, of the image's size, NaN outside the crop.
        masks: the folder of masks: PNG, black and white, of the image's size.

    Raises:
        ConfigError: a folder cannot be written to.
    """

    def __init__(
        self, base: Path, heat_maps: Path | None, maps: Path | None, masks: Path | None
    ) -> None:
        self.base = Path(os.path.abspath(base))  # noqa: PTH100 (links keep their place)
        self.heat_maps, self.maps, self.masks = heat_maps, maps, masks
        if heat_maps and masks and heat_maps.resolve() == masks.resolve():
            raise ConfigError(f"--output and --masks: both are {masks}; name two folders")
        for option, folder in (("--output", heat_maps), ("--maps", maps), ("--masks", masks)):
            if folder is not None:
                _check_folder(option, folder)

    def write(self, model: Model, result: Result) -> None:
        """Write the pictures of an image.

        Raises:
            DataError: the image cannot be read again, or has changed.
            OSError: a picture cannot be written.
        """
        assert result.image is not None
        if self.heat_maps is not None:
            drawn = model.overlay(result.image, result)
            with atomic.replacing(self._path(self.heat_maps, result.image, ".png")) as temporary:
                png.write(temporary, drawn)
        if self.maps is not None:
            values = Image.fromarray(result.map_full)
            with atomic.replacing(self._path(self.maps, result.image, ".tiff")) as temporary:
                values.save(temporary)
        if self.masks is not None:
            mask = result.mask
            assert mask is not None
            with atomic.replacing(self._path(self.masks, result.image, ".png")) as temporary:
                Image.fromarray(mask).save(temporary)

    def _path(self, folder: Path, image: str, suffix: str) -> Path:
        inside = Path(os.path.relpath(os.path.abspath(image), self.base))  # noqa: PTH100
        return folder / inside.with_name(picture_name(inside.name, suffix))


def picture_name(name: str, suffix: str) -> str:
    """Return the name of the picture of the image ``name``; no two images have the same.

    The suffix is appended, unless the image has it already: ``a.png`` to ``a.png``, ``a.jpg`` to
    ``a.jpg.png``. So that ``a.jpg.png`` is another one, it becomes ``a.jpg.png.png``. An image
    without a known suffix, ``a``, becomes ``a.image.png``.
    """
    known, plain = (*SUFFIXES, *UNREADABLE_SUFFIXES), ".image"
    path = Path(name)
    if path.suffix.lower() == suffix and not path.stem.lower().endswith((*known, plain)):
        return name
    return f"{name}{suffix}" if path.suffix.lower() in known else f"{name}{plain}{suffix}"


def check_apart(folder: Path, option: str, inputs: Iterable[Path]) -> None:
    """Refuse to write pictures into the images' folder, where they could replace the images.

    Raises:
        ConfigError: an input is in the folder.
    """
    target = folder.resolve()
    for path in inputs:
        if path.resolve() == target or target in path.resolve().parents:
            raise ConfigError(
                f"{option} {folder}: {path} is in this folder; name a folder of its own"
            )


def _check_folder(option: str, folder: Path) -> None:
    """Create a folder, and check that files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {folder}: cannot be written to ({error.strerror}); name a folder that you "
            "may write to"
        ) from None
