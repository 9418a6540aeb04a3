"""CSV tables of results: one way to write them and one way to read them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from indad.core import atomic
from indad.core.errors import StoreError


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, numbers with ten significant digits."""
    with atomic.replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def read_csv(path: Path, columns: Mapping[str, str], what: str) -> pd.DataFrame:
    """Read some columns of a table.

    Text stays text, such as the names ``NA`` and ``01``. An empty number is NaN.

    Args:
        path: the CSV file.
        columns: name to pandas type of the columns to return.
        what: what the file is, for error messages.

    Raises:
        StoreError: the file is missing or not such a table.
    """
    text = {name: str for name, kind in columns.items() if kind == "str"}
    empty = {name: [""] for name in columns if name not in text}
    try:
        # Only a line feed ends a line: the name of a file may have a carriage return.
        frame = pd.read_csv(
            path, dtype=text, keep_default_na=False, na_values=empty, lineterminator="\n"
        )
        missing = [name for name in columns if name not in frame]
        if missing:
            raise ValueError(f"it has no column {missing[0]!r}")
        return frame[list(columns)].astype(dict(columns))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{path}: not a {what} ({error}); delete it and run again") from None
