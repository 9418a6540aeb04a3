"""Masks and annotation files of test images, paired by name."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from indad.core.errors import DataError
from indad.data import annotations
from indad.data.findings import Findings
from indad.data.folder_layout import MASK, TEST, Parts, Reading, nfc


def image_id(folder: Parts, path: Parts) -> Parts:
    """Return what identifies an image: the folder's parts and the file name without extension."""
    return (*map(nfc, folder), nfc(PurePosixPath(path[-1]).stem))


def mask_id(path: Parts, reading: Reading) -> Parts:
    """Return what identifies a test image or mask; its first part is the defect."""
    return image_id(reading.place(path[:-1])[1], path)


def pair_masks(
    test: Sequence[Parts], masks: Sequence[Parts], found: Findings
) -> dict[Parts, list[Parts]]:
    """Return the masks of each test image, paired by name."""
    reading = found.reading
    photos = {mask_id(path, reading): path for path in test}
    masks_of: dict[Parts, list[Parts]] = defaultdict(list)
    for mask in masks:
        here = mask_id(mask, reading)
        image = next(photos_of(here, photos.keys(), reading), None)
        if image is not None:
            masks_of[photos[image]].append(mask)
            continue
        expected = "/".join((reading.test, *(here[:-1] or ["<defect>"])))
        hint = _mask_options(here, photos)
        found.add_problem(mask, f"a mask without an image of that name in {expected}{hint}")
    return masks_of


def pair_annotations(
    test: Sequence[Parts],
    train: Sequence[Parts],
    documents: Sequence[Parts],
    masks_of: dict[Parts, list[Parts]],
    found: Findings,
) -> None:
    """Add the labelme files to the images of their name, and COCO files to all images they name."""
    reading = found.reading
    photos = {mask_id(path, reading): path for path in test}
    if reading.masks_file and reading.masks_file not in documents:
        found.add_problem(reading.masks_file, "no such file; correct the option 'masks'")
    for document in documents:
        path = found.folder.joinpath(*document)
        place, _ = reading.place(document[:-1])
        if document != reading.masks_file and place != (TEST if reading.masks_beside else MASK):
            continue
        here = mask_id(document, reading)
        image = here if here in photos else next(photos_of(here, photos.keys(), reading), None)
        if image is not None:
            masks_of[photos[image]].append(document)
        elif document == reading.masks_file or annotations.kind(path) == annotations.COCO:
            _pair_coco(document, test, train, masks_of, found)
        elif annotations.kind(path):
            found.add_problem(document, f"no image of that name in {reading.test}")


def _pair_coco(
    document: Parts,
    test: Sequence[Parts],
    train: Sequence[Parts],
    masks_of: dict[Parts, list[Parts]],
    found: Findings,
) -> None:
    above, name = found.folder.joinpath(*document), found.folder.name
    tested = {(name, *path): path for path in test}
    trained = {(name, *path): path for path in train}
    try:
        named = annotations.match(above, tested)
        elsewhere = annotations.match(above, trained)
    except DataError as error:
        found.problems.append(str(error))
        return
    for file_name, images in named.items():
        if len(images) > 1:
            found.add_problem(
                document,
                f"{file_name!r} may be {' or '.join('/'.join(each[1:]) for each in images[:2])}; "
                "write the folder, too",
            )
        for image in images[:1]:
            masks_of[tested[image]].append(document)
        for image in elsewhere[file_name] if not images else ():
            found.good_masks.append((trained[image], document))
    missing = [each for each in named if not named[each] and not elsewhere[each]]
    if missing:
        found.warn(
            "annotations-missing",
            f"{len(missing)} of {len(named)} images named in {'/'.join(document)} are missing here",
            missing,
        )


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


def photos_of(mask: Parts, ids: Collection[Parts], reading: Reading) -> Iterator[Parts]:
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
