"""Where a data set comes from when it is not a folder of the user's.

A source writes one category in MVTec AD layout into an empty folder. Either it makes the data: a
function and a line in ``SOURCES``. Or it takes them from elsewhere: an entry of
``resources/datasets.yaml`` (see ``indad.data.public.catalogue``).
"""

from __future__ import annotations

import csv
import inspect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from indad.core import atomic
from indad.data.public import catalogue
from indad.core.errors import ConfigError, DataError
from indad.core.progress import Progress, ignore


@dataclass(frozen=True)
class Source:
    """A way to make the categories of a data set.

    Attributes:
        make: ``make(folder, category, *, options..., progress)``; fills ``folder``. None where
            the data are taken from elsewhere.
        categories: the categories it can make.
        credit: who made the data, and under which licence.
        entry: the public data set, where it is one.
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
        parameters = inspect.signature(self.make).parameters.values()
        return {
            each.name: each.default
            for each in parameters
            if each.kind is each.KEYWORD_ONLY and each.name != "progress"
        }


def get(name: str, key: str = "source") -> Source:
    """Return a source.

    Raises:
        ConfigError: there is none of that name; ``key`` is the configuration key to blame.
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


@dataclass(frozen=True)
class Download:
    """What a source that takes data from elsewhere needs to know beside the category.

    Attributes:
        record: the file with what ``indad.data.public.catalogue.obtain`` found.
        missing: the data set's categories that are still to be made.
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
    """Make a category in ``folder``, which appears whole or not at all, then its receipt.

    The receipt (JSON) says what was asked for, from whom, and that it is finished.

    Raises:
        DataError: the data are not what they should be.
    """
    chosen = get(source)
    origin = {}
    with atomic.replacing(folder) as temporary:
        temporary.mkdir()
        if chosen.make is not None:
            chosen.make(temporary, category, **options, progress=progress)
        else:
            assert chosen.entry is not None
            assert download is not None
            found = catalogue.read_record(download.record)
            origin = {key: found[key] for key in ("from", "sha256", "verified")}
            with catalogue.category_tree(
                chosen.entry,
                download.record,
                category,
                download.missing,
                download.folder,
                download.progress,
            ) as tree:
                try:
                    chosen.entry.layout.place(tree, temporary, category, options, progress)
                except DataError as error:
                    raise DataError(
                        f"{source}, from {found['from']}: {error}. If the data lie elsewhere now, "
                        f"delete {download.record} and run again"
                    ) from None
    files = sum(path.is_file() for path in folder.rglob("*"))
    atomic.write_json(
        receipt,
        {
            "source": source,
            "category": category,
            "options": dict(options),
            "credit": chosen.credit,
            "files": files,
            **origin,
        },
    )


def read_receipt(path: Path) -> dict[str, Any]:
    """Read what ``fetch`` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged receipt ({error}); delete it and run again") from None
    if not isinstance(found, dict) or not {"source", "category", "files"} <= set(found):
        raise DataError(f"{path}: damaged receipt; delete it and run again")
    return found


def make_drawn(
    folder: Path,
    category: str,
    *,
    train: int = 60,
    good: int = 20,
    per_defect: int = 10,
    size: int = 256,
    seed: int = 0,
    progress: Progress = ignore,
) -> None:
    """Draw textures with exact defect masks (see ``indad.data.synthetic``)."""
    from indad.data.synthetic import draw_category

    draw_category(
        folder,
        category,
        train=train,
        good=good,
        per_defect=per_defect,
        size=size,
        seed=seed,
        progress=progress,
    )


ELPV_PACKAGE = "elpv-dataset"
#: Defect grades of the solar cells: the experts' probability, in percent, as a defect's name.
ELPV_GRADES = ("defect_033", "defect_067", "defect_100")


def make_elpv(
    folder: Path,
    category: str,
    *,
    train: int = 400,
    good: int = 200,
    per_defect: int = 400,
    seed: int = 0,
    progress: Progress = ignore,
) -> None:
    """Lay out the ELPV solar cells of one type (mono or poly) from the installed package.

    Cells graded 0 are good; ``train`` of them, drawn with ``seed``, are for training, up to
    ``good`` others for testing, and up to ``per_defect`` cells of each defect grade. There are no
    masks.

    Raises:
        DataError: the package is not installed, or has too few good cells.
    """
    root = _elpv_folder()
    rows = _elpv_rows(root / "labels.csv", category)
    rng = np.random.default_rng(seed)
    grades = _by_grade(rows)
    shuffled = {grade: rng.permutation(sorted(paths)).tolist() for grade, paths in grades.items()}
    cells = shuffled.pop("good")
    if len(cells) <= train:
        raise DataError(
            f"elpv {category}: {len(cells)} good cells, too few for {train} training images and a "
            "test; choose a smaller option 'train'"
        )
    jobs = [(path, "train/good") for path in cells[:train]]
    jobs += [(path, "test/good") for path in cells[train : train + good]]
    for grade, paths in shuffled.items():
        jobs += [(path, f"test/{grade}") for path in paths[:per_defect]]
    for done, (path, place) in enumerate(jobs, 1):
        target = folder / place / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
        progress(done, len(jobs))


def _by_grade(rows: list[tuple[str, str]]) -> dict[str, list[str]]:
    grades: dict[str, list[str]] = {"good": [], **{grade: [] for grade in ELPV_GRADES}}
    for path, grade in rows:
        grades[grade].append(path)
    return grades


def _elpv_folder() -> Path:
    try:
        package = metadata.distribution(ELPV_PACKAGE)
    except metadata.PackageNotFoundError:
        raise DataError(
            f"the pip package {ELPV_PACKAGE}, which holds the solar-cell photos, is not "
            f"installed: pip install {ELPV_PACKAGE}"
        ) from None
    return Path(str(package.locate_file("elpv_dataset/data")))


def _elpv_rows(labels: Path, category: str) -> list[tuple[str, str]]:
    """Read ``(image path, grade)`` of all cells of a type."""
    rows = []
    with labels.open(newline="") as file:
        for path, probability, kind in csv.reader(
            (" ".join(line.split()) for line in file), delimiter=" "
        ):
            if kind == category:
                percent = round(100 * float(probability))
                rows.append((path, f"defect_{percent:03d}" if percent else "good"))
    return rows


SOURCES = {
    "drawn": Source(
        make_drawn, ("wood", "fabric", "metal", "tile"), "drawn by indad (MIT licence)"
    ),
    "elpv": Source(
        make_elpv,
        ("mono", "poly"),
        "ELPV solar cells, Buerhop-Lutz, Deitsch et al., 2018, "
        "https://github.com/zae-bayern/elpv-dataset (CC BY-NC-SA 4.0)",
    ),
    **{
        name: Source(None, entry.categories, entry.credit, entry)
        for name, entry in catalogue.load().items()
    },
}
