"""Checks of the images found in a category folder that need names and folders only."""

from collections import Counter, defaultdict
from pathlib import PurePosixPath

from indad.core.names import name_problem
from indad.data.findings import Findings, FoundImage
from indad.data.folder_layout import GOOD, TEST, TRAIN, Reading, sounds_good
from indad.data.pair_masks import image_id


def check_layout(found: Findings) -> None:
    """Add to ``found`` what is wrong with the names, masks and kinds of its images."""
    if found.reading.list is None:
        _check_names(found)
    _check_missing_masks(found)
    _warn_of_good_names(found)
    _check_kinds(found)
    if problem := name_problem(found.folder.name):
        found.add_problem((), f"the category {problem}")


def _check_names(found: Findings) -> None:
    ids = Counter(image_id(each.path[:-1], each.path) for each in found.images)
    for (*folder, name), count in ids.items():
        if count > 1:
            found.add_problem(
                (*folder, f"{name}.*"),
                f"{count} images of that name; masks and scores are assigned by name, so rename "
                f"one; if one is a mask, move it to {found.reading.masks}/<defect>",
            )


def _check_missing_masks(found: Findings) -> None:
    """Report images without a mask if others of the same defect have one."""
    reading = found.reading
    if reading.missing_masks == "allow":
        return
    by_defect: dict[str, list[FoundImage]] = defaultdict(list)
    for image in found.images:
        if image.split == TEST and image.defect != GOOD:
            by_defect[image.defect].append(image)
    for defect, images in by_defect.items():
        missing = [each for each in images if not each.masks]
        if len(missing) == len(images):
            continue
        for image in missing:
            expected = ""
            if reading.masks_file:
                expected = f" in {reading.masks}"
            elif reading.list is None:
                folder = found.folder.joinpath(reading.masks, *reading.place(image.path[:-1])[1])
                (prefix, suffix), *others = reading.mask_names
                name = f"{prefix}{PurePosixPath(image.path[-1]).stem}{suffix}.png"
                expected = f", expected {folder / name}"
                expected += f" (or without {suffix!r})" if ("", "") in others else ""
            found.add_problem(
                image.path,
                f"mask missing{expected}; other images of {defect!r} have one, and "
                "'missing_masks: allow' leaves such images out of pixel-level figures",
            )


def _warn_of_good_names(found: Findings) -> None:
    names = {each.defect for each in found.images if sounds_good(each.defect)} - {GOOD}
    for name in sorted(names):
        if found.reading.is_misspelt_good(name):  # refused
            continue
        found.warn(
            "good-name",
            f"{name!r} is used as a defect although its name usually means good",
            remedy=f"if it is good, set 'good: [{', '.join([*found.reading.good, name])}]'",
        )


def _check_kinds(found: Findings) -> None:
    """Report training images, good test images or defective test images that are missing."""
    kinds = Counter(
        "train" if each.split == TRAIN else "good" if each.defect == GOOD else "defective"
        for each in found.images
    )
    good = found.reading.good[0]
    how = {
        "train": _how_to_add(found.reading, "train", good),
        "good": _how_to_add(found.reading, "test", good),
        "defective": _how_to_add(found.reading, "test", "<name of the defect>"),
    }
    if not kinds["train"]:
        found.add_problem((), f"no training image: {how['train']}")
    if not kinds["good"] and not kinds["defective"]:
        found.add_problem(
            (),
            f"no test image. Good ones: {how['good']}, or set 'holdout: 0.2' to test with a fifth "
            f"of the training images. Defective ones: {how['defective']}, or set "
            "'allow_one_class: true' to do without. With a 'list' (a CSV file that says what each "
            "image is) images can stay where they are",
        )
        return
    for kind, other, hint in (
        ("good", "defective", ", or set 'holdout: 0.2' to use some of the training images"),
        ("defective", "good", ""),
    ):
        if kinds[kind]:
            continue
        if found.reading.allow_one_class:
            found.warn(
                "one-class",
                f"all test images are {other}: image AUROC and similar figures are not defined",
            )
        else:
            found.add_problem(
                (),
                f"no {kind} test image: {how[kind]}{hint} (AUROC needs both kinds; "
                "'allow_one_class: true' gives scores and maps without it)",
            )


def _how_to_add(reading: Reading, split: str, kind: str) -> str:
    if reading.list is not None:
        return f"list some as {split}, {kind}"
    folder = reading.train if split == TRAIN else reading.test
    return f"put some into {kind if folder == '.' else f'{folder}/{kind}'}"
