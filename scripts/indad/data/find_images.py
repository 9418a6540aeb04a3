"""The images of a category folder with their split, defect and mask: by folder names or by a list.

Nothing is opened here but the list. Masks are paired with images by name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indad.data.categories import Line, read_list
from indad.data.folder_layout import (
    ELSEWHERE,
    GOOD,
    MASK,
    MISPLACED,
    TEST,
    TRAIN,
    Parts,
    Reading,
    nfc,
)
from indad.data.images import SUFFIXES, UNREADABLE_SUFFIXES


class FoundImage(NamedTuple):
    """An image and its mask, as paths relative to the category folder."""

    path: Parts
    split: str
    defect: str
    mask: Parts | None = None


@dataclass
class Findings:
    """The images of a category folder, and what is wrong with it.

    Attributes:
        folder: the category folder.
        reading: how it is read.
        images: training images first, sorted by path.
        good_masks: masks of good images; they must be empty.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
    """

    folder: Path
    reading: Reading
    images: list[FoundImage] = field(default_factory=list)
    good_masks: list[Parts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_problem(self, path: Parts, text: str) -> None:
        """Add a problem of the file or folder ``path``; ``()`` is the category folder."""
        self.problems.append(f"{self.folder.joinpath(*path)}: {text}")

    def add_image(self, path: Parts, split: str, defect: str, masks: Sequence[Parts] = ()) -> None:
        """Add an image and its mask, if it has one."""
        if self.reading.is_good(defect):
            self.good_masks += masks
            self.images.append(FoundImage(path, split, GOOD))
        else:
            self.images.append(FoundImage(path, split, nfc(defect), *masks[:1]))


def find_images(folder: Path, reading: Reading) -> Findings:
    """Find the images and masks of a category folder.

    Raises:
        DataError: its list cannot be read.
    """
    found = Findings(folder, reading)
    files = _readable_files(found)
    if reading.list is None:
        _by_folders(files, found)
    else:
        _by_list(files, found)
    _hold_out(found)
    found.images.sort(key=lambda each: (each.split != TRAIN, each.path))
    return found


def image_id(folder: Parts, path: Parts) -> Parts:
    """Return what identifies an image: the folder's parts and the file name without extension."""
    return (*map(nfc, folder), nfc(PurePosixPath(path[-1]).stem))


def count_images(count: int) -> str:
    """Return ``1 image`` or ``5 images``."""
    return "1 image" if count == 1 else f"{count} images"


