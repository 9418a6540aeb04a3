"""How a category folder is to be read: which of its folders and files mean what.

The defaults are MVTec AD's layout. Names are compared in Unicode's composed form (NFC), since file
systems and archives write the same name in different ways.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from indad.core.errors import ConfigError
from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES

#: What the images without a defect are called in every product, whatever their folder's name.
GOOD = "good"

TRAIN, TEST, MASK = "train", "test", "mask"
#: Inside one of the layout's folders, but not where it has images.
MISPLACED = "misplaced"
#: Outside the layout's folders.
ELSEWHERE = "elsewhere"

#: Words for: no defect. Compared in lower case, without spaces, dashes and underscores.
GOOD_WORDS = frozenset(
    {
        "good", "ok", "okay", "normal", "pass", "passed", "io", "i.o.", "gut", "healthy", "perfect",
        "defectfree", "nodefect", "nodefects", "nondefective", "undamaged", "flawless",
    }
)  # fmt: skip
#: What else the layout's folders are called, in lower case.
TRAIN_WORDS = ("train", "training")
TEST_WORDS = ("test", "testing", "test_public")
MASK_WORDS = ("ground_truth", "groundtruth", "gt", "mask", "masks", "label", "labels")

Parts = tuple[str, ...]


def composed(name: str) -> str:
    """Return a name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def sounds_good(name: str) -> bool:
    """Tell whether a folder's name is one of the usual words for: no defect."""
    return composed(name).lower().translate({ord(c): None for c in " -_"}) in GOOD_WORDS


def is_layout_word(name: str) -> bool:
    """Tell whether a folder's name tells of a split, of masks or of good images."""
    return name.lower() in (*TRAIN_WORDS, *TEST_WORDS, *MASK_WORDS) or sounds_good(name)


@dataclass(frozen=True)
class Reading:
    """How a category folder is read; the options of a data set of the configuration.

    Attributes:
        train: folder of the training images, relative to the category folder; ``.`` is itself.
        test: folder of the test images, in a sub-folder for each kind.
        good: names of the folders, or in a list of the defects, that mean: no defect.
        masks: folder of the ground truth masks.
        mask_suffix: what a mask's name may have behind its image's name, the first first.
        missing_masks: ``error``, or ``allow`` defective images without a mask beside others of
            the same defect that have one.
        list: CSV file with columns ``image, split, defect`` and perhaps ``mask``, in the category
            folder or in its parent, that says what each image is; folder names mean nothing then.
        unlisted: ``error``, or ``allow`` images that the list does not name.
        holdout: share of the good training images to test with where there are no good test
            images.
        holdout_seed: of the choice.
        allow_one_class: whether all test images may be good, or all defective.

    Raises:
        ConfigError: two options contradict each other, or a folder is not inside the category.
    """

    train: str = "train"
    test: str = "test"
    good: tuple[str, ...] = (GOOD,)
    masks: str = "ground_truth"
    mask_suffix: tuple[str, ...] = ("_mask", "")
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
            bad = os.path.isabs(value) or ".." in Path(value).parts or "\0" in value  # noqa: PTH117
            if bad or (key in ("masks", "list") and not Path(value).parts):
                raise ConfigError(
                    f"{key}: must be a name inside the category folder, got {value!r}"
                )
        places = {key: Path(getattr(self, key)).parts for key in ("train", "test", "masks")}
        if places["masks"] in (places["train"], places["test"]):
            raise ConfigError(f"masks: {self.masks!r} is where the images are; give another folder")
        for name in self.good:
            if not name or "/" in name or name in (".", ".."):
                raise ConfigError(f"good: must be the name of a folder, got {name!r}")

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], key: str = "dataset") -> Reading:
        """Take the options that ``settings`` has; the other keys are not looked at.

        Raises:
            ConfigError: as the class; ``key`` is the configuration key to blame.
        """
        chosen = {each.name: settings[each.name] for each in fields(cls) if each.name in settings}
        for name in ("good", "mask_suffix"):
            if name in chosen:
                value = chosen[name]
                chosen[name] = (value,) if isinstance(value, str) else tuple(value)
        if chosen.get("list") is None:
            chosen.pop("list", None)
        if "unlisted" in chosen and "list" not in chosen:
            raise ConfigError(f"{key}.unlisted: only with a 'list'")
        if "list" in chosen and (odd := _FOLDERS & set(chosen)):
            raise ConfigError(
                f"{key}.list: it says what each image is, so {', '.join(sorted(odd))} mean nothing"
            )
        try:
            return cls(**chosen)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, as ``from_config`` takes it."""
        given = {k: v for k, v in asdict(self).items() if v != getattr(_DEFAULT, k)}
        return {
            k: v if not isinstance(v, tuple) else v[0] if len(v) == 1 else [*v]
            for k, v in given.items()
        }

    def is_good(self, name: str) -> bool:
        """Tell whether a folder's or a defect's name means: no defect."""
        return composed(name) in map(composed, self.good)

    def place(self, folder: Parts) -> tuple[str, Parts]:
        """Say what the images of a folder are.

        Args:
            folder: parts of its path below the category folder.

        Returns:
            ``TRAIN``, ``TEST``, ``MASK``, ``MISPLACED`` or ``ELSEWHERE``, and the parts behind
            the folder of that split; of a test image or a mask, the first is the kind of defect.
        """
        return _place(self, folder)

    def list_file(self, folder: Path) -> Path | None:
        """Return the list that holds for a category folder: its own, else its parent's."""
        if self.list is None:
            return None
        own = folder / self.list
        return own if own.is_file() else folder.parent / self.list

    @property
    def picture(self) -> str:
        """The layout in a few words, for messages."""
        if self.list is not None:
            return f"images anywhere and the list {self.list}, in it or beside it"
        train, test = ("" if each == "." else f"{each}/" for each in (self.train, self.test))
        good = " or ".join(self.good)
        return f"images in {train}{good} and {test}{good}, {test}<defect>"


