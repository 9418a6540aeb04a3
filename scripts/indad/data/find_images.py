"""The images of a category folder with their split, defect and mask: by folder names or by a list.

Nothing is opened here but the list. Masks are paired with images by name.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indad.data import split_list
from indad.data.files import File, Parts, walk
from indad.data.folder_layout import ELSEWHERE, GOOD, MASK, MISPLACED, TEST, TRAIN, Reading, nfc
from indad.data.images import SUFFIXES


class FoundImage(NamedTuple):
    """An image and its mask, as paths relative to the category folder."""

    path: Parts
    split: str
    defect: str
    mask: Parts | None = None


@dataclass
class Findings:
    """What a category folder contains.

    Attributes:
        images: training images first, sorted by path.
        good_masks: masks of good images; they must be empty.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
    """

    images: list[FoundImage] = field(default_factory=list)
    good_masks: list[Parts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_images(folder: Path, reading: Reading) -> Findings:
    """Find the images and masks of a category folder.

    Raises:
        DataError: its list cannot be read.
    """
    found = Findings()
    files = _readable_files(folder, reading, found)
    if reading.list is None:
        _by_folders(folder, reading, files, found)
    else:
        _by_list(folder, reading, files, found)
    _hold_out(folder, reading, found)
    found.images.sort(key=lambda each: (each.split != TRAIN, each.path))
    return found


def image_id(folder: Parts, path: Parts) -> Parts:
    """Return what identifies an image: the folder's parts and the file name without extension."""
    return (*map(nfc, folder), nfc(PurePosixPath(path[-1]).stem))


def count_images(count: int) -> str:
    """Return ``1 image`` or ``5 images``."""
    return "1 image" if count == 1 else f"{count} images"


def _readable_files(folder: Path, reading: Reading, found: Findings) -> list[Parts]:
    """List the files that can be read, and all files outside the layout."""
    readable = []
    for file in walk(folder):
        at, name = folder.joinpath(*file.parts), file.parts[-1].lower()
        if reading.list is None and _is_outside(file, reading):
            readable.append(file.parts)
        elif any("\ud800" <= letter <= "\udfff" for part in file.parts for letter in part):
            found.problems.append(f"{at}: its name is not valid UTF-8; rename it")
        elif file.problem:
            found.problems.append(f"{at}: {file.problem}")
        elif name.endswith(SUFFIXES):
            readable.append(file.parts)
        else:
            found.problems.append(
                f"{at}: {PurePosixPath(name).suffix} files cannot be read; convert it to PNG or "
                "remove it"
            )
    return readable


def _is_outside(file: File, reading: Reading) -> bool:
    # What cannot be listed may itself be a folder of the layout.
    folders = {file.parts[:-1], file.parts} if file.problem else {file.parts[:-1]}
    return all(reading.place(each)[0] == ELSEWHERE for each in folders)


# -- by folder names ------------------------------------------------------------------------------


class _Placed(NamedTuple):
    """A test image or a mask: its path, and its folder relative to that of all test images."""

    path: Parts
    folder: Parts


def _by_folders(folder: Path, reading: Reading, files: Sequence[Parts], found: Findings) -> None:
    test: dict[str, list[_Placed]] = defaultdict(list)
    masks: dict[str, list[_Placed]] = defaultdict(list)
    nested: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for path in files:
        kind, rest = reading.place(path[:-1])
        if kind == TRAIN:
            found.images.append(FoundImage(path, TRAIN, GOOD))
            if len(rest) > 1:
                nested["/".join(rest[:2])] += 1
        elif kind == TEST:
            test[nfc(rest[0])].append(_Placed(path, rest))
        elif kind == MASK:
            masks[nfc(rest[0]) if rest else ""].append(_Placed(path, rest))
        elif kind == MISPLACED:
            found.problems.append(
                f"{folder.joinpath(*path)}: no images are read from this folder; move it: expected "
                f"{reading.picture}"
            )
        else:
            elsewhere[path[0] if len(path) > 1 else "the category folder itself"] += 1

    for defect, images in test.items():
        _pair_masks(folder, reading, defect, images, masks.pop(defect, []), found)
    for unpaired in masks.values():
        _report_unpaired(folder, reading, unpaired, found)
    for place, count in nested.items():
        found.warnings.append(
            f"{count_images(count)} in {place}, a sub-folder of the good training images: used as "
            "good images"
        )
    for place, count in elsewhere.items():
        found.warnings.append(f"{count_images(count)} in {place}: not part of the layout, not read")


def _pair_masks(
    folder: Path,
    reading: Reading,
    defect: str,
    images: Sequence[_Placed],
    masks: Sequence[_Placed],
    found: Findings,
) -> None:
    """Give each test image of a defect its mask, by name.

    Suffixes are tried in their order, so that an image may have the name of another image's mask.
    """
    is_good = reading.is_good(defect)
    ids = {image_id(each.folder, each.path) for each in images}
    masks_of: dict[Parts, list[Parts]] = defaultdict(list)
    unpaired = []
    for mask in masks:
        *above, stem = image_id(mask.folder, mask.path)
        for suffix in map(nfc, reading.mask_suffix):
            image = (*above, stem[: len(stem) - len(suffix)])
            if stem.endswith(suffix) and image in ids:
                masks_of[image].append(mask.path)
                break
        else:
            unpaired.append(mask)
    _report_unpaired(folder, reading, unpaired, found)
    for image in images:
        own = masks_of.get(image_id(image.folder, image.path), [])
        if len(own) > 1:
            listed = ", ".join(each[-1] for each in own)
            found.problems.append(
                f"{folder.joinpath(*image.path)}: more than one mask ({listed}); keep one"
            )
        if is_good:
            found.good_masks += own
            found.images.append(FoundImage(image.path, TEST, GOOD))
        else:
            found.images.append(FoundImage(image.path, TEST, defect, own[0] if own else None))
    if not is_good and defect == GOOD:
        found.problems.append(
            f"{folder.joinpath(*images[0].path).parent}: its name is {GOOD!r}, which the option "
            "'good' does not list; list it, or rename the folder"
        )


