"""Sources: data sets that are not a folder of the user's, but are made or downloaded.

A source writes one category in MVTec AD layout. It either makes the data with a function, listed in
``SOURCES``, or takes them from a public data set of ``resources/datasets.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from indad.core.errors import ConfigError
from indad.data import synthetic
from indad.data.public import catalogue, elpv
from indad.data.public.layouts import keyword_options


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
        """The source's options with their defaults."""
        if self.entry is not None:
            return self.entry.layout.options
        assert self.make is not None
        return keyword_options(self.make)


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
