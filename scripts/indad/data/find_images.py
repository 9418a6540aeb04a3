"""The images of a category folder with their split, defect and masks: by folder names or by a list.

Nothing is opened here but the list and files with unknown endings. Masks are paired with images by
name.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indad.data.categories import Line, read_list
from indad.data.data_warnings import DataWarning, first_names
from indad.data.files import File, scan
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
from indad.data.siblings import Sibling, find_siblings


class FoundImage(NamedTuple):
    """An image and its masks, as paths relative to the category folder."""

    path: Parts
    split: str
    defect: str
    masks: tuple[Parts, ...] = ()


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
    warnings: list[DataWarning] = field(default_factory=list)

    def add_problem(self, path: Parts, text: str) -> None:
        """Add a problem of the file or folder ``path``; ``()`` is the category folder."""
        self.problems.append(f"{self.folder.joinpath(*path)}: {text}")

    def warn(
        self,
        code: str,
        text: str,
        files: Iterable[str] = (),
        remedy: str = "",
        *,
        note: bool = False,
    ) -> None:
        """Add a warning; the arguments are those of `DataWarning`."""
        warning = DataWarning(code, self.folder.name, text, tuple(files), remedy, note)
        self.warnings.append(warning)

    def add_image(self, path: Parts, split: str, defect: str, masks: Sequence[Parts] = ()) -> None:
        """Add an image and its masks, if it has any."""
        if self.reading.is_good(defect):
            self.good_masks += masks
            self.images.append(FoundImage(path, split, GOOD))
        else:
            self.images.append(FoundImage(path, split, nfc(defect), tuple(masks)))


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


def _readable_files(found: Findings) -> list[Parts]:
    """List the image files that can be read, and all outside the layout; name what is not read."""
    listed = scan(found.folder)
    readable = []
    for file in listed.images:
        if found.reading.list is None and _is_outside(file, found.reading):
            readable.append(file.parts)
        elif any("\ud800" <= letter <= "\udfff" for part in file.parts for letter in part):
            found.add_problem(file.parts, "its name is not valid UTF-8; rename it")
        elif file.problem:
            found.add_problem(file.parts, file.problem)
        else:
            readable.append(file.parts)
    for code, paths, what in (
        ("no-image", listed.others, "no image, not read"),
        (
            "left-out",
            listed.left_out,
            "left out: hidden, of a storage or operating system, or a link to a folder above",
        ),
    ):
        if paths:
            found.warn(code, f"{len(paths)} x {what}", map("/".join, paths), note=True)
    return readable


def _is_outside(file: File, reading: Reading) -> bool:
    # What cannot be listed may itself be a folder of the layout.
    folders = {file.parts[:-1], file.parts} if file.problem else {file.parts[:-1]}
    return all(reading.place(each)[0] == ELSEWHERE for each in folders)


# -- by folder names ------------------------------------------------------------------------------


def _by_folders(files: Sequence[Parts], found: Findings) -> None:
    train: list[Parts] = []
    test: list[Parts] = []  # images, and masks that are beside them
    masks: list[Parts] = []
    elsewhere: Counter[str] = Counter()
    reading = found.reading
    for path in files:
        kind, _ = reading.place(path[:-1])
        if kind == ELSEWHERE:
            elsewhere[path[0] if len(path) > 1 else "the category folder itself"] += 1
        elif kind == MISPLACED:
            found.add_problem(
                path,
                f"no images are read from this folder; move it: expected {reading.picture}",
            )
        else:
            {TRAIN: train, TEST: test, MASK: masks}[kind].append(path)
    if reading.masks_beside:
        ids = {_id(path, reading) for path in test}
        masks = [path for path in test if any(_photos_of(_id(path, reading), ids, reading))]
        test = [path for path in test if path not in set(masks)]
    masks_of = _pair_masks(test, masks, found)
    train = _without_siblings(train, {}, found)
    test = _without_siblings(test, masks_of, found)
    found.images += [FoundImage(path, TRAIN, GOOD) for path in train]
    for path in test:
        found.add_image(path, TEST, reading.place(path[:-1])[1][0], masks_of.get(path, ()))
    _check_good_folder(test, found)
    nested = Counter("/".join(reading.place(path[:-1])[1][:2]) for path in train)
    for place, count in nested.items():
        if "/" in place:
            found.warn(
                "nested-training",
                f"{count_images(count)} in {place}, a sub-folder of the good training images: used "
                "as good images",
            )
    for place, count in elsewhere.items():
        found.warn("outside", f"{count_images(count)} in {place}: not part of the layout, not read")


def _id(path: Parts, reading: Reading) -> Parts:
    """Return what identifies a test image or mask; its first part is the defect."""
    return image_id(reading.place(path[:-1])[1], path)


def _pair_masks(
    test: Sequence[Parts], masks: Sequence[Parts], found: Findings
) -> dict[Parts, list[Parts]]:
    """Return the masks of each test image, paired by name."""
    reading = found.reading
    photos = {_id(path, reading): path for path in test}
    masks_of: dict[Parts, list[Parts]] = defaultdict(list)
    for mask in masks:
        here = _id(mask, reading)
        image = next(_photos_of(here, photos.keys(), reading), None)
        if image is not None:
            masks_of[photos[image]].append(mask)
            continue
        expected = "/".join((reading.test, *(here[:-1] or ["<defect>"])))
        hint = _mask_options(here, photos)
        found.add_problem(mask, f"a mask without an image of that name in {expected}{hint}")
    return masks_of


def _mask_options(mask: Parts, photos: Collection[Parts]) -> str:
    """Suggest the options with which a mask belongs to one of the photos; "" if none do."""
    if mask[:-1] in photos:
        return f"; if it belongs to {mask[-2]!r}, set 'mask_suffix: \"/*\"'"
    inside = [each[-1] for each in photos if each[:-1] == mask[:-1] and each[-1] in mask[-1]]
    name = max(inside, key=len, default=mask[-1])
    before, _, after = mask[-1].partition(name)
    if after[-1:].isdigit():
        after = after.rstrip("0123456789") + "*"
    options = [f"'mask_prefix: {before}'"] if before else []
    options += [f"'mask_suffix: \"{after}\"'"] if after else []
    return f"; if it belongs to {name!r}, set {' and '.join(options)}" if options else ""


def _photos_of(mask: Parts, ids: Collection[Parts], reading: Reading) -> Iterator[Parts]:
    """Yield the images that a mask may belong to, by the names' order of preference.

    The part of a mask's path after the defect may contain a folder named after the image.
    """
    # Suffixes in their order: an image may have the name of another image's mask.
    for prefix, suffix in reading.mask_names:
        if "*" in prefix + suffix or "/" in suffix:
            whole = "/".join(mask)
            start = whole.rfind("/") + 1 if "/" not in suffix else 0
            for end in range(len(whole), start, -1):
                folder, _, name = whole[:end].rpartition("/")
                for cut in range(len(name) if prefix else 1):
                    image = (*folder.split("/"), name[cut:])
                    if (
                        image in ids
                        and fnmatchcase(name[:cut], prefix)
                        and fnmatchcase(whole[end:], suffix)
                    ):
                        yield image
        else:
            *folder, stem = mask
            image = (*folder, stem.removeprefix(prefix).removesuffix(suffix))
            if stem == prefix + image[-1] + suffix and image in ids:
                yield image


def _without_siblings(
    paths: Sequence[Parts], masks_of: Mapping[Parts, Sequence[Parts]], found: Findings
) -> list[Parts]:
    """Report masks and other channels among the photos of a split, and return the others.

    An image that has a mask is a photo.
    """
    place = found.reading.place
    inside = {place(path[:-1])[1] + path[-1:]: path for path in paths if path not in masks_of}
    photos = [place(path[:-1])[1] + path[-1:] for path in paths]
    siblings = {inside[rest]: s for rest, s in find_siblings(photos).items() if rest in inside}
    by_folder: dict[tuple[Parts, Sibling], list[str]] = defaultdict(list)
    for path, sibling in siblings.items():
        by_folder[path[:-1], sibling].append(path[-1])
    for (folder, sibling), names in by_folder.items():
        what = "masks" if sibling.is_mask else "another channel or previews"
        found.add_problem(
            folder,
            f"{count_images(len(names))} seem to be {what} of the photos, not photos: "
            f"{first_names(names)}; {_how_to_move(folder, sibling, found.reading)}",
        )
    return [path for path in paths if path not in siblings]


def _how_to_move(folder: Parts, sibling: Sibling, reading: Reading) -> str:
    if not sibling.is_mask:
        return "move them out of the category"
    move = f"move them to {reading.masks}/<defect>"
    if reading.place(folder)[0] != TEST:
        return move
    if not sibling.folder:
        return f"{move}, or set 'masks: {reading.test}', for masks beside their photos"
    if len(sibling.folder) == 1:
        return f"{move}, or set 'masks: {'/'.join((reading.test, *sibling.folder))}'"
    return move


def _check_good_folder(test: Sequence[Parts], found: Findings) -> None:
    """Report a folder ``good``, or one in other capitals, that does not mean good."""
    reading = found.reading
    folders = {path[:-1]: reading.place(path[:-1])[1][0] for path in test}
    for defect in sorted(set(folders.values())):
        if reading.is_misspelt_good(defect):
            folder = next(path for path, name in folders.items() if name == defect)
            listed = ", ".join([*reading.good, defect])
            found.add_problem(
                folder,
                f"its name is {defect!r}, which the option 'good' does not list: its images would "
                f"count as defective; set 'good: [{listed}]', or rename the folder",
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
        named = [line.image, *filter(None, line.mask.split("|"))]
        image, *masks = (known.get(tuple(map(nfc, PurePosixPath(text).parts))) for text in named)
        for number, (text, file) in enumerate(zip(named, (image, *masks), strict=True)):
            if file is not None:
                used.add(file)
            else:
                hint = "; write paths with '/'" if "\\" in text else ""
                found.problems.append(
                    f"{here}: {'mask' if number else 'image'} {text!r} is not an image file in "
                    f"{folder}{hint}"
                )
        if problem := _wrong_line(line, reading):
            found.problems.append(f"{here}: {problem}")
        elif image in first_line:
            found.problems.append(
                f"{here}: {line.image!r} is also in line {first_line[image]}; remove one of them"
            )
        elif image is not None:
            first_line[image] = line.number
            drawn = [mask for mask in masks if mask is not None]
            found.add_image(image, line.split, line.defect, drawn)
    unlisted = ["/".join(parts) for parts in files if parts not in used]
    counted = f"{count_images(len(unlisted))} not in the list {path}"
    if unlisted and reading.unlisted == "allow":
        found.warn("unlisted", f"{counted}: not read", unlisted)
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
    if reading.is_misspelt_good(line.defect):
        return (
            f"{line.defect!r} would be a defect; if it is good, add it to the option 'good': "
            f"[{', '.join([*reading.good, line.defect])}]"
        )
    return ""


# -- hold-out -------------------------------------------------------------------------------------


def _hold_out(found: Findings) -> None:
    """Move a share of the good training images to the test split if that has no good images."""
    share = found.reading.holdout
    if share is None:
        return
    if any(each.split == TEST and each.defect == GOOD for each in found.images):
        found.warn("holdout", "holdout: not used, there are good test images")
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
    found.warn(
        "holdout",
        f"holdout: {count} of {len(train)} good training images are held out for the test",
        note=True,
    )
