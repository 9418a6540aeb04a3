"""An image of a category and its masks, before it is decoded: size, hashes and problems."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indad.core.checksum import sha256_file
from indad.core.errors import DataError
from indad.data.annotations import Photo, Shapes, draw
from indad.data.findings import FoundImage
from indad.data.folder_layout import GOOD, Parts, is_annotation
from indad.data.images import drawn_pixels, is_lossy, is_rotated, mask_pixels, mask_values
from indad.data.images import size as image_size

#: Regions of masks with fewer pixels are specks.
SPECK = 5
#: Separates the masks of one image in the columns of masks: it is in no path.
SEPARATOR = "//"
#: What the masks of an image show: the share of the image that they cover, whether most of their
#: regions are specks, which of them have compression losses, whether the image is rotated, and the
#: `Shapes` of annotation files.
FACTS = {"covered": 0.0, "specks": False, "lossy": (), "rotated": False, "shapes": ()}


def inspect(
    folder: Path, image: FoundImage, labels: tuple[str, ...]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the row of an image with the facts about its masks, and what is wrong with them.

    Args:
        folder: the category folder.
        image: the image.
        labels: labels of the shapes that count in annotation files; () for all.
    """
    path = folder.joinpath(*image.path)
    masks = [folder.joinpath(*parts) for parts in image.masks]
    names = ["/".join(parts) for parts in image.masks]
    annotated = any(is_annotation(mask.name) for mask in masks)
    size, problems, read, hashes, facts = None, [], [], [], FACTS
    try:
        size = image_size(path)
    except DataError as error:
        problems.append(str(error))
    photo = Photo("/".join((folder.name, *image.path)), size or (0, 0), labels)
    try:
        # Shapes can only be drawn on an image of a known size.
        read = [_read(mask, photo) for mask in masks if size or not is_annotation(mask.name)]
        hashes = [sha256_file(mask) for mask in masks]
    except DataError as error:
        problems.append(str(error))
        read = []
    if size is None:
        return None, problems
    problems += [
        _wrong_size(mask, values.shape, path, size)
        for mask, (values, _) in zip(masks, read, strict=False)
        if values.shape != size
    ]
    if read and not problems:
        facts = _facts(names, read) | {"rotated": is_rotated(path)}
        if not facts["covered"]:
            why = "no shape that counts" if annotated else "no pixel above 0"
            problems.append(
                f"{masks[0]}: the mask is empty ({why}) but the image is in {image.defect!r}; draw "
                "the defect or move the image"
            )
    row = {
        "image": "/".join(image.path),
        "split": image.split,
        "label": int(image.defect != GOOD),
        "defect": image.defect,
        "mask": SEPARATOR.join(names),
        "width": size[1],
        "height": size[0],
        "sha256": sha256_file(path),
        "mask_sha256": SEPARATOR.join(hashes),
        "mask_labels": json.dumps(labels) if annotated and labels else "",
    }
    return row | facts, problems


def _read(mask: Path, photo: Photo) -> tuple[np.ndarray, list[Shapes]]:
    """Return the values of a mask, and the shapes of an annotation file."""
    if not is_annotation(mask.name):
        return mask_values(mask), []
    drawn, shapes = draw(mask, photo)
    return drawn, [shapes]


def _facts(names: Sequence[str], read: Sequence[tuple[np.ndarray, list[Shapes]]]) -> dict[str, Any]:
    """Return what the masks of an image show, without the image's rotation."""
    drawn = np.logical_or.reduce([drawn_pixels(values) for values, _ in read])
    return {
        "covered": float(drawn.mean()),
        "specks": _has_specks(drawn),
        "lossy": [name for name, (values, _) in zip(names, read, strict=True) if is_lossy(values)],
        "shapes": [each for _, shapes in read for each in shapes],
    }


def _has_specks(drawn: np.ndarray) -> bool:
    """Tell whether most regions of a mask have fewer than ``SPECK`` pixels."""
    from scipy import ndimage  # planning a workflow imports this module

    labels, count = ndimage.label(drawn, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    return bool(count >= 4 and 2 * np.count_nonzero(areas < SPECK) > count)


def _wrong_size(mask: Path, mask_size: tuple[int, ...], image: Path, size: tuple[int, ...]) -> str:
    if mask_size == size[::-1] and is_rotated(image):
        advice = (
            "the image is rotated by its EXIF orientation, so draw the mask on the image as it is "
            "shown upright"
        )
    else:
        advice = "export the mask at the image's size"
    return (
        f"{mask}: the mask has {mask_size[1]} x {mask_size[0]} pixels, its image has {size[1]} x "
        f"{size[0]}; {advice}"
    )


def inspect_good_mask(
    folder: Path, image: Parts, mask: Parts, labels: tuple[str, ...]
) -> list[str]:
    """Return what is wrong with a mask of a good image."""
    name, path = "/".join(image), folder.joinpath(*mask)
    try:
        photo = None
        if is_annotation(path.name):
            photo = Photo(f"{folder.name}/{name}", image_size(folder / name), labels)
        drawn = mask_pixels(path, photo=photo).any()
    except DataError as error:
        return [str(error)]
    return [f"{path}: marks a defect in a good image, {name}; correct one of them"] * bool(drawn)
