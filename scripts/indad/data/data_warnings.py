"""Data warnings: what can be used, but makes results mean less, or may be a mistake.

They are produced where the data are examined, by the rules `index` and `decode`, and written beside
the manifest and the decoded images. `indad check`, the console of a run, the tables and the report
show the same list.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from indad.core import checksum
from indad.core.errors import StoreError


class DataWarning(NamedTuple):
    """A warning about the data of a category.

    Attributes:
        code: identifies the kind of warning, such as ``crop-share``.
        category: the category's name.
        text: what was found, with numbers.
        files: the files concerned, relative to the category folder.
        remedy: what to do; may be empty.
        note: whether this is only information, which tables and reports leave out.
    """

    code: str
    category: str
    text: str
    files: tuple[str, ...] = ()
    remedy: str = ""
    note: bool = False

    def __str__(self) -> str:
        """Return the warning as one line, without the category."""
        named = f": {first_names(self.files)}" if self.files else ""
        return f"{self.text}{named}" + (f"; {self.remedy}" if self.remedy else "")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``5 images``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_names(names: Iterable[str]) -> str:
    """Return the first five names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more


def write_warnings(warnings: Iterable[DataWarning], path: Path) -> None:
    """Write warnings as JSON with a checksum, atomically."""
    checksum.write_json(path, {"warnings": [each._asdict() for each in warnings]})


def read_warnings(path: Path) -> list[DataWarning]:
    """Read a file of `write_warnings`.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        return [
            DataWarning(**{**each, "files": tuple(each["files"])})
            for each in checksum.read_json(path, "list of data warnings")["warnings"]
        ]
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a list of data warnings ({error}); delete it") from None


def read_all(paths: Iterable[Path]) -> list[tuple[str, DataWarning]]:
    """Read the lists of a run, ``<dataset>/<category>/<geometry>.warnings.json``.

    Returns:
        Each warning once, with its data set; without notes.

    Raises:
        StoreError: a file is missing or damaged.
    """
    found = (
        (path.parts[-3], each) for path in paths for each in read_warnings(path) if not each.note
    )
    return list(dict.fromkeys(found))
