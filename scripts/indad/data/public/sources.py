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
from indad.data.public.catalogue import Entry


@dataclass(frozen=True)
class Made:
    """A source whose data are made.

    Attributes:
        make: ``make(folder, category, *, options..., progress)`` fills ``folder``.
        categories: the categories that it has.
        credit: who made the data, and under which licence.
    """

    make: Callable[..., None]
    categories: tuple[str, ...]
    credit: str


def get(name: str, key: str = "source") -> Made | Entry:
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
    source = get(name)
    # The options are the keyword-only parameters of the source's function.
    function = source.make if isinstance(source, Made) else source.layout.items
    known = {
        each.name: each.default
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name != "progress"
    }
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
        if isinstance(chosen, Made):
            chosen.make(temporary, category, **options, progress=progress)
        else:
            found = checksum.read_json(download.record)
            origin = {key: found[key] for key in ("from", "sha256", "verified")}
            with archives.category_tree(chosen, category, download) as tree:
                try:
                    chosen.layout.place(tree, temporary, category, options, progress)
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


SOURCES: dict[str, Made | Entry] = {
    "drawn": Made(
        synthetic.draw_category, tuple(synthetic.MATERIALS), "drawn by indad (MIT licence)"
    ),
    "elpv": Made(elpv.make_elpv, elpv.CATEGORIES, elpv.CREDIT),
    **catalogue.load(),
}