def first_names(names: Iterable[str]) -> str:
    """Return the first five names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more


# -- image files ----------------------------------------------------------------------------------


class File(NamedTuple):
    """An image file, or a folder that cannot be listed.

    Attributes:
        parts: its path.
        status: status of the file, links followed; None if it cannot be used.
        problem: what is wrong with it; "" if nothing is.
    """

    parts: Parts
    status: os.stat_result | None = None
    problem: str = ""


def walk(folder: Path) -> list[File]:
    """List all files below ``folder`` that have an image's extension, sorted by path.

    Hidden files and folders are left out. Links are followed, except in circles. What cannot be
    read is listed with its problem.
    """
    return sorted(_walk(str(folder), (), ()), key=lambda file: file.parts)


def _walk(folder: str, parts: Parts, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
    # os.scandir and not pathlib: this runs over all files each time the workflow is planned.
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
        elif entry.name.lower().endswith((*SUFFIXES, *UNREADABLE_SUFFIXES)):
            try:
                status = entry.stat()
            except OSError as error:
                problem = f"a broken link ({error.strerror}); repair or remove it"
                yield File(here, problem=problem)
                continue
            if stat.S_ISREG(status.st_mode):
                yield File(here, status)
            else:
                yield File(here, problem="not a regular file; remove it")


def _readable_files(found: Findings) -> list[Parts]:
    """List the files that can be read, and all files outside the layout."""
    readable = []
    for file in walk(found.folder):
        suffix = PurePosixPath(file.parts[-1]).suffix.lower()
        if found.reading.list is None and _is_outside(file, found.reading):
            readable.append(file.parts)
        elif any("\ud800" <= letter <= "\udfff" for part in file.parts for letter in part):
            found.add_problem(file.parts, "its name is not valid UTF-8; rename it")
        elif file.problem:
            found.add_problem(file.parts, file.problem)
        elif suffix in SUFFIXES:
            readable.append(file.parts)
        else:
            found.add_problem(
                file.parts, f"{suffix} files cannot be read; convert it to PNG or remove it"
            )
    return readable


def _is_outside(file: File, reading: Reading) -> bool:
    # What cannot be listed may itself be a folder of the layout.
    folders = {file.parts[:-1], file.parts} if file.problem else {file.parts[:-1]}
    return all(reading.place(each)[0] == ELSEWHERE for each in folders)


# -- by folder names ------------------------------------------------------------------------------


def _by_folders(files: Sequence[Parts], found: Findings) -> None:
    images: dict[Parts, Parts] = {}  # test images and masks: from path to id
    masks: dict[Parts, Parts] = {}
    nested: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for path in files:
        kind, rest = found.reading.place(path[:-1])
        if kind == TRAIN:
            found.images.append(FoundImage(path, TRAIN, GOOD))
            if len(rest) > 1:
                nested["/".join(rest[:2])] += 1
        elif kind == TEST:
            images[path] = image_id(rest, path)
        elif kind == MASK:
            masks[path] = image_id(rest, path)
        elif kind == MISPLACED:
            expected = found.reading.picture
            found.add_problem(
                path, f"no images are read from this folder; move it: expected {expected}"
            )
        else:
            elsewhere[path[0] if len(path) > 1 else "the category folder itself"] += 1
    _add_test_images(images, masks, found)
    found.warnings += [
        f"{count_images(count)} in {place}, a sub-folder of the good training images: used as good "
        "images"
        for place, count in nested.items()
    ]
    found.warnings += [
        f"{count_images(count)} in {place}: not part of the layout, not read"
        for place, count in elsewhere.items()
    ]


def _add_test_images(
    images: Mapping[Parts, Parts], masks: Mapping[Parts, Parts], found: Findings
) -> None:
    """Give each test image its mask, by name. The first part of an id is the defect."""
    reading = found.reading
    ids = set(images.values())
    masks_of: dict[Parts, list[Parts]] = defaultdict(list)
    for mask, (*folder, stem) in masks.items():
        # Suffixes in their order: an image may have the name of another image's mask.
        for suffix in map(nfc, reading.mask_suffix):
            image = (*folder, stem.removesuffix(suffix))
            if stem.endswith(suffix) and image in ids:
                masks_of[image].append(mask)
                break
        else:
            expected = "/".join((reading.test, *(folder or ["<defect>"])))
            found.add_problem(mask, f"a mask without an image of that name in {expected}")
    for path, image in images.items():
        own = masks_of[image]
        if len(own) > 1:
            listed = ", ".join(mask[-1] for mask in own)
            found.add_problem(path, f"more than one mask ({listed}); keep one")
        found.add_image(path, TEST, image[0], own)
    if not reading.is_good(GOOD):
        wrong = next((path for path, image in images.items() if image[0] == GOOD), None)
        if wrong is not None:
            found.add_problem(
                wrong[:-1],
                f"its name is {GOOD!r}, which the option 'good' does not list; list it, or rename "
                "the folder",
            )


# -- by a list ------------------------------------------------------------------------------------


def _by_list(files: Sequence[Parts], found: Findings) -> None:
    folder, reading = found.folder, found.reading
    path = reading.list_file(folder)
    assert path is not None
    # The paths of a list in the parent folder begin with the category, and it may have others.
    above = () if path.is_relative_to(folder) else (nfc(folder.name),)
    known = {(*above, *map(nfc, parts)): parts for parts in files}
    used: set[Parts] = set()
    first_line: dict[Parts, int] = {}
    for line in read_list(path):
        if above and nfc(line.category) != above[0]:
            continue
        here = f"{path}, line {line.number}"
        image, mask = (
            known.get(tuple(map(nfc, PurePosixPath(text).parts)))
            for text in (line.image, line.mask)
        )
        for what, text, file in (("image", line.image, image), ("mask", line.mask, mask)):
            if file is not None:
                used.add(file)
            elif text or what == "image":
                hint = "; write paths with '/'" if "\\" in text else ""
                found.problems.append(
                    f"{here}: {what} {text!r} is not an image file in {folder}{hint}"
                )
        if problem := _wrong_line(line, reading):
            found.problems.append(f"{here}: {problem}")
        elif image in first_line:
            found.problems.append(
                f"{here}: {line.image!r} is also in line {first_line[image]}; remove one of them"
            )
        elif image is not None:
            first_line[image] = line.number
            found.add_image(image, line.split, line.defect, [] if mask is None else [mask])
    unlisted = ["/".join(parts) for parts in files if parts not in used]
    counted = f"{count_images(len(unlisted))} not in the list {path}"
    if unlisted and reading.unlisted == "allow":
        found.warnings.append(f"{counted}: not read")
    elif unlisted:
        found.add_problem(
            (), f"{counted}: {first_names(unlisted)}; list them, or set 'unlisted: allow'"
        )


def _wrong_line(line: Line, reading: Reading) -> str:
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


# -- hold-out -------------------------------------------------------------------------------------


def _hold_out(found: Findings) -> None:
    """Move a share of the good training images to the test split if that has no good images."""
    share = found.reading.holdout
    if share is None:
        return
    if any(each.split == TEST and each.defect == GOOD for each in found.images):
        found.warnings.append("holdout: not used, there are good test images")
        return
    train = [each for each in found.images if each.split == TRAIN]
    if len(train) < 2:
        if train:
            found.add_problem((), "holdout: there is only one training image, none can be held out")
        return

    def rank(image: FoundImage) -> bytes:
        # By name, not by position in the list, so that adding an image moves no other image.
        text = f"{found.reading.holdout_seed} {nfc('/'.join(image.path))}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    count = min(max(1, round(share * len(train))), len(train) - 1)
    chosen = set(sorted(train, key=rank)[:count])
    found.images = [each._replace(split=TEST) if each in chosen else each for each in found.images]
    found.warnings.append(
        f"holdout: {count} of {len(train)} good training images are held out for the test"
    )