@lru_cache(maxsize=4096)
def _place(reading: Reading, folder: Parts) -> tuple[str, Parts]:
    names = tuple(map(composed, folder))
    places = []
    # Of equally long ones the first wins, so that good images beside the defects can train.
    for kind, place in ((MASK, reading.masks), (TRAIN, reading.train), (TEST, reading.test)):
        parts = tuple(map(composed, Path(place).parts))
        if names[: len(parts)] == parts:
            places.append((kind, len(parts)))
    places.sort(key=lambda each: -each[1])
    for i, (kind, length) in enumerate(places):
        rest = folder[length:]
        if kind == MASK or (kind == TRAIN and rest and reading.is_good(rest[0])):
            return kind, rest
        if kind == TEST and rest:
            return kind, rest
        if i + 1 == len(places) or places[i + 1][1] < length:
            return MISPLACED, rest
    return ELSEWHERE, folder


_DEFAULT = Reading()
_FOLDERS = {"train", "test", "masks", "mask_suffix"}


class File(NamedTuple):
    """A file below a category folder.

    Attributes:
        parts: of its path relative to the folder.
        status: of the file a link leads to, or None where nothing can be read.
        problem: what is wrong with it, else "".
    """

    parts: Parts
    status: os.stat_result | None = None
    problem: str = ""


def walk(folder: Path) -> list[File]:
    """List all files below ``folder`` that end as images do, sorted by path.

    What begins with a dot is left out. Links are followed, but not in circles. What cannot be read
    is listed with its problem.
    """
    found = list(_walk(str(folder), (), ()))
    found.sort(key=lambda file: file.parts)
    return found


def _walk(folder: str, parts: Parts, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
    try:
        own = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
    except OSError as error:
        if parts:
            yield File(parts, problem=f"cannot be listed ({error.strerror})")
        return
    identity = (own.st_dev, own.st_ino)
    if identity in above:
        yield File(parts, problem="a link that leads back to a folder above it; remove it")
        return
    for entry in entries:
        here = (*parts, entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, here, (*above, identity))
        elif entry.name.lower().endswith(_ENDINGS):
            try:
                status = entry.stat()
            except OSError as error:
                yield File(here, problem=f"a link to nothing ({error.strerror}); mend or remove it")
                continue
            if stat.S_ISREG(status.st_mode):
                yield File(here, status)
            else:
                yield File(here, problem="not a regular file; remove it")


_ENDINGS = (*SUFFIXES, *UNREADABLE_SUFFIXES)


def folders_named(folder: Path, names: Sequence[str]) -> list[Path]:
    """List the sub-folders of ``folder`` that have one of the names, however composed."""
    wanted = set(map(composed, names))
    if not folder.is_dir():
        return []
    return sorted(
        each for each in folder.iterdir() if composed(each.name) in wanted and each.is_dir()
    )
