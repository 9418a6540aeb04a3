"""Masks, other channels and previews among the photos of a split, recognised by their names.

``001_mask.png`` beside ``001.png``, or ``depth/001.png`` below it, is not another photo.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from indad.data.folder_layout import MASK_WORDS, Parts, nfc

_MASKS = {*MASK_WORDS, "groundtruths", "seg", "segmentation", "annotation", "annotations"}
_PHOTOS = {"rgb", "color", "colour", "image", "images", "img", "photo", "photos", "intensity"}
_CHANNELS = {
    "depth", "xyz", "normal", "normals", "disparity", "height", "ir", "nir", "infrared", "thermal",
    "pseudo3d", "uv", "thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews",
}  # fmt: skip
_WORDS = "|".join(sorted(_MASKS | _CHANNELS, key=len, reverse=True))
_ENDING = re.compile(rf"(?P<photo>.+?)[-_. ]?(?<![a-z])(?P<word>{_WORDS})[-_. ]?\d*", re.IGNORECASE)
_BEGINNING = re.compile(rf"(?P<word>{_WORDS})[-_. ](?P<photo>.+)", re.IGNORECASE)


class Sibling(NamedTuple):
    """Why an image is a mask, another channel or a preview, and no photo.

    Attributes:
        is_mask: whether it is a mask.
        folder: the folder whose name says so; () if the file's name does.
    """

    is_mask: bool
    folder: Parts = ()


def find_siblings(images: Sequence[Parts]) -> dict[Parts, Sibling]:
    """Find masks and other channels of photos among the images of a split.

    Args:
        images: paths relative to the folder of the split.

    Returns:
        The reason for each of them.
    """
    photos = {(*map(nfc, path[:-1]), nfc(PurePosixPath(path[-1]).stem)) for path in images}
    names: dict[Parts, set[str]] = defaultdict(set)
    for *folder, stem in photos:
        names[tuple(folder)].add(stem)
    found = {}
    for path in images:
        folder, stem = tuple(map(nfc, path[:-1])), nfc(PurePosixPath(path[-1]).stem)
        if word := _word_of_name(stem, names[folder]):
            found[path] = Sibling(word.lower() in _MASKS)
        elif depth := _depth_of_word(folder, stem, names):
            found[path] = Sibling(folder[depth - 1].lower() in _MASKS, path[:depth])
    return found


def _word_of_name(stem: str, others: Collection[str]) -> str:
    """Return the word in a name that makes it a sibling of another one in the folder, or ""."""
    for pattern in (_ENDING, _BEGINNING):
        if (match := pattern.fullmatch(stem)) and _has_photo(match["photo"], others):
            return match["word"]
    return ""


def _has_photo(photo: str, others: Collection[str]) -> bool:
    return photo in others or any(f"{photo}_{word}" in others for word in _PHOTOS)


def _depth_of_word(folder: Parts, stem: str, names: dict[Parts, set[str]]) -> int:
    """Return how deep the folder is that makes an image a sibling of one elsewhere, or 0."""
    for i, word in enumerate(folder):
        if word.lower() not in _MASKS | _CHANNELS:
            continue
        match = _ENDING.fullmatch(stem) or _BEGINNING.fullmatch(stem)
        stems = {stem, match["photo"] if match else stem}
        # The photos are in the folder itself, or in one called "rgb" beside it.
        for place in ((), *((each,) for each in _PHOTOS)):
            others = names.get((*folder[:i], *place, *folder[i + 1 :]), set())
            if stems & others and len(folder) > 1:
                return i + 1
        if len(folder) == 1 and word.lower() in _MASKS - {"label", "labels"}:
            return i + 1
    return 0
