"""The categories in a data folder: sub-folders with training images, or those of a list.

A list is a CSV file that says what each image is, for photos that should stay where they are. It
has the columns ``image``, ``split`` (train or test), ``defect`` and optionally ``mask``; other
columns are ignored. It is in the category folder or in its parent, and its paths are relative to
its own folder: ``front/001.png``, or ``screw/front/001.png``.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from indad.core.errors import DataError
from indad.data.files import is_left_out
from indad.data.folder_layout import Reading, is_layout_word

_LIST_COLUMNS = ("image", "split", "defect")


class Line(NamedTuple):
    """One line of a list. ``number`` is its line number in the file."""

    number: int
    image: str
    split: str
    defect: str
    mask: str

    @property
    def category(self) -> str:
        """The first folder of the image's path."""
        return self.image.split("/")[0]


def read_list(path: Path) -> list[Line]:
    """Read a list whose columns are separated by commas, semicolons or tabs.

    Raises:
        DataError: the file is missing, not UTF-8, not CSV, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            separator = max(",;\t", key=header.count)
            rows = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            names = [name.strip().lower() for name in next(rows, [])]
            if missing := [name for name in _LIST_COLUMNS if name not in names]:
                raise DataError(
                    f"{path}: lacks the column {' and '.join(missing)}; the first line must name "
                    "the columns image, split, defect and optionally mask, but it is: "
                    f"{', '.join(names) or 'empty'}"
                )
            lines = []
            for row in rows:
                if any(row):
                    value = dict(zip(names, [*row, *[""] * len(names)], strict=False))
                    split, defect = value["split"].strip(), value["defect"].strip()
                    mask = value.get("mask", "")
                    lines.append(Line(rows.line_num, value["image"], split, defect, mask))
            return lines
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such list; it must be in the category folder or in its parent"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the list as 'CSV UTF-8'") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not a readable list ({error})") from None


def names_categories(path: Path) -> bool:
    """Tell whether a list covers several categories, the first folders of its images' paths.

    That is so if each of these folders has training images and the masks of its images, and no
    folder has a name that usually denotes a split. Otherwise the list is that of one category,
    the folder it is in.

    Raises:
        DataError: as ``read_list``.
    """
    lines = read_list(path)
    trained = {line.category for line in lines if line.split == "train"}
    return bool(lines) and all(
        "/" in line.image
        and line.category in trained
        and not is_layout_word(line.category)
        and (not line.mask or line.mask.split("/")[0] == line.category)
        for line in lines
    )


def list_categories(root: Path, reading: Reading) -> list[str]:
    """List the sub-folders of ``root`` that are categories, sorted; possibly none.

    A category has good training images, or is named in the list of ``root``. For an error message
    that says what ``root`` holds instead, see ``indad.data.public.suggest.find_categories``.

    Raises:
        DataError: ``root`` is missing, or its list cannot be read or is that of one category.
    """
    if not root.is_dir():
        raise DataError(missing_folder(root))
    if reading.list is not None and (root / reading.list).is_file():
        path = root / reading.list
        if not names_categories(path):
            raise DataError(
                f"{path}: a list in the parent folder of the categories must name images as "
                "<category>/..., with training images of each category. If this is the list of one "
                f"category, give its parent folder, {path.parent.parent}, as 'path' and "
                f"'categories: [{path.parent.name}]'"
            )
        return sorted({line.category for line in read_list(path)})
    return sorted(
        path.name
        for path in root.iterdir()
        if not is_left_out(path.name) and path.is_dir() and _has_training_images(path, reading)
    )


def is_category(folder: Path, reading: Reading) -> bool:
    """Tell whether ``folder`` is a category itself, not the parent folder of categories.

    Raises:
        DataError: its list cannot be read.
    """
    if not _has_training_images(folder, reading):
        return False
    return reading.list is None or not names_categories(folder / reading.list)


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
