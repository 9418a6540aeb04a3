"""What a folder looks like that is not laid out as asked, and the options that would read it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indad.data import split_list
from indad.data.public import catalogue
from indad.core.errors import DataError
from indad.data.images import SUFFIXES
from indad.data.folder_layout import GOOD, MASK_WORDS, TEST_WORDS, TRAIN_WORDS, Reading, sounds_good

#: Folders looked into, of a root that may hold anything.
MOST = 50


def suggest(root: Path, reading: Reading) -> str:
    """Say what ``root`` looks like and what to do; "" if that cannot be told.

    Args:
        root: a folder in which no category was found.
        reading: how it was to be read.
    """
    inside = _folders(root)
    for folder in (root, *inside):
        if (listed := _list(folder)) is not None and reading.list is None:
            one = folder == root and not split_list.names_categories(listed)
            return f" {listed} looks like a list of its images" + _options(
                root.parent if one else root, Reading(list=listed.name), [root.name] if one else []
            )
    if (single := _looks_like_category(root)) is not None:
        if _same(single, reading):
            return " It looks like a single category itself: give its parent folder."
        return " It looks like a single category itself, of other names" + _options(
            root.parent, single, [root.name]
        )
    if public := _public(root):
        return public
    for folder in inside:
        looks = _looks_like_category(folder)
        if looks is not None and not _same(looks, reading):
            return f" {folder.name!r} looks like one of other names" + _options(root, looks, [])
    for folder in inside:
        looks = [_looks_like_category(each) for each in _folders(folder)]
        if any(each is not None and _same(each, reading) for each in looks):
            return f" The categories seem to be one folder further down: give {folder}."
    if photos := _with_images([root, *inside]):
        where = "directly in it" if photos == root else f"in {photos.name!r}"
        return (
            f" There are images {where}, but nothing says which are good. Move them, or write a "
            "list.csv with the columns image, split, defect (and mask) beside them, and set "
            "'list: list.csv'; with good images alone, set 'holdout' and 'allow_one_class' too."
        )
    return ""


def _same(one: Reading, other: Reading) -> bool:
    """Tell whether two readings find the same good training images."""
    return (one.train, set(one.good)) == (other.train, set(other.good))


def _options(path: Path, reading: Reading, categories: Sequence[str]) -> str:
    """Show the configuration that reads a folder."""
    settings: dict[str, Any] = {"path": str(path.resolve())}
    if categories:
        settings["categories"] = list(categories)
    settings |= reading.settings
    inner = ", ".join(f"{key}: {_yaml(value)}" for key, value in settings.items())
    return (
        ". With this in a file, given as --configfile, and --dataset mine, it is read:\n"
        f"    datasets:\n      mine: {{{inner}}}"
    )


def _list(folder: Path) -> Path | None:
    """Return a CSV file in ``folder`` that says what each image is."""
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".csv" and p.is_file())
    except OSError:
        return None
    for path in files[:MOST]:
        try:
            split_list.read(path)
        except DataError:
            continue
        return path
    return None


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./-]*", value)
    if plain and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _looks_like_category(folder: Path) -> Reading | None:
    """Return the reading that would find good training images in ``folder``."""
    inside = _folders(folder)
    train = _one_of(inside, TRAIN_WORDS)
    test = _one_of(inside, TEST_WORDS)
    masks = _one_of(inside, MASK_WORDS)
    options: dict[str, Any] = {}
    if masks is not None:
        options["masks"] = masks.name
    if train is not None:
        good = _good(_folders(train))
        if good is None:
            return None
        names = [good.name]
        options["train"] = train.name
        if test is not None:
            options["test"] = test.name
            tested = _good(_folders(test))
            if tested is not None and tested.name not in names:
                names.append(tested.name)
    else:
        good = _good(inside)
        if good is None or _with_images([good]) is None:
            return None
        names = [good.name]
        options |= {"train": ".", "test": ".", "holdout": 0.2}
        if not [each for each in inside if each not in (good, masks)]:
            options["allow_one_class"] = True
    return Reading(good=tuple(names), **options)


def _good(folders: Sequence[Path]) -> Path | None:
    exact = [each for each in folders if each.name == GOOD]
    return next(iter([*exact, *(each for each in folders if sounds_good(each.name))]), None)


def _one_of(folders: Sequence[Path], words: Sequence[str]) -> Path | None:
    by_name = {each.name: each for each in folders}
    exact = [by_name[word] for word in words if word in by_name]
    return next(iter([*exact, *(each for each in folders if each.name.lower() in words)]), None)


def _public(root: Path) -> str:
    """Say that a folder is a public data set in its own layout."""
    for name, entry in catalogue.load().items():
        for category in entry.categories:
            # A single one goes by folders that many have: its own name must be there too.
            if entry.layout.single and name not in ("magnetic_tile",):
                continue
            try:
                entry.layout.root(root, category)
            except (DataError, OSError):
                continue
            return (
                f" It looks like the public data set {name}: run it with --dataset {name} "
                f"--data-root {root}, or set 'datasets: {{{name}: {{source: {name}, mirrors: "
                f"[{root}]}}}}'."
            )
    return ""


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []
    return found[:MOST]


def _with_images(folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        try:
            if any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
                return folder
        except OSError:
            continue
    return None