def _report_unpaired(
    folder: Path, reading: Reading, masks: Iterable[_Placed], found: Findings
) -> None:
    found.problems.extend(
        f"{folder.joinpath(*mask.path)}: a mask without an image of that name in "
        + "/".join((reading.test, *(mask.folder or ["<defect>"])))
        for mask in masks
    )


# -- by a list ------------------------------------------------------------------------------------


class _Paths:
    """Resolves the paths in a list to files of the category folder, and remembers which are used.

    Args:
        folder: the category folder.
        files: its files.
        shared: whether the list is in the parent folder, so that paths begin with the category.
    """

    def __init__(self, folder: Path, files: Sequence[Parts], shared: bool) -> None:
        self.category = nfc(folder.name)
        self.shared = shared
        self._files = {tuple(map(nfc, parts)): parts for parts in files}
        self._used: set[Parts] = set()

    def covers(self, image: str) -> bool:
        """Tell whether a path of the list is about this category."""
        return not self.shared or nfc(image.split("/")[0]) == self.category

    def find(self, text: str) -> Parts | None:
        """Return the file of a path in the list; None if there is none."""
        names = tuple(map(nfc, PurePosixPath(text).parts))
        if self.shared:
            names = names[1:] if names[:1] == (self.category,) else ()
        parts = self._files.get(names)
        if parts is not None:
            self._used.add(parts)
        return parts

    def unused(self) -> list[Parts]:
        """Return the files that the list did not name."""
        return [parts for parts in self._files.values() if parts not in self._used]


def _by_list(folder: Path, reading: Reading, files: Sequence[Parts], found: Findings) -> None:
    path = reading.list_file(folder)
    assert path is not None
    paths = _Paths(folder, files, shared=not path.is_relative_to(folder))
    first_line: dict[Parts, int] = {}
    for line in split_list.read(path):
        if not paths.covers(line.image):
            continue
        here = f"{path}, line {line.number}"
        image, mask = paths.find(line.image), None
        if image is None:
            found.problems.append(_no_file(here, "image", line.image, folder))
        if line.mask and (mask := paths.find(line.mask)) is None:
            found.problems.append(_no_file(here, "mask", line.mask, folder))
        if problem := _wrong_line(line, reading):
            found.problems.append(f"{here}: {problem}")
        elif image is None:
            continue
        elif image in first_line:
            found.problems.append(
                f"{here}: {line.image!r} is also in line {first_line[image]}; remove one of them"
            )
        else:
            first_line[image] = line.number
            if reading.is_good(line.defect):
                found.good_masks += [] if mask is None else [mask]
                found.images.append(FoundImage(image, line.split, GOOD))
            else:
                found.images.append(FoundImage(image, line.split, nfc(line.defect), mask))
    _report_unlisted(folder, reading, path, paths.unused(), found)


def _wrong_line(line: split_list.Line, reading: Reading) -> str:
    """Explain what is wrong with the split and the defect of a line; "" if nothing is."""
    if line.split not in (TRAIN, TEST):
        return f"split must be train or test, got {line.split!r}"
    if not line.defect:
        return f"defect is empty; write {reading.good[0]!r} for a good image"
    if line.split == TRAIN and not reading.is_good(line.defect):
        return (
            f"{line.defect!r} in the training split, which may have good images only "
            f"({' or '.join(reading.good)}); use split test"
        )
    return ""


def _no_file(here: str, what: str, text: str, folder: Path) -> str:
    hint = "; write paths with '/'" if "\\" in text else ""
    return f"{here}: {what} {text!r} is not an image file in {folder}{hint}"


def _report_unlisted(
    folder: Path, reading: Reading, path: Path, unlisted: Sequence[Parts], found: Findings
) -> None:
    if not unlisted:
        return
    counted = f"{count_images(len(unlisted))} not in the list {path}"
    if reading.unlisted == "allow":
        found.warnings.append(f"{counted}: not read")
        return
    names = ", ".join("/".join(parts) for parts in unlisted[:5])
    more = f" and {len(unlisted) - 5} more" if len(unlisted) > 5 else ""
    found.problems.append(
        f"{folder}: {counted}: {names}{more}; list them, or set 'unlisted: allow'"
    )


# -- hold-out -------------------------------------------------------------------------------------


def _hold_out(folder: Path, reading: Reading, found: Findings) -> None:
    """Move a share of the good training images to the test split if that has no good images."""
    if reading.holdout is None:
        return
    if any(each.split == TEST and each.defect == GOOD for each in found.images):
        found.warnings.append("holdout: not used, there are good test images")
        return
    train = [each for each in found.images if each.split == TRAIN]
    if len(train) < 2:
        if train:
            found.problems.append(
                f"{folder}: holdout: there is one training image only, none can be held out"
            )
        return

    def rank(image: FoundImage) -> bytes:
        # By name, not by position in the list, so that adding an image moves no other image.
        text = f"{reading.holdout_seed} {nfc('/'.join(image.path))}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    count = min(max(1, round(reading.holdout * len(train))), len(train) - 1)
    chosen = set(sorted(train, key=rank)[:count])
    found.images = [each._replace(split=TEST) if each in chosen else each for each in found.images]
    found.warnings.append(
        f"holdout: {count} of {len(train)} good training images are held out for the test"
    )
