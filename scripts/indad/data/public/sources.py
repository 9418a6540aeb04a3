"""Sources: data sets that are not a folder of the user's, but are made or downloaded.

A source writes one category in MVTec AD layout. It either makes the data with a function, listed in
``SOURCES``, or takes them from a public data set of ``resources/datasets.yaml``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indad.core import atomic, checksum
from indad.core.errors import ConfigError, DataError
from indad.core.progress import Progress, ignore
from indad.data import synthetic
from indad.data.public import archives, catalogue, elpv


@dataclass(frozen=True)
class Source:
    """A source of a data set's categories.

    Attributes:
        make: ``make(folder, category, *, options..., progress)`` fills ``folder``; None for a
            public data set.
        categories: the categories that it has.
        credit: who made the data, and under which licence.
        entry: the public data set; None if the data are made.
    """

    make: Callable[..., None] | None
    categories: tuple[str, ...]
    credit: str
    entry: catalogue.Entry | None = None

    @property
    def options(self) -> dict[str, int]:
        """The source's options with their defaults: keyword-only parameters of its function."""
        function = self.make or self.entry.layout.items
        parameters = inspect.signature(function).parameters.values()
        return {
            each.name: each.default
            for each in parameters
            if each.kind is each.KEYWORD_ONLY and each.name != "progress"
        }


def get(name: str, key: str = "source") -> Source:
    """Return a source.

    Raises:
        ConfigError: the name is unknown; ``key`` is the configuration key that the message names.
    """
    if name not in SOURCES:
        raise ConfigError(f"{key}: {name!r} is unknown; sources are {', '.join(SOURCES)}")
    return SOURCES[name]


def check_options(name: str, options: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a source's options with defaults filled in.

    Raises:
        ConfigError: an option is unknown or not a whole number of at least 0.
    """
    known = get(name).options
    for option, value in options.items():
        if option not in known:
            raise ConfigError(f"{key}.{option}: unknown; {name} has {', '.join(known) or 'none'}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{key}.{option}: must be a whole number >= 0, got {value!r}")
    return known | dict(options)


def fetch(
    folder: Path,
    receipt: Path,
    *,
    source: str,
    category: str,
    options: Mapping[str, Any],
    download: archives.Download | None = None,
    progress: Progress = ignore,
) -> None:
    """Make a category in ``folder``, which appears complete or not at all, then its receipt.

    The receipt (JSON) says what was made, with which options, and who deserves credit.

    Args:
        folder: the category folder.
        receipt: the file to write last.
        source: a name in ``SOURCES``.
        category: one of the source's categories.
        options: all options of the source.
        download: needed for a public data set.
        progress: called with the number of files done and in total.

    Raises:
        DataError: the data are missing or damaged, or cannot be laid out.
        StoreError: the record of the archive is missing or damaged.
    """
    chosen = get(source)
    origin: dict[str, Any] = {}
    with atomic.replacing(folder) as temporary:
        temporary.mkdir()
        if chosen.make is not None:
            chosen.make(temporary, category, **options, progress=progress)
        else:
            found = checksum.read_json(download.record)
            origin = {key: found[key] for key in ("from", "sha256", "verified")}
            with archives.category_tree(chosen.entry, category, download) as tree:
                try:
                    chosen.entry.layout.place(tree, temporary, category, options, progress)
                except DataError as error:
                    raise DataError(
                        f"{source}, from {found['from']}: {error}. If the data are somewhere else "
                        f"now, delete {download.record} and run again"
                    ) from None
    content = {
        "source": source,
        "category": category,
        "options": dict(options),
        "credit": chosen.credit,
        "files": sum(path.is_file() for path in folder.rglob("*")),
    }
    atomic.write_json(receipt, content | origin)


SOURCES = {
    "drawn": Source(
        synthetic.draw_category, tuple(synthetic.MATERIALS), "drawn by indad (MIT licence)"
    ),
    "elpv": Source(elpv.make_elpv, elpv.CATEGORIES, elpv.CREDIT),
    **{
        name: Source(None, entry.categories, entry.credit, entry)
        for name, entry in catalogue.load().items()
    },
}
