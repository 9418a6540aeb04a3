"""The categories in a data folder."""

from __future__ import annotations

from pathlib import Path

from indad.core.errors import DataError
from indad.data import split_list
from indad.data.folder_layout import Reading


def list_categories(root: Path, reading: Reading) -> list[str]:
    """List the sub-folders of ``root`` that are categories, sorted; possibly none.

    A category has good training images, or is named in the list of ``root``. For an error message
    that says what ``root`` holds instead, see ``indad.data.public.suggest.find_categories``.

    Raises:
        DataError: ``root`` is missing, or its list cannot be read.
    """
    if not root.is_dir():
        raise DataError(missing_folder(root))
    if reading.list is not None and (root / reading.list).is_file():
        return split_list.categories(root / reading.list)
    return sorted(
        path.name
        for path in root.iterdir()
        if not path.name.startswith(".") and path.is_dir() and _has_training_images(path, reading)
    )


def is_category(folder: Path, reading: Reading) -> bool:
    """Tell whether ``folder`` is a category itself, not the parent folder of categories.

    Raises:
        DataError: its list cannot be read.
    """
    if not _has_training_images(folder, reading):
        return False
    return reading.list is None or not split_list.names_categories(folder / reading.list)


def _has_training_images(folder: Path, reading: Reading) -> bool:
    if reading.list is not None:
        return (folder / reading.list).is_file()
    train = folder / reading.train
    return train.is_dir() and any(
        reading.is_good(each.name) and each.is_dir() for each in train.iterdir()
    )


def missing_folder(folder: Path) -> str:
    """Return the message for a data folder that does not exist."""
    return (
        f"{folder.resolve()}: data folder not found. Set 'path' of the data set in the "
        "configuration (or --data-root) to a folder in MVTec AD layout, "
        "<category>/train/good/*.png and <category>/test/<defect>/*.png; MVTec AD itself is "
        "free for research at https://www.mvtec.com/company/research/datasets/mvtec-ad"
    )
