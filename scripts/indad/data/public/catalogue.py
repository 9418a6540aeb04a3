"""Public data sets: from the places that may hold one to a folder with a category's files.

``resources/datasets.yaml`` says what there is. `obtain` finds a place that works and checks what
it gives, once per data set; `category_tree` then serves one category from it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from indad.data.public import unpack
from indad.core.errors import DataError
from indad.data.public.layouts import LAYOUTS, Layout
from indad.core.progress import Progress, ignore
from indad.data.public.download import PATIENCE, Patience, check_space, download, sha256_of

logger = logging.getLogger("indad")

CATALOGUE = Path(__file__).resolve().parents[4] / "resources" / "datasets.yaml"


@dataclass(frozen=True)
class Place:
    """Where a data set may lie.

    Attributes:
        address: an http(s) URL, or the path of an archive or of a folder.
        sha256: what the archive hashes to, where that is not the data set's usual archive.
        confirmed: whether this project has seen the address work.
        mine: whether the configuration names it, not the catalogue.
    """

    address: str
    sha256: str | None = None
    confirmed: bool = False
    mine: bool = False

    @classmethod
    def of(cls, value: str | Mapping[str, Any], *, mine: bool = False) -> Place:
        """Read an address, or ``{from, sha256, confirmed}``."""
        if isinstance(value, str):
            return cls(value, mine=mine)
        return cls(value["from"], value.get("sha256"), bool(value.get("confirmed")), mine)

    @property
    def path(self) -> Path | None:
        """The path; None for a URL."""
        return None if "://" in self.address else Path(self.address).expanduser().absolute()


@dataclass(frozen=True)
class Entry:
    """A public data set of the catalogue: see the head of ``resources/datasets.yaml``."""

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
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def credit(self) -> str:
        """Who made the data, and under which licence."""
        return f"{self.citation}, {self.homepage} ({self.licence})"


@cache
def load(path: Path = CATALOGUE) -> dict[str, Entry]:
    """Read the catalogue."""
    entries = {}
    for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        archive = entry["archive"]
        entries[name] = Entry(
            name=name,
            title=entry["title"],
            layout=LAYOUTS[entry["layout"]],
            categories=tuple(entry["categories"]),
            licence=entry["licence"],
            homepage=entry["homepage"],
            citation=entry["citation"].strip(),
            file=archive["file"],
            sha256=archive["sha256"],
            size=archive["size"],
            confirmed=archive["confirmed"],
            places=tuple(Place.of(each) for each in entry["sources"]),
            groups={name: tuple(each) for name, each in entry.get("groups", {}).items()},
        )
    return entries


def obtain(
    entry: Entry,
    mine: Sequence[Place],
    categories: Sequence[str],
    folder: Path,
    *,
    patience: Patience = PATIENCE,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Find a place that has the data set, and check what it gives.

    Tried in order: an archive in ``folder``, placed by hand or left by an earlier run; the places
    of the configuration; those of the catalogue.

    Args:
        entry: the data set.
        mine: the places of the configuration.
        categories: what is wanted of it.
        folder: where downloaded archives are kept.
        patience: when to give a server up.
        progress: called with megabytes of a download.

    Returns:
        ``from`` (the place), ``path`` (of the archive or folder), ``sha256`` (of the archive, or
        None), ``verified`` (whether there was a hash to compare it with), and ``size`` and
        ``time`` (of modification) of the archive.

    Raises:
        DataError: none works; lists each with its reason, and how to place the files by hand.
    """
    by_hand = Place(str(folder / entry.file), mine=True)
    reasons = []
    with locked(folder):
        placed = [by_hand] if (folder / entry.file).exists() else []
        for place in (*placed, *mine, *entry.places):
            try:
                found = _try(entry, place, categories, folder, patience, progress)
            except (DataError, OSError) as error:
                reasons.append(f"{_label(place)}: {error}")
                logger.info("%s", reasons[-1])
            else:
                logger.info("%s: taken from %s", entry.name, place.address)
                return {"from": place.address, **found}
    raise DataError(_by_hand(entry, reasons, categories, folder))


def _try(
    entry: Entry,
    place: Place,
    categories: Sequence[str],
    folder: Path,
    patience: Patience,
    progress: Progress,
) -> dict[str, Any]:
    expected = place.sha256 or entry.sha256
    path = place.path
    if path is None:
        usual = expected == entry.sha256
        path = folder / (entry.file if usual else f"{place.sha256}-{entry.file}")
        if usual and entry.size:
            check_space(folder, entry.size)
        if usual or not path.is_file():
            download(place.address, path, sha256=expected, patience=patience, progress=progress)
    elif path.is_dir():
        for category in categories:
            entry.layout.root(path, category)
        return {"path": str(path), "sha256": None, "verified": False}
    elif not path.is_file():
        raise DataError("there is no such file or folder")
    found = sha256_of(path)
    if expected not in (None, found):
        raise DataError(
            f"its sha256 is {found}, not {expected}. To use it all the same, name it as "
            f"{{from: {place.address}, sha256: ...}}"
        )
    if expected is None:
        logger.warning(
            "%s: no sha256 is known for %s, its own is %s; to have it checked from now on, name "
            "it as {from: %s, sha256: %s}",
            *(entry.name, path, found, place.address, found),
        )
    return {
        "path": str(path),
        "sha256": found,
        "verified": expected is not None,
        **_stamp(path),
    }


