"""Write the results of scored images as CSV and JSON files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from indad.core import atomic
from indad.core.errors import ConfigError, DataError
from indad.inference.model import Failure, Result

#: Columns of the CSV file, and fields of an image in the JSON file.
COLUMNS = ("image", "score", "threshold", "anomalous", "seconds", "error")

Row = dict[str, Any]


def as_row(result: Result | Failure) -> Row:
    """Return a result as a row of ``COLUMNS``."""
    row = {name: getattr(result, name, None) for name in COLUMNS}
    return row | {"error": str(result.error)} if isinstance(result, Failure) else row


class ResultTables:
    """The CSV and JSON files of one command.

    Both are written when all images are scored; while a folder is watched, a line is appended for
    each image. The file name ``-`` stands for standard output.

    Args:
        csv_file: path of the CSV file, or None.
        json_file: path of the JSON file, or None; one line per image if it ends in ``.jsonl``.
        live: append a line for each image, after those of earlier runs.

    Attributes:
        rows: rows so far, unless ``live``.
        done: images that are in the files of earlier runs.

    Raises:
        ConfigError: ``live`` needs a JSON file with lines.
        DataError: an existing file has another content than a table of this class.
    """

    def __init__(self, csv_file: str | None, json_file: str | None, live: bool) -> None:
        self.csv_file, self.json_file, self.live = csv_file, json_file, live
        self.rows: list[Row] = []
        self.done: list[Path] = []
        self._json_lines = (json_file or "").endswith(".jsonl") or (live and json_file == "-")
        if live and json_file and not self._json_lines:
            raise ConfigError(
                "--watch: a JSON file that grows has one line per image: name it *.jsonl"
            )
        if live and csv_file:
            if earlier := _earlier(csv_file):
                reader = csv.DictReader(io.StringIO(earlier, newline=""))
                if tuple(reader.fieldnames or ()) != COLUMNS:
                    raise DataError(f"{csv_file}: exists and is not a table of this command")
                self.done += [Path(row["image"]) for row in reader]
            else:
                _write(csv_file, _csv_line(COLUMNS), append=True)
        if live and json_file:
            try:
                lines = map(json.loads, io.StringIO(_earlier(json_file)))
                self.done += [Path(row["image"]) for row in lines]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{json_file}: exists and is not a table of this command ({error})"
                ) from None

    def add(self, row: Row) -> None:
        """Add a row."""
        if not self.live:
            self.rows.append(row)
            return
        if self.csv_file:
            _write(self.csv_file, _csv_line(row.values()), append=True)
        if self.json_file:
            _write(self.json_file, _json_line(row), append=True)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the files, unless they were written line by line.

        Args:
            facts: about the model and the run, for the JSON document.
        """
        if self.live:
            return
        if self.csv_file:
            lines = [_csv_line(COLUMNS), *(_csv_line(row.values()) for row in self.rows)]
            _write(self.csv_file, "".join(lines))
        if self.json_file and self._json_lines:
            _write(self.json_file, "".join(map(_json_line, self.rows)))
        elif self.json_file:
            document = {**facts, "images": self.rows}
            _write(self.json_file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(map(_cell, values))
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else value or ""


def _json_line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _earlier(file: str) -> str:
    """Return what earlier runs wrote to a file."""
    path = Path(file)
    return path.read_text(encoding="utf-8") if file != "-" and path.exists() else ""


def _write(file: str, text: str, append: bool = False) -> None:
    if file == "-":
        print(text, end="", flush=True)
    elif append:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with Path(file).open("a", encoding="utf-8", newline="") as stream:
            stream.write(text)
    else:
        atomic.write_text(file, text)
