"""How a category folder is read: the meaning of its sub-folders and file names.

The defaults are MVTec AD's layout. Names are compared in Unicode normalisation form C, because file
systems and archives encode the same name in different ways.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from indad.core.errors import ConfigError

#: The parts of a path relative to the category folder.
Parts = tuple[str, ...]

#: The name of images without a defect in every product, whatever their folder's name.
GOOD = "good"

#: Kinds of folders. MISPLACED is inside one of the layout's folders, but not where images belong;
#: ELSEWHERE is outside the layout's folders.
TRAIN, TEST, MASK = "train", "test", "mask"
MISPLACED, ELSEWHERE = "misplaced", "elsewhere"

#: Usual names for "no defect", in lower case, without spaces, dashes and underscores.
GOOD_WORDS = frozenset(
    {
        "good", "ok", "okay", "normal", "pass", "passed", "io", "i.o.", "gut", "healthy", "perfect",
        "defectfree", "nodefect", "nodefects", "nondefective", "undamaged", "flawless",
    }
)  # fmt: skip
#: Usual names of the layout's folders, in lower case.
TRAIN_WORDS = ("train", "training")
TEST_WORDS = ("test", "testing", "test_public")
MASK_WORDS = ("ground_truth", "groundtruth", "gt", "mask", "masks", "label", "labels")

#: Options that have no meaning with a list.
_FOLDER_OPTIONS = {"train", "test", "masks", "mask_prefix", "mask_suffix"}


def nfc(name: str) -> str:
    """Return a name in Unicode normalisation form C."""
    return unicodedata.normalize("NFC", name)


def is_annotation(name: str) -> bool:
    """Tell whether a file may have masks drawn as shapes, by its ending."""
    return PurePosixPath(name).suffix.lower() == ".json"


def sounds_good(name: str) -> bool:
    """Tell whether a folder name is one of the usual names for "no defect"."""
    return nfc(name).lower().translate({ord(c): None for c in " -_"}) in GOOD_WORDS


def is_layout_word(name: str) -> bool:
    """Tell whether a folder name usually denotes a split, for masks or for good images."""
    return name.lower() in (*TRAIN_WORDS, *TEST_WORDS, *MASK_WORDS) or sounds_good(name)


@dataclass(frozen=True)
class Reading:
    """How a category folder is read: options of a data set in the configuration.

    Attributes:
        train: folder of the training images, relative to the category folder, which is ``.``.
        test: folder of the test images, with a sub-folder for each kind of defect.
        good: folder names (with a list: defects) that mean "no defect".
        masks: folder of the ground truth masks; the folder ``test`` itself if they are beside the
            test images; or a COCO file (``.json``).
        mask_prefix: text or pattern before the image's name in a mask's name.
        mask_suffix: texts or patterns after it, in order of preference. In a pattern, ``*`` matches
            any characters.
        mask_labels: labels of the shapes in annotation files that count as defects; () for all.
        missing_masks: ``allow`` defective images without a mask although other images of the same
            defect have one, or ``error``.
        list: CSV file with the columns ``image, split, defect`` and optionally ``mask``, in the
            category folder or its parent. It replaces the meaning of folder names.
        unlisted: ``allow`` images that are not in the list, or ``error``.
        holdout: share of the good training images to use as test images if there are no good test
            images.
        holdout_seed: seed for choosing them.
        allow_one_class: whether all test images may be good, or all defective.

    Raises:
        ConfigError: two options contradict each other, or a folder is outside the category.
    """

    train: str = "train"
    test: str = "test"
    good: tuple[str, ...] = (GOOD,)
    masks: str = "ground_truth"
    mask_prefix: tuple[str, ...] = ("",)
    mask_suffix: tuple[str, ...] = ("_mask", "")
    mask_labels: tuple[str, ...] = ()
    missing_masks: str = "error"
    list: str | None = None
    unlisted: str = "error"
    holdout: float | None = None
    holdout_seed: int = 0
    allow_one_class: bool = False

    def __post_init__(self) -> None:
        for key in ("train", "test", "masks", "list"):
            value = getattr(self, key)
            if value is None:
                continue
            outside = os.path.isabs(value) or ".." in Path(value).parts or "\0" in value  # noqa: PTH117
            if outside or (key in ("masks", "list") and not Path(value).parts):
                raise ConfigError(
                    f"{key}: must be a name inside the category folder, got {value!r}"
                )
        if self.masks_beside and not self.mask_names:
            raise ConfigError(
                f"masks: {self.masks!r} is the folder of the images, so masks need a 'mask_suffix' "
                "or a 'mask_prefix'"
            )
        if Path(self.masks) == Path(self.train) and not self.masks_beside:
            raise ConfigError(
                f"masks: {self.masks!r} is the folder of the training images; give another folder"
            )
        for name in self.good:
            if not name or "/" in name or name in (".", ".."):
                raise ConfigError(f"good: must be the name of a folder, got {name!r}")

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], key: str = "dataset") -> Reading:
        """Read the options from a data set's settings; other keys are ignored.

        Raises:
            ConfigError: as the class. ``key`` is the configuration key that the message names.
        """
        chosen = {each.name: settings[each.name] for each in fields(cls) if each.name in settings}
        for name in ("good", "mask_prefix", "mask_suffix", "mask_labels"):
            if name in chosen:
                value = chosen[name]
                chosen[name] = (value,) if isinstance(value, str) else tuple(value)
        if chosen.get("list") is None:
            chosen.pop("list", None)
            if "unlisted" in chosen:
                raise ConfigError(f"{key}.unlisted: only with a 'list'")
        elif useless := _FOLDER_OPTIONS & set(chosen):
            raise ConfigError(
                f"{key}.list: the list replaces {', '.join(sorted(useless))}; remove one of them"
            )
        try:
            return cls(**chosen)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None

    @property
    def settings(self) -> dict[str, Any]:
        """The options that differ from the defaults, as ``from_config`` reads them."""
        given = {k: v for k, v in asdict(self).items() if v != getattr(Reading, k)}
        return {
            k: v if not isinstance(v, tuple) else v[0] if len(v) == 1 else [*v]
            for k, v in given.items()
        }

    @property
    def masks_beside(self) -> bool:
        """Whether masks are in the same folders as the test images."""
        return Path(self.masks) == Path(self.test)

    @property
    def masks_file(self) -> Parts | None:
        """The path of the COCO file that has the masks; None if they are in a folder."""
        return Path(self.masks).parts if is_annotation(self.masks) else None

    @property
    def mask_names(self) -> list[tuple[str, str]]:
        """The prefixes and suffixes of mask names, in order of preference."""
        names = [(nfc(pre), nfc(suf)) for suf in self.mask_suffix for pre in self.mask_prefix]
        return [each for each in names if any(each) or not self.masks_beside]

    def is_good(self, name: str) -> bool:
        """Tell whether the name of a folder or of a defect means "no defect"."""
        return nfc(name) in map(nfc, self.good)

    def is_misspelt_good(self, name: str) -> bool:
        """Tell whether a name differs from a name for "no defect" in capitals or spaces only."""
        known = {nfc(each).casefold() for each in (*self.good, GOOD)}
        return not self.is_good(name) and nfc(name).strip().casefold() in known

    def place(self, folder: Parts) -> tuple[str, Parts]:
        """Return what the images of a folder are.

        Args:
            folder: its path relative to the category folder.

        Returns:
            ``TRAIN``, ``TEST``, ``MASK``, ``MISPLACED`` or ``ELSEWHERE``, and the path relative to
            the folder of that split or of the masks. For test images and masks its first part is
            the defect.
        """
        return _place(self, folder)

    def list_file(self, folder: Path) -> Path | None:
        """Return the list of a category folder: its own, else its parent's. None without one."""
        if self.list is None:
            return None
        own = folder / self.list
        return own if own.is_file() else folder.parent / self.list

    @property
    def picture(self) -> str:
        """The layout in a few words, for messages."""
        if self.list is not None:
            return f"images anywhere and the list {self.list}, in it or in its parent folder"
        train, test = ("" if each == "." else f"{each}/" for each in (self.train, self.test))
        good = " or ".join(self.good)
        return f"images in {train}{good} and {test}{good}, {test}<defect>"


@lru_cache(maxsize=4096)
def _place(reading: Reading, folder: Parts) -> tuple[str, Parts]:
    names = tuple(map(nfc, folder))
    lengths = {}
    places = [(MASK, reading.masks), (TRAIN, reading.train), (TEST, reading.test)]
    for kind, place in places[reading.masks_beside :]:
        parts = tuple(map(nfc, Path(place).parts))
        if names[: len(parts)] == parts:
            lengths[kind] = len(parts)
    if not lengths:
        return ELSEWHERE, folder
    # The deepest folder decides. Training and test images may be in the same folder: then good
    # images are for training, because TRAIN is tried first.
    deepest = max(lengths.values())
    rest = folder[deepest:]
    for kind in (kind for kind, length in lengths.items() if length == deepest):
        if kind == MASK or (rest and (kind == TEST or reading.is_good(rest[0]))):
            return kind, rest
    return MISPLACED, rest
