"""Categories of a data folder, or a suggestion of the options that would read it.

A folder with other names, a list, a public data set, or images without any order are recognised.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from indad.core.errors import DataError
from indad.data import categories
from indad.data.files import listing, sub_folders
from indad.data.folder_layout import GOOD, MASK_WORDS, TEST_WORDS, TRAIN_WORDS, Reading, sounds_good
from indad.data.formats import SUFFIXES
from indad.data.public import catalogue

#: Largest number of folders, and of lists in a folder, that are examined.
MOST = 50


def find_categories(root: Path, reading: Reading | None = None) -> list[str]:
    """Return the names of the categories in ``root``, sorted.

    Raises:
        DataError: ``root`` does not exist or contains no category; the message says what it seems
            to be, and how to read it. Or its list cannot be read.
    """
    reading = reading or Reading()
    found = categories.list_categories(root, reading)
    if not found:
        inside = _folders(root)
        suggestion = (
            _suggest_list(root, inside, reading)
            or _suggest_parent(root, reading)
            or _suggest_public(root)
            or _suggest_other_names(root, inside, reading)
            or _suggest_deeper(inside, reading)
            or _suggest_list_for_loose_images(root, inside)
        )
        raise DataError(
            f"{root.resolve()}: no category found. Each category is a sub-folder with "
            f"{reading.picture}.{suggestion}"
        )
    return found


def _suggest_list(root: Path, inside: Sequence[Path], reading: Reading) -> str:
    if reading.list is not None:
        return ""
    for folder in (root, *inside):
        if (path := _list_in(folder)) is not None:
            found = f" {path} seems to be a list of its images"
            if folder == root and not categories.names_categories(path):
                return found + _options(root.parent, Reading(list=path.name), root.name)
            return found + _options(root, Reading(list=path.name))
    return ""


def _suggest_parent(root: Path, reading: Reading) -> str:
    single = _reading_of_category(root)
    if single is None:
        return ""
    if _same_training_images(single, reading):
        return " It seems to be a single category: give its parent folder."
    options = _options(root.parent, single, root.name)
    return f" It seems to be a single category with other folder names{options}"


def _suggest_public(root: Path) -> str:
    for name, entry in catalogue.load().items():
        # Most data sets of a single category have folder names that are too common.
        if entry.layout.single and name != "magnetic_tile":
            continue
        if entry.in_own_layout(root):
            return (
                f" It seems to be the public data set {name}: run it with --dataset {name} "
                f"--data-root {root}, or set 'datasets: {{{name}: {{source: {name}, mirrors: "
                f"[{root}]}}}}'."
            )
    return ""


def _suggest_other_names(root: Path, inside: Sequence[Path], reading: Reading) -> str:
    for folder in inside:
        other = _reading_of_category(folder)
        if other is not None and not _same_training_images(other, reading):
            options = _options(root, other)
            return f" {folder.name!r} seems to be a category with other folder names{options}"
    return ""


def _suggest_deeper(inside: Sequence[Path], reading: Reading) -> str:
    for folder in inside:
        readings = map(_reading_of_category, _folders(folder))
        if any(each is not None and _same_training_images(each, reading) for each in readings):
            return f" The categories seem to be one folder deeper: give {folder}."
    return ""


def _suggest_list_for_loose_images(root: Path, inside: Sequence[Path]) -> str:
    photos = next((folder for folder in (root, *inside) if _has_images(folder)), None)
    if photos is None:
        return ""
    where = "directly in it" if photos == root else f"in {photos.name!r}"
    return (
        f" There are images {where}, but nothing says which are good. Move them, or write a "
        "list.csv with the columns image, split, defect (and mask) into their folder, and set "
        "'list: list.csv'; if all images are good, also set 'holdout' and 'allow_one_class'."
    )


def _options(path: Path, reading: Reading, category: str | None = None) -> str:
    """Show the configuration that reads a folder."""
    settings: dict[str, Any] = {"path": str(path.resolve())}
    if category is not None:
        settings["categories"] = [category]
    shown = yaml.safe_dump(
        settings | reading.settings,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=10_000,
    )
    return (
        ". To read it, put this into a file and give it with --configfile, and --dataset mine:\n"
        f"    datasets:\n      mine: {shown.strip()}"
    )


def _list_in(folder: Path) -> Path | None:
    """Return a CSV file in ``folder`` that can be read as a list."""
    files = [path for path in listing(folder) if path.suffix.lower() == ".csv" and path.is_file()]
    for path in files[:MOST]:
        try:
            categories.read_list(path)
        except DataError:
            continue
        return path
    return None


def _reading_of_category(folder: Path) -> Reading | None:
    """Return the options that find good training images in ``folder``; None if there are none."""
    inside = _folders(folder)
    train = _one_of(inside, TRAIN_WORDS)
    test = _one_of(inside, TEST_WORDS)
    masks = _one_of(inside, MASK_WORDS)
    good = _good(inside if train is None else _folders(train))
    if good is None:
        return None
    names = [good.name]
    options: dict[str, Any] = {} if masks is None else {"masks": masks.name}
    if train is None:
        if not _has_images(good):
            return None
        options |= {"train": ".", "test": ".", "holdout": 0.2}
        if not set(inside) - {good, masks}:
            options["allow_one_class"] = True
    else:
        options["train"] = train.name
        if test is not None:
            options["test"] = test.name
            tested = _good(_folders(test))
            if tested is not None and tested.name not in names:
                names.append(tested.name)
    return Reading(good=tuple(names), **options)


def _same_training_images(one: Reading, other: Reading) -> bool:
    return (one.train, set(one.good)) == (other.train, set(other.good))


def _good(folders: Sequence[Path]) -> Path | None:
    found = [folder for folder in folders if sounds_good(folder.name)]
    return min(found, key=lambda folder: folder.name != GOOD, default=None)


def _one_of(folders: Sequence[Path], words: Sequence[str]) -> Path | None:
    """Return the folder with the first of the names ``words``, else one in other capitals."""
    found = {folder.name: folder for folder in folders if folder.name.lower() in words}
    return next((found[name] for name in (*words, *found) if name in found), None)


def _folders(folder: Path) -> list[Path]:
    return sub_folders(folder)[:MOST]


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in listing(folder))
