"""Archives of public data sets: find a place that works, check its archive, unpack categories.

`obtain` runs once per data set, `category_tree` once per category.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from indad.core.checksum import read_json, sha256_file
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.public.catalogue import Entry, Place
from indad.data.public.download import check_space, download
from indad.data.public.unpack import unpack

logger = logging.getLogger("indad")


@dataclass(frozen=True)
class Download:
    """What a job needs to take a category from the archive of its data set.

    Attributes:
        record: the JSON file with the result of `obtain`, and a checksum.
        missing: the data set's categories that have not been made yet, this one included.
        folder: where archives are kept, and unpacked temporarily.
        progress: called with megabytes of the archive as it is unpacked.
    """

    record: Path
    missing: Sequence[str]
    folder: Path
    progress: Progress = ignore


def obtain(
    entry: Entry,
    mine: Sequence[Place],
    categories: Sequence[str],
    folder: Path,
    *,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Find a place that has a data set, and check its archive or folder.

    Places are tried in this order: an archive in ``folder``, put there by hand or by an earlier
    run; the places of the configuration; those of the catalogue.

    Args:
        entry: the data set.
        mine: the places of the configuration.
        categories: the categories that are needed.
        folder: where downloaded archives are kept.
        progress: called with megabytes of a download.

    Returns:
        ``from`` (the place), ``path`` (of the archive or folder), ``sha256`` (of the archive, or
        None), ``verified`` (whether the expected hash is known), and ``size`` and ``time`` (of
        modification) of the archive.

    Raises:
        DataError: no place works. The message lists the reason of each, and how to get the files
            by hand.
    """
    by_hand = Place(str(folder / entry.file), mine=True)
    reasons = []
    with _locked(folder):
        placed = [by_hand] if (folder / entry.file).exists() else []
        for place in (*placed, *mine, *entry.places):
            try:
                found = _try(entry, place, categories, folder, progress)
            except (DataError, OSError) as error:
                reasons.append(f"{place.label}: {error}")
                logger.info("%s", reasons[-1])
            else:
                logger.info("%s: using %s", entry.name, place.address)
                return {"from": place.address, **found}
    tried = "".join(f"\n  - {reason}" for reason in reasons) or "\n  - no address is known"
    checked = f" (sha256 {entry.sha256})" if entry.sha256 else ""
    raise DataError(
        f"{entry.name}: could not get {entry.title}; tried in this order:{tried}\n"
        f"To get it by hand: download {entry.file}{checked} from {entry.homepage} and put it into "
        f"{folder.absolute()}, or name an archive, a folder or an address of your own:\n"
        f"  datasets: {{{entry.name}: {{source: {entry.name}, mirrors: [/data/{entry.file}]}}}}\n"
        f"A folder must contain {entry.layout.picture}, for {', '.join(categories)}."
    )


def _try(
    entry: Entry, place: Place, categories: Sequence[str], folder: Path, progress: Progress
) -> dict[str, Any]:
    expected = place.sha256 or entry.sha256
    path = place.path
    if path is None:
        usual = expected == entry.sha256
        path = folder / (entry.file if usual else f"{place.sha256}-{entry.file}")
        if usual and entry.size:
            check_space(folder, entry.size)
        if usual or not path.is_file():
            download(place.address, path, sha256=expected, progress=progress)
    elif path.is_dir():
        for category in categories:
            entry.layout.root(path, category)
        return {"path": str(path), "sha256": None, "verified": False}
    elif not path.is_file():
        raise DataError("no such file or folder")
    found = sha256_file(path)
    if expected not in (None, found):
        raise DataError(
            f"its sha256 is {found}, not {expected}. To use it anyway, configure it as "
            f"{{from: {place.address}, sha256: ...}}"
        )
    if expected is None:
        logger.warning(
            "%s: the expected sha256 of %s is not known, its own is %s; to have it checked from "
            "now on, configure it as {from: %s, sha256: %s}",
            *(entry.name, path, found, place.address, found),
        )
    return {"path": str(path), "sha256": found, "verified": expected is not None, **_stamp(path)}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder for archives, and keep other jobs and workflows out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be used for downloads ({error.strerror}); set 'downloads' to a "
            "folder on a file system that can be written and has locks"
        ) from None
    with lock:
        yield


@contextlib.contextmanager
def category_tree(entry: Entry, category: str, settings: Download) -> Iterator[Path]:
    """Provide a folder with a category's files in the data set's own layout.

    A compressed archive can only be read from its beginning. So the first job unpacks all missing
    categories, and the other jobs find theirs unpacked.

    Args:
        entry: the data set.
        category: the category.
        settings: where its archive is, and what to unpack from it.

    Raises:
        DataError: the archive is missing, was changed, is damaged or unsafe.
        StoreError: the record is missing or damaged.
    """
    found = read_json(settings.record)
    path = Path(found["path"])
    if found["sha256"] is None:
        yield path
        return
    unpacked = settings.folder / f"unpacked-{found['sha256'][:12]}"
    with _locked(settings.folder):
        if not (unpacked / category).is_dir():
            if not path.is_file() or _stamp(path) != {key: found[key] for key in ("size", "time")}:
                raise DataError(
                    f"{path}: the archive was removed or changed since it was checked; delete "
                    f"{settings.record} and run again"
                )
            rest = [each for each in settings.missing if not (unpacked / each).is_dir()]
            _unpack_categories(entry, path, rest, unpacked, settings.progress)
        try:
            yield unpacked / category
        finally:
            shutil.rmtree(unpacked / category, ignore_errors=True)
            with contextlib.suppress(OSError):
                unpacked.rmdir()  # if it is empty


def _unpack_categories(
    entry: Entry, archive: Path, categories: Sequence[str], unpacked: Path, progress: Progress
) -> None:
    """Unpack categories below ``unpacked``; each one appears complete or not at all."""
    unpacked.mkdir(exist_ok=True)
    for stale in unpacked.glob(".tmp*"):  # left by a killed job: this one has the lock
        shutil.rmtree(stale)
    # An estimate: images hardly shrink in an archive.
    share = len(categories) / len(entry.categories)
    check_space(unpacked, round(archive.stat().st_size * share))
    with tempfile.TemporaryDirectory(dir=unpacked, prefix=".tmp") as temporary:
        folders = {category: Path(temporary, category) for category in categories}
        for each in folders.values():
            each.mkdir()
        unpack(archive, folders, entry.layout.wants, progress)
        for category, each in folders.items():
            each.replace(unpacked / category)


def _stamp(archive: Path) -> dict[str, int]:
    """Return what identifies an archive without reading it."""
    status = archive.stat()
    return {"size": status.st_size, "time": status.st_mtime_ns}
