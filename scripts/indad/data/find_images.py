"""The images of a category folder with their split, defect and masks: by folder names or by a list.

Nothing is opened here but the list and files with unknown endings. Masks are paired with images by
name.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from indad.data import annotations
from indad.data.categories import Line, read_list
from indad.data.data_warnings import counted, first_names
from indad.data.files import File, Folder, scan
from indad.data.findings import Findings, FoundImage
from indad.data.folder_layout import (
    ELSEWHERE,
    GOOD,
    MASK,
    MISPLACED,
    TEST,
    TRAIN,
    Parts,
    Reading,
    is_annotation,
    nfc,
)
from indad.data.pair_masks import mask_id, pair_annotations, pair_masks, photos_of
from indad.data.siblings import Sibling, find_siblings


def find_images(folder: Path, reading: Reading) -> Findings:
    """Find the images and masks of a category folder.

    Raises:
        DataError: its list cannot be read.
    """
    found = Findings(folder, reading)
    listed = scan(folder)
    files = _readable_files(listed.images, found)
    documents = [path for path in listed.others if is_annotation(path[-1])]
    if reading.list is None:
        _by_folders(files, documents, found)
    else:
        _by_list(files, documents, found)
    _name_what_is_not_read(listed, found)
    _hold_out(found)
    found.images.sort(key=lambda each: (each.split != TRAIN, each.path))
    return found


def _readable_files(files: Sequence[File], found: Findings) -> list[Parts]:
    """List the image files that can be read, and all outside the layout; report the others."""
    readable = []
    for file in files:
        if found.reading.list is None and _is_outside(file, found.reading):
            readable.append(file.parts)
        elif any("\ud800" <= letter <= "\udfff" for part in file.parts for letter in part):
            found.add_problem(file.parts, "its name is not valid UTF-8; rename it")
        elif file.problem:
            found.add_problem(file.parts, file.problem)
        else:
            readable.append(file.parts)
    return readable


def _name_what_is_not_read(listed: Folder, found: Findings) -> None:
    """Name the files that are no images and the annotation files that are not used."""
    used = {mask for image in found.images for mask in image.masks}
    used |= {mask for _, mask in found.good_masks}
    others = [path for path in listed.others if path not in used]
    kinds = {path: annotations.kind(found.folder.joinpath(*path)) for path in others}
    if unread := [path for path in others if kinds[path]]:
        found.warn(
            "annotations-unread",
            f"{len(unread)} annotation files (labelme or COCO) are not used as masks",
            map("/".join, unread),
            _how_to_use(unread, kinds, found.reading),
        )
        others = [path for path in others if not kinds[path]]
    _name_coco_above(found)
    for code, paths, what in (
        ("no-image", others, "no image, not read"),
        (
            "left-out",
            listed.left_out,
            "left out: hidden, of a storage or operating system, or a link to a folder above",
        ),
    ):
        if paths:
            found.warn(code, f"{len(paths)} x {what}", map("/".join, paths), note=True)


def _name_coco_above(found: Findings) -> None:
    """Name the COCO files in the folder above that have images of this category."""
    photos = [(found.folder.name, *image.path) for image in found.images]
    for path in sorted(found.folder.parent.glob("*.json")):
        if annotations.kind(path) == annotations.COCO:
            number = sum(map(bool, annotations.match(path, photos).values()))
            if number:
                found.warn(
                    "annotations-unread",
                    f"../{path.name} (COCO) names {number} of these images, but is not used",
                    remedy=f"copy it into the category folder and set 'masks: {path.name}'",
                )


def _how_to_use(unread: Sequence[Parts], kinds: Mapping[Parts, str], reading: Reading) -> str:
    if reading.list is not None:
        return "name them in the column 'mask' of the list"
    for path in unread:
        place, _ = reading.place(path[:-1])
        if kinds[path] == annotations.COCO:
            return f"set 'masks: {'/'.join(path)}'"
        if place == TEST and not reading.masks_beside:
            return f"set 'masks: {reading.test}', for masks beside their photos"
        if place != TRAIN:
            return f"move them to {reading.masks}/<defect>, with the names of their photos"
    return "good training images need none"


def _is_outside(file: File, reading: Reading) -> bool:
    # What cannot be listed may itself be a folder of the layout.
    folders = {file.parts[:-1], file.parts} if file.problem else {file.parts[:-1]}
    return all(reading.place(each)[0] == ELSEWHERE for each in folders)


# -- by folder names ------------------------------------------------------------------------------


def _by_folders(files: Sequence[Parts], documents: Sequence[Parts], found: Findings) -> None:
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
        ids = {mask_id(path, reading) for path in test}
        masks = [path for path in test if any(photos_of(mask_id(path, reading), ids, reading))]
        test = [path for path in test if path not in set(masks)]
    masks_of = pair_masks(test, masks, found)
    pair_annotations(test, train, documents, masks_of, found)
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
                f"{counted(count, 'image')} in {place}, a sub-folder of the good training images: "
                "used as good images",
            )
    for place, count in elsewhere.items():
        found.warn(
            "outside", f"{counted(count, 'image')} in {place}: not part of the layout, not read"
        )


def _without_siblings(
    paths: Sequence[Parts], masks_of: Mapping[Parts, Sequence[Parts]], found: Findings
) -> list[Parts]:
    """Report masks and other channels among the photos of a split, and return the others."""
    place = found.reading.place
    # An image that has a mask is a photo.
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
            f"{counted(len(names), 'image')} seem to be {what} of the photos, not photos: "
            f"{first_names(names)}; {_how_to_move(folder, sibling, found.reading)}",
        )
    return [path for path in paths if path not in siblings]


def _how_to_move(folder: Parts, sibling: Sibling, reading: Reading) -> str:
    if not sibling.is_mask:
        return "move them out of the category"
    move = f"move them to {reading.masks}/<defect>"
    if reading.place(folder)[0] != TEST or len(sibling.folder) > 1:
        return move
    return f"{move}, or set 'masks: {'/'.join((reading.test, *sibling.folder))}'"


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


def _by_list(files: Sequence[Parts], documents: Sequence[Parts], found: Findings) -> None:
    folder, reading = found.folder, found.reading
    path = reading.list_file(folder)
    assert path is not None
    # The paths of a list in the parent folder begin with the category, and it may have others.
    above = () if path.is_relative_to(folder) else (nfc(folder.name),)
    known = {(*above, *map(nfc, parts)): parts for parts in (*files, *documents)}
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
    number = f"{counted(len(unlisted), 'image')} not in the list {path}"
    if unlisted and reading.unlisted == "allow":
        found.warn("unlisted", f"{number}: not read", unlisted)
    elif unlisted:
        found.add_problem(
            (), f"{number}: {first_names(unlisted)}; list them, or set 'unlisted: allow'"
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
