"""Write the results of scored images as CSV and JSON files, a row for each image as it comes."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from indad.core.errors import ConfigError, DataError
from indad.core.names import printable
from indad.inference.result import Failure, FileState, Result

#: Columns of the CSV file, and fields of an image in the JSON file.
COLUMNS = (*("image", "score", "threshold", "anomalous", "seconds", "bytes", "modified", "error"),)

Row = dict[str, Any]


def as_row(result: Result | Failure) -> Row:
    """Return a result as a row of ``COLUMNS``; names are `printable`."""
    row = {name: getattr(result, name, None) for name in COLUMNS}
    row["bytes"], row["modified"] = result.state or (None, None)
    row["image"] = None if result.image is None else printable(result.image)
    row["error"] = printable(str(result.error)) if isinstance(result, Failure) else None
    return row


class ResultTables:
    """The CSV and JSON files of one command.

    Each row is written when it is added, so that an interrupted command leaves the rows of all
    images that it has scored. If a row cannot be written, for example on a full disk, it is kept
    and written with a later one. The file name ``-`` is standard output.

    Args:
        csv_file: path of the CSV file, or None.
        json_file: path of the JSON file, or None; one line per image if it ends in ``.jsonl``,
            otherwise a document that `finish` completes.
        live: append to the rows of earlier runs, for a watched folder.

    Attributes:
        done: the images in the files of earlier runs, by their resolved path, with the state that
            was scored.

    Raises:
        ConfigError: a file cannot be written, or ``live`` needs a JSON file with lines.
        DataError: an existing file has another content than a table of this class.
    """

    def __init__(self, csv_file: str | None, json_file: str | None, live: bool) -> None:
        self.done: dict[str, FileState] = {}
        self._lines = (json_file or "").endswith(".jsonl") or (live and json_file == "-")
        self._first = True
        if live and json_file and not self._lines:
            raise ConfigError(
                "--watch: a JSON file that grows has one line per image: name it *.jsonl"
            )
        if csv_file and json_file and os.path.realpath(csv_file) == os.path.realpath(json_file):
            raise ConfigError(f"--csv and --json: both are {csv_file}; name two files")
        self._live = live
        self._csv = _Sink(csv_file, "--csv") if csv_file else None
        self._json = _Sink(json_file, "--json") if json_file else None
        self._sinks = [sink for sink in (self._csv, self._json) if sink]
        if live and self._csv and (text := self._csv.complete_lines()):
            reader = csv.DictReader(io.StringIO(text, newline=""))
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(
                    f"{csv_file}: exists and is not a table of this command, or of an earlier "
                    "version; name another file"
                )
            self._add_done(reader)
        if live and self._json and (text := self._json.complete_lines()):
            try:
                self._add_done(map(json.loads, text.splitlines()))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{json_file}: exists and is not a table of this command ({error}); name "
                    "another file"
                ) from None

    def _add_done(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            path = str(Path(row["image"]).resolve())
            # The last row of a file counts: it may have been replaced.
            self.done[path] = FileState(int(row["bytes"] or 0), row["modified"])

    def begin(self) -> None:
        """Empty the files, unless rows are appended, and write their beginning."""
        for sink in self._sinks:
            sink.begin(append=self._live)
        if self._csv and self._csv.is_empty():
            self._csv.write(_csv_line(COLUMNS))
        if self._json and not self._lines:
            self._json.write('{\n  "images": [')

    def add(self, row: Row) -> None:
        """Write a row.

        Raises:
            BrokenPipeError: the reader of standard output has gone.
        """
        if self._csv:
            self._csv.write(_csv_line(row.values()))
        if self._json:
            text = json.dumps(row, ensure_ascii=False)
            if self._lines:
                self._json.write(text + "\n")
            else:
                self._json.write(f"{'' if self._first else ','}\n    {text}")
        self._first = False

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Complete the files.

        Args:
            facts: about the model and the run, for the JSON document.
        """
        if self._json and not self._lines:
            text = json.dumps(facts, indent=2, ensure_ascii=False).removeprefix("{\n")
            self._json.write(f"\n  ],\n{text}\n")

    def problems(self) -> set[str]:
        """Return why rows could not be written so far."""
        return {sink.problem for sink in self._sinks if sink.problem}

    def discard(self) -> None:
        """Remove files that were created and are still empty."""
        for sink in self._sinks:
            sink.discard()


class _Sink:
    """A file that is written piece by piece, or standard output.

    Attributes:
        problem: why the last piece could not be written; "" if it was.
    """

    def __init__(self, name: str, option: str) -> None:
        self.name, self.problem, self._pending, self._kept = name, "", b"", 0
        self._path = None if name == "-" else Path(name).expanduser()
        self._created = self._path is not None and not self._path.exists()
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"{option} {name}: cannot be written ({error.strerror}); name a file in a folder "
                "that you may write to"
            ) from None

    def _regular(self) -> bool:
        return self._path is not None and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def is_empty(self) -> bool:
        """Tell whether nothing has been written, by this or an earlier run."""
        return not self._regular() or os.fstat(self._file.fileno()).st_size == 0

    def complete_lines(self) -> str:
        """Return the lines of earlier runs, without a last one that is not complete."""
        if self._path is None or not self._regular():
            return ""
        content = self._path.read_bytes()
        self._kept = content.rfind(b"\n") + 1
        return content[: self._kept].decode(errors="replace")

    def begin(self, append: bool) -> None:
        """Remove what earlier runs wrote, or only a last line that is not complete."""
        if self._regular():
            self._file.truncate(self._kept if append else 0)

    def discard(self) -> None:
        """Remove the file if it was created here and is empty."""
        if self._created and self._path is not None and self.is_empty() and self._regular():
            self._path.unlink(missing_ok=True)

    def write(self, text: str) -> None:
        """Write a text after those that could not be written before."""
        if self._path is None:
            print(text, end="", flush=True)
            return
        self._pending += text.encode(errors="backslashreplace")
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) :]
            self.problem = ""
        except OSError as error:
            self.problem = f"{self.name}: cannot be written ({error.strerror})"


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(map(_cell, values))
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else "" if value is None else str(value)
