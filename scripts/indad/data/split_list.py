"""A list that says what each image is, for photos that should stay where they are.

A CSV file with the columns ``image``, ``split`` (train or test), ``defect`` and perhaps ``mask``;
others are not looked at. It lies in the category folder or in its parent, and its paths are
relative to the folder it lies for: ``front/001.png``, or ``screw/front/001.png``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from indad.core.errors import DataError
from indad.data.folder_layout import is_layout_word

COLUMNS = ("image", "split", "defect")


class Line(NamedTuple):
    """A line of a list, as it stands there."""

    number: int
    image: str
    split: str
    defect: str
    mask: str


def read(path: Path) -> list[Line]:
    """Read a list. Commas, semicolons or tabs separate its columns.

    Raises:
        DataError: the file is missing, not UTF-8, no CSV, or lacks a column.
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
                    f"the columns image, split, defect and perhaps mask, it has: "
                    f"{', '.join(names) or 'nothing'}"
                )
            lines = []
            for row in rows:
                if any(row):
                    value = dict(zip(names, [*row, *[""] * len(names)], strict=False))
                    mask = value.get("mask", "")
                    split, defect = value["split"].strip(), value["defect"].strip()
                    lines.append(Line(rows.line_num, value["image"], split, defect, mask))
            return lines
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such list; it must lie in the category folder or in its parent"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the list as 'CSV UTF-8'") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not a readable list ({error})") from None


def names_categories(path: Path) -> bool:
    """Tell whether a list is one for several categories, the folders its images lie in.

    Each of them then has training images, and its masks, and a name that tells of no split.
    Otherwise it is the list of one category, the folder it lies in.

    Raises:
        DataError: as ``read``.
    """
    lines = read(path)
    first = [line.image.split("/")[0] for line in lines]
    trained = {name for name, line in zip(first, lines, strict=True) if line.split == "train"}
    return bool(lines) and all(
        "/" in line.image
        and name in trained
        and not is_layout_word(name)
        and (not line.mask or line.mask.split("/")[0] == name)
        for name, line in zip(first, lines, strict=True)
    )


def categories(path: Path) -> list[str]:
    """Name the categories of a list beside them, sorted.

    Raises:
        DataError: as ``read``, or it is the list of one category.
    """
    if not names_categories(path):
        raise DataError(
            f"{path}: a list beside the categories must name images as <category>/..., train "
            "images of each category among them. If this is the list of one category, give the "
            f"parent, {path.parent.parent}, as 'path' and 'categories: [{path.parent.name}]'"
        )
    return sorted({line.image.split("/")[0] for line in read(path)})