def _label(place: Place) -> str:
    if place.mine:
        return place.address
    return f"{place.address} ({'confirmed' if place.confirmed else 'unconfirmed'})"


def _by_hand(entry: Entry, reasons: Sequence[str], categories: Sequence[str], folder: Path) -> str:
    tried = "".join(f"\n  - {reason}" for reason in reasons) or "\n  - no place is known"
    checked = f" (sha256 {entry.sha256})" if entry.sha256 else ""
    return (
        f"{entry.name}: {entry.title} could not be had; tried in this order:{tried}\n"
        f"To place it by hand: get {entry.file}{checked} from {entry.homepage} and put it into "
        f"{folder.absolute()}, or name an archive, a folder or an address of yours:\n"
        f"  datasets: {{{entry.name}: {{source: {entry.name}, mirrors: [/data/{entry.file}]}}}}\n"
        f"A folder holds {entry.layout.picture}, for {', '.join(categories)}."
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder of archives, and keep other jobs and workflows out of it.

    Raises:
        DataError: it cannot be made or written to.
    """
    from filelock import FileLock

    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(f"{folder}: cannot be used for downloads ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def category_tree(
    entry: Entry,
    record: Path,
    category: str,
    missing: Sequence[str],
    folder: Path,
    progress: Progress = ignore,
) -> Iterator[Path]:
    """Give a folder with a category's files in the data set's own layout.

    A compressed archive can only be read through as a whole, so the first job unpacks all that is
    missing, and the others find theirs done.

    Args:
        entry: the data set.
        record: the file (JSON) with what `obtain` returned.
        category: the category.
        missing: all categories that are still to be made, this one included.
        folder: where archives are kept, and unpacked for a while.
        progress: called with megabytes of the archive.

    Raises:
        DataError: the archive is gone, another one, damaged or unsafe.
    """
    found = read_record(record)
    path = Path(found["path"])
    if found["sha256"] is None:
        yield path
        return
    unpacked = folder / f"unpacked-{found['sha256'][:12]}"
    with locked(folder):
        if not (unpacked / category).is_dir():
            if not path.is_file() or _stamp(path) != {key: found[key] for key in ("size", "time")}:
                raise DataError(
                    f"{path}: the archive that was checked is gone or was changed; delete "
                    f"{record} and run again"
                )
            rest = [each for each in missing if not (unpacked / each).is_dir()]
            _unpack(entry, path, rest, unpacked, progress)
        try:
            yield unpacked / category
        finally:
            shutil.rmtree(unpacked / category, ignore_errors=True)
            with contextlib.suppress(OSError):
                unpacked.rmdir()  # once it is empty


def _unpack(
    entry: Entry, archive: Path, categories: Sequence[str], unpacked: Path, progress: Progress
) -> None:
    """Unpack categories below ``unpacked``; each appears whole or not at all."""
    unpacked.mkdir(exist_ok=True)
    for stale in unpacked.glob(".tmp*"):  # of a killed job: whoever is here has the lock
        shutil.rmtree(stale)
    # Images hardly shrink in an archive, so about this much will come out.
    share = len(categories) / len(entry.categories)
    check_space(unpacked, round(archive.stat().st_size * share))
    with tempfile.TemporaryDirectory(dir=unpacked, prefix=".tmp") as temporary:
        folders = {category: Path(temporary, category) for category in categories}
        for each in folders.values():
            each.mkdir()
        unpack.unpack(archive, folders, entry.layout.wants, progress)
        for category, each in folders.items():
            each.replace(unpacked / category)


def _stamp(archive: Path) -> dict[str, int]:
    """Return what tells, without reading it, whether an archive is still the same."""
    status = archive.stat()
    return {"size": status.st_size, "time": status.st_mtime_ns}


def read_record(path: Path) -> dict[str, Any]:
    """Read what `obtain` returned, as written to ``path``.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        strings = [found["from"], found["path"], found["sha256"] or ""]
        numbers = [found["size"], found["time"], 0] if found["sha256"] else [0]
        sound = all(isinstance(each, str) for each in strings) and all(
            isinstance(each, int) for each in [*numbers, found["verified"]]
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged record ({error}); delete it and run again") from None
    if not sound:
        raise DataError(f"{path}: damaged record; delete it and run again")
    return found
