"""The public data sets that can be downloaded, as listed in ``resources/datasets.yaml``."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

from indad.core.errors import DataError
from indad.core.paths import project_root
from indad.data.public.layouts import LAYOUTS, Layout


@dataclass(frozen=True)
class Place:
    """A place that may have a data set.

    Attributes:
        address: an http(s) URL, or the path of an archive or a folder.
        sha256: SHA-256 of its archive, if that is not the data set's usual archive.
        confirmed: whether this project has seen the address work.
        mine: whether the place is from the configuration, not from the catalogue.
    """

    address: str
    sha256: str | None = None
    confirmed: bool = False
    mine: bool = False

    @classmethod
    def of(cls, value: str | Mapping[str, Any], *, mine: bool = False) -> Self:
        """Read an address, or ``{from, sha256, confirmed}``."""
        if isinstance(value, str):
            return cls(value, mine=mine)
        return cls(value["from"], value.get("sha256"), bool(value.get("confirmed")), mine)

    @property
    def path(self) -> Path | None:
        """The path; None for a URL."""
        return None if "://" in self.address else Path(self.address).expanduser().absolute()

    @property
    def label(self) -> str:
        """The address for messages, with ``confirmed`` or ``unconfirmed`` for the catalogue's."""
        if self.mine:
            return self.address
        return f"{self.address} ({'confirmed' if self.confirmed else 'unconfirmed'})"


@dataclass(frozen=True)
class Entry:
    """A public data set. ``resources/datasets.yaml`` describes the fields."""

    name: str
    title: str
    layout: Layout
    categories: tuple[str, ...]
    licence: str
    homepage: str
    citation: str
    file: str
    sha256: str | None
    size: int | None
    confirmed: bool
    places: tuple[Place, ...]
    groups: Mapping[str, tuple[str, ...]]
    resize: tuple[int, int] | None
    metrics: tuple[str, ...]

    @property
    def credit(self) -> str:
        """Who made the data, and under which licence."""
        return f"{self.citation}, {self.homepage} ({self.licence})"

    def in_own_layout(self, folder: Path) -> list[str]:
        """Return the categories that a folder has in the data set's own layout.

        None if that is MVTec AD's layout and they are directly in the folder: then it is read as it
        is.
        """
        found = []
        for category in self.categories:
            with contextlib.suppress(DataError, OSError):
                if self.layout.root(folder, category) != folder or not self.layout.native:
                    found.append(category)
        return found


@cache
def load() -> dict[str, Entry]:
    """Read the catalogue."""
    path = project_root() / "resources" / "datasets.yaml"
    return {
        name: Entry(
            name=name,
            title=entry["title"],
            layout=LAYOUTS[entry["layout"]],
            categories=tuple(entry["categories"]),
            licence=entry["licence"],
            homepage=entry["homepage"],
            citation=entry["citation"].strip(),
            places=tuple(Place.of(each) for each in entry["sources"]),
            resize=tuple(entry["resize"]) if "resize" in entry else None,
            metrics=tuple(entry.get("metrics", ())),
            groups={name: tuple(each) for name, each in entry.get("groups", {}).items()},
            **entry["archive"],
        )
        for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items()
    }
