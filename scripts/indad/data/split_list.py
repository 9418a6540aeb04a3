"""Lists: CSV files that say what each image is, for photos that should stay where they are.

A list has the columns ``image``, ``split`` (train or test), ``defect`` and optionally ``mask``;
other columns are ignored. It is in the category folder or in its parent, and its paths are relative
to its own folder: ``front/001.png``, or ``screw/front/001.png``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from indad.core.errors import DataError
from indad.data.folder_layout import is_layout_word

COLUMNS = ("image", "split", "defect")


class Line(NamedTuple):
    """One line of a list. ``number`` is its line number in the file."""

    number: int
    image: str
    split: str
    defect: str
    mask: str


def read(path: Path) -> list[Line]:
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
            missing = [name for name in COLUMNS if name not in names]
            if missing:
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
    folder has a name that usually stands for a split. Otherwise the list is that of one category,
    the folder it is in.

    Raises:
        DataError: as ``read``.
    """
    lines = read(path)
    trained = {_category(line) for line in lines if line.split == "train"}
    return bool(lines) and all(
        "/" in line.image
        and _category(line) in trained
        and not is_layout_word(_category(line))
        and (not line.mask or line.mask.split("/")[0] == _category(line))
        for line in lines
    )


def _category(line: Line) -> str:
    return line.image.split("/")[0]


def categories(path: Path) -> list[str]:
    """Return the names of the categories that a list in their parent folder covers, sorted.

    Raises:
        DataError: as ``read``, or the list is that of one category.
    """
    if not names_categories(path):
        raise DataError(
            f"{path}: a list in the parent folder of the categories must name images as "
            "<category>/..., with training images of each category. If this is the list of one "
            f"category, give its parent folder, {path.parent.parent}, as 'path' and "
            f"'categories: [{path.parent.name}]'"
        )
    return sorted({_category(line) for line in read(path)})
