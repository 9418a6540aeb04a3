"""Fetch one category of a source into a folder in MVTec AD layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indad.core import atomic
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.public import archives, sources
from indad.data.public.catalogue import Entry


@dataclass(frozen=True)
class Download:
    """Settings that a public data set needs besides the category.

    Attributes:
        record: the file with the result of ``indad.data.public.archives.obtain``.
        missing: the data set's categories that have not been made yet.
        folder: where archives are kept.
        progress: called with megabytes of the archive as it is unpacked.
    """

    record: Path
    missing: Sequence[str]
    folder: Path
    progress: Progress = ignore


def fetch(
    folder: Path,
    receipt: Path,
    *,
    source: str,
    category: str,
    options: Mapping[str, Any],
    download: Download | None = None,
    progress: Progress = ignore,
) -> None:
    """Make a category in ``folder``, which appears complete or not at all, then its receipt.

    The receipt (JSON) says what was made, with which options, and who deserves credit.

    Args:
        folder: the category folder.
        receipt: the file to write last.
        source: a name in ``sources.SOURCES``.
        category: one of the source's categories.
        options: all options of the source.
        download: needed for a public data set.
        progress: called with the number of files done and in total.

    Raises:
        DataError: the data are missing or damaged, or cannot be laid out.
    """
    chosen = sources.get(source)
    origin: dict[str, Any] = {}
    with atomic.replacing(folder) as temporary:
        temporary.mkdir()
        if chosen.make is not None:
            chosen.make(temporary, category, **options, progress=progress)
        else:
            assert chosen.entry is not None
            assert download is not None
            origin = _place(chosen.entry, temporary, category, options, download, progress)
    atomic.write_json(
        receipt,
        {
            "source": source,
            "category": category,
            "options": dict(options),
            "credit": chosen.credit,
            "files": sum(path.is_file() for path in folder.rglob("*")),
            **origin,
        },
    )


def _place(
    entry: Entry,
    folder: Path,
    category: str,
    options: Mapping[str, Any],
    download: Download,
    progress: Progress,
) -> dict[str, Any]:
    """Lay out a category of a public data set, and return where it is from."""
    found = archives.read_record(download.record)
    with archives.category_tree(
        entry, download.record, category, download.missing, download.folder, download.progress
    ) as tree:
        try:
            entry.layout.place(tree, folder, category, options, progress)
        except DataError as error:
            raise DataError(
                f"{entry.name}, from {found['from']}: {error}. If the data are somewhere else now, "
                f"delete {download.record} and run again"
            ) from None
    return {key: found[key] for key in ("from", "sha256", "verified")}
