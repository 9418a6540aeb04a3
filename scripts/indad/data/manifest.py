"""The manifest: what is in a category, one row an image, and everything that is wrong with it.

A category folder is laid out as in MVTec AD, or as its data set's options say
(``indad.data.folder_layout``)::

    train/good/*.png
    test/good/*.png   test/<defect>/*.png
    ground_truth/<defect>/<image name>_mask.png      (optional; without "_mask" is fine too)
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from indad.core import atomic
from indad.data import split_list
from indad.core.errors import DataError
from indad.data.images import SUFFIXES, is_turned, mask_pixels
from indad.data.images import size as image_size
from indad.core.progress import Progress, ignore
from indad.data.folder_layout import ELSEWHERE, GOOD, MASK, MISPLACED, TEST, TRAIN, File, Parts, Reading, composed, folders_named, sounds_good, walk

logger = logging.getLogger("indad")

#: Changing what a manifest holds is a new version, and re-indexes.
VERSION = 2
#: On disk every row also has the hash of the whole table, so that no row can change or go unseen.
SEAL = "table_sha256"


@dataclass(frozen=True)
class Row:
    """One image. Paths are relative to the category folder, with forward slashes."""

    image: str
    split: str
    label: int
    defect: str
    mask: str
    width: int
    height: int
    sha256: str
    mask_sha256: str


COLUMNS = tuple(each.name for each in fields(Row))


def image_files(folder: Path) -> list[Path]:
    """List the image files directly in ``folder``, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def find_categories(root: Path, reading: Reading | None = None) -> list[str]:
    """Name the categories of ``root``, sorted.

    Those are the sub-folders that have good training images, or of which a list speaks.

    Raises:
        DataError: ``root`` is missing, holds no category, or its list cannot be read.
    """
    reading = reading or Reading()
    if not root.is_dir():
        raise DataError(missing_folder(root))
    if reading.list is not None and (root / reading.list).is_file():
        return split_list.categories(root / reading.list)
    found = sorted(
        path.name
        for path in root.iterdir()
        if not path.name.startswith(".") and path.is_dir() and _holds(path, reading)
    )
    if not found:
        from indad.data.public.suggest import suggest

        raise DataError(
            f"{root.resolve()}: no category found. Each category is a sub-folder with "
            f"{reading.picture}.{suggest(root, reading)}"
        )
    return found


def is_category(folder: Path, reading: Reading | None = None) -> bool:
    """Tell whether a folder is a category rather than their parent.

    Raises:
        DataError: its list cannot be read.
    """
    reading = reading or Reading()
    found = _holds(folder, reading)
    if found and reading.list is not None:
        return not split_list.names_categories(folder / reading.list)
    return found


def _holds(folder: Path, reading: Reading) -> bool:
    if reading.list is not None:
        return (folder / reading.list).is_file()
    return bool(folders_named(folder / reading.train, reading.good))


def missing_folder(folder: Path) -> str:
    """Say that a data folder is missing, and how to get it there."""
    return (
        f"{folder.resolve()}: data folder not found. Set 'path' of the data set in the "
        "configuration (or --data-root) to a folder in MVTec AD layout, "
        "<category>/train/good/*.png and <category>/test/<defect>/*.png; MVTec AD itself is "
        "free for research at https://www.mvtec.com/company/research/datasets/mvtec-ad"
    )


def fingerprint(folder: Path, reading: Reading | None = None) -> str:
    """Hash the names, sizes and times of all files that a category is read from; "" if missing.

    Cheap enough to be taken whenever the workflow is planned, so that an added, removed or edited
    image is noticed without reading any.
    """
    reading = reading or Reading()
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in walk(folder):
        if reading.list is None and reading.place(file.parts[:-1])[0] == ELSEWHERE:
            continue
        status = file.status
        times = (status.st_size, status.st_mtime_ns) if status else file.problem
        text = "\0".join(map(str, (*file.parts, times)))
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0\n")
    listed = reading.list_file(folder)
    if listed is not None and listed.is_file():
        digest.update(listed.read_bytes())
    return digest.hexdigest()[:16]


@dataclass
class Survey:
    """What a category folder holds.

    Attributes:
        table: the manifest, of what could be indexed.
        problems: what keeps the category from being used.
        notes: what can be used, but may not be meant.
    """

    table: pd.DataFrame
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Image(NamedTuple):
    """An image found, its paths relative to the category folder."""

    path: Parts
    split: str
    defect: str
    mask: Parts | None = None


class _Finder:
    """Finds a category's images and their masks, and what is wrong with the folder."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.folder, self.reading = folder, reading
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.images: list[_Image] = []
        #: Of good images: they must be empty.
        self.good_masks: list[Parts] = []

    def find(self) -> None:
        """Fill the lists."""
        files = self._readable(walk(self.folder))
        if self.reading.list is None:
            self._by_folders(files)
        else:
            self._by_list(files)
        self._hold_out()
        self.images.sort(key=lambda each: (each.split != TRAIN, each.path))
        self._check_names()
        self._check_masks()
        self._check_kinds()
        if set(self.folder.name) & set("{}"):
            self.problems.append(f"{self.folder}: rename it, without {{ and }}")

    def _readable(self, files: Iterable[File]) -> list[Parts]:
        """Return what can be read, and all images that lie outside of the layout."""
        readable = []
        for file in files:
            at, name = self.at(file.parts), file.parts[-1].lower()
            if self.reading.list is None and self._outside(file):
                readable.append(file.parts)
            elif _undecodable(file.parts):
                self.problems.append(f"{at}: its name is not valid UTF-8; rename it")
            elif file.problem:
                self.problems.append(f"{at}: {file.problem}")
            elif name.endswith(SUFFIXES):
                readable.append(file.parts)
            else:
                suffix = PurePosixPath(name).suffix
                self.problems.append(
                    f"{at}: {suffix} files cannot be read; convert it to PNG or remove it"
                )
        return readable

    def _outside(self, file: File) -> bool:
        # What cannot be listed may be a folder of the layout itself.
        folders = {file.parts[:-1], file.parts} if file.problem else {file.parts[:-1]}
        return all(self.reading.place(each)[0] == ELSEWHERE for each in folders)

    def at(self, parts: Parts) -> Path:
        return self.folder.joinpath(*parts)

    # -- by folders ---------------------------------------------------------------------------

    def _by_folders(self, files: Sequence[Parts]) -> None:
        reading = self.reading
        train, test = [], []
        masks: dict[str, list[tuple[Parts, Parts]]] = defaultdict(list)
        nested: Counter[str] = Counter()
        elsewhere: Counter[str] = Counter()
        for parts in files:
            kind, rest = reading.place(parts[:-1])
            if kind == TRAIN:
                train.append(parts)
                if len(rest) > 1:
                    nested["/".join(rest[:2])] += 1
            elif kind == TEST:
                test.append((parts, rest))
            elif kind == MASK:
                masks[composed(rest[0]) if rest else ""].append((parts, rest))
            elif kind == MISPLACED:
                self.problems.append(
                    f"{self.at(parts)}: an image in a place that is not read; move it: there are "
                    f"{reading.picture}"
                )
            else:
                elsewhere[parts[0] if len(parts) > 1 else "the category folder itself"] += 1

        self.images = [_Image(parts, TRAIN, GOOD) for parts in train]
        by_kind: dict[str, list[tuple[Parts, Parts]]] = defaultdict(list)
        for parts, rest in test:
            by_kind[composed(rest[0])].append((parts, rest))
        for kind, found in by_kind.items():
            self._pair(kind, found, masks.pop(kind, []))
        for unpaired in masks.values():
            self._without_image(parts for parts, _ in unpaired)

        for place, count in nested.items():
            self.notes.append(
                f"{_images(count)} in {place}, a sub-folder of the good training images: taken as "
                "good"
            )
        for place, count in elsewhere.items():
            self.notes.append(f"{_images(count)} in {place}: not part of the layout, not read")

    def _pair(
        self, kind: str, images: Sequence[tuple[Parts, Parts]], masks: Sequence[tuple[Parts, Parts]]
    ) -> None:
        """Give each test image of a kind its mask, by name.

        A mask belongs to the image whose name and the first of the suffixes it has, so that one
        image's name may be another's with the suffix behind it.
        """
        good = self.reading.is_good(kind)
        names = {_name(rest, parts) for parts, rest in images}
        owned: dict[Parts, list[Parts]] = defaultdict(list)
        lonely = []
        for parts, rest in masks:
            *above, stem = _name(rest, parts)
            for suffix in map(composed, self.reading.mask_suffix):
                owner = (*above, stem[: len(stem) - len(suffix)])
                if stem.endswith(suffix) and owner in names:
                    owned[owner].append(parts)
                    break
            else:
                lonely.append(parts)
        self._without_image(lonely)
        for parts, rest in images:
            found = owned.get(_name(rest, parts), [])
            if len(found) > 1:
                listed = ", ".join(each[-1] for each in found)
                self.problems.append(f"{self.at(parts)}: more than one mask ({listed}); keep one")
            if good:
                self.good_masks += found
                found = []
            mask = found[0] if found else None
            self.images.append(_Image(parts, TEST, GOOD if good else kind, mask))
        if not good and kind == GOOD:
            self.problems.append(
                f"{self.at(images[0][0]).parent}: named {GOOD!r}, which the option 'good' does "
                f"not list; list it, or rename the folder"
            )

    def _without_image(self, masks: Iterable[Parts]) -> None:
        self.problems.extend(
            f"{self.at(parts)}: a mask without an image of that name in "
            + "/".join((self.reading.test, *(self.reading.place(parts[:-1])[1] or ["<defect>"])))
            for parts in masks
        )

    # -- by a list ----------------------------------------------------------------------------

    def _by_list(self, files: Sequence[Parts]) -> None:
        path = self.reading.list_file(self.folder)
        assert path is not None
        # A list beside the category folders names other categories' images too.
        above = () if path.is_relative_to(self.folder) else (composed(self.folder.name),)
        known = {tuple(map(composed, parts)): parts for parts in files}
        used: set[Parts] = set()
        seen: dict[Parts, int] = {}

        def place(text: str, what: str, number: int) -> Parts | None:
            names = tuple(map(composed, PurePosixPath(text).parts))
            parts = known.get(names[len(above) :]) if names[: len(above)] == above else None
            if parts is None:
                hint = "; write paths with '/'" if "\\" in text else ""
                self.problems.append(
                    f"{path}, line {number}: {what} {text!r} is no image file in {self.folder}"
                    + hint
                )
            else:
                used.add(parts)
            return parts

        for line in split_list.read(path):
            if above and composed(line.image.split("/")[0]) != above[0]:
                continue
            here = f"{path}, line {line.number}"
            image = place(line.image, "image", line.number)
            mask = place(line.mask, "mask", line.number) if line.mask else None
            if line.split not in (TRAIN, TEST):
                self.problems.append(f"{here}: split must be train or test, got {line.split!r}")
                continue
            if not line.defect:
                self.problems.append(
                    f"{here}: defect is empty; write {self.reading.good[0]!r} for a good image"
                )
                continue
            good = self.reading.is_good(line.defect)
            if not good and line.split == TRAIN:
                self.problems.append(
                    f"{here}: {line.defect!r} in the training split, which is good images only "
                    f"({' or '.join(self.reading.good)}); use split test"
                )
                continue
            if image is None:
                continue
            if image in seen:
                self.problems.append(f"{here}: {line.image!r} is in line {seen[image]} too")
                continue
            seen[image] = line.number
            if good and mask is not None:
                self.good_masks.append(mask)
                mask = None
            defect = GOOD if good else composed(line.defect)
            self.images.append(_Image(image, line.split, defect, mask))

        rest = [parts for parts in files if parts not in used]
        if rest:
            counted = f"{_images(len(rest))} not in the list {path}"
            if self.reading.unlisted == "allow":
                self.notes.append(f"{counted}: not read")
            else:
                listed = ", ".join("/".join(parts) for parts in rest[:5])
                more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
                self.problems.append(
                    f"{self.folder}: {counted}: {listed}{more}; list them, or set 'unlisted: allow'"
                )

    # -- what both have in common -------------------------------------------------------------

    def _hold_out(self) -> None:
        """Test with a share of the good training images where there are none to test with."""
        share = self.reading.holdout
        if share is None:
            return
        if any(each.split == TEST and each.defect == GOOD for each in self.images):
            self.notes.append("holdout: not used, there are good test images")
            return
        train = [each for each in self.images if each.split == TRAIN]
        if len(train) < 2:
            if train:
                self.problems.append(f"{self.folder}: holdout: one training image, none to spare")
            return

        def rank(image: _Image) -> bytes:
            # By name, not by place in the list: another image changes nothing for this one.
            text = f"{self.reading.holdout_seed} {composed('/'.join(image.path))}"
            return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

        count = min(max(1, round(share * len(train))), len(train) - 1)
        chosen = set(sorted(train, key=rank)[:count])
        self.images = [
            each._replace(split=TEST) if each in chosen else each for each in self.images
        ]
        self.notes.append(
            f"holdout: {count} of {len(train)} good training images are held out to test with"
        )

    def _check_names(self) -> None:
        if self.reading.list is not None:
            return
        names = Counter(_name(each.path[:-1], each.path) for each in self.images)
        self.problems += [
            f"{self.folder.joinpath(*name)}.*: {count} images of that name; masks and scores go "
            "by name, rename one"
            for name, count in names.items()
            if count > 1
        ]

    def _check_masks(self) -> None:
        """Masks of some images of a defect and not of others are forgotten, unless allowed."""
        by_defect: dict[str, list[_Image]] = defaultdict(list)
        for image in self.images:
            if image.split == TEST and image.defect != GOOD:
                by_defect[image.defect].append(image)
        for defect, images in by_defect.items():
            missing = [each for each in images if each.mask is None]
            if not missing or len(missing) == len(images):
                continue
            if self.reading.missing_masks == "allow":
                self.notes.append(
                    f"{len(missing)} of {_images(len(images))} of {defect!r} have no mask: "
                    "pixel-level figures leave them out"
                )
                continue
            suffix = self.reading.mask_suffix[0]
            without = f" (or without {suffix!r})" if "" in self.reading.mask_suffix[1:] else ""
            for image in missing:
                name = PurePosixPath(image.path[-1]).stem
                rest = self.reading.place(image.path[:-1])[1]
                expected = self.folder.joinpath(self.reading.masks, *rest, f"{name}{suffix}.png")
                looked = f", looked for {expected}{without}" if self.reading.list is None else ""
                self.problems.append(
                    f"{self.at(image.path)}: mask missing{looked}; other images of {defect!r} "
                    "have one, and 'missing_masks: allow' leaves such images out of pixel-level "
                    "figures"
                )

    def _check_kinds(self) -> None:
        reading, folder = self.reading, self.folder
        kinds = Counter(
            TRAIN if each.split == TRAIN else "good" if each.defect == GOOD else "defective"
            for each in self.images
        )
        good = reading.good[0]
        train, test = ("" if p == "." else f"{p}/" for p in (reading.train, reading.test))
        places = {
            TRAIN: f"put good images into {train}{good}",
            "good": f"put some into {test}{good}",
            "defective": f"put some into {test}<name of the defect>",
        }
        if reading.list is not None:
            places = {
                TRAIN: f"list some as train, {good}",
                "good": f"list some as test, {good}",
                "defective": "list some as test, <name of the defect>",
            }

        alike = sorted({e.defect for e in self.images if sounds_good(e.defect)} - {GOOD})
        for name in alike:
            self.notes.append(
                f"{name!r} is taken as a defect though it sounds like good; if it is, set "
                f"'good: [{', '.join([*reading.good, name])}]'"
            )
        if not kinds[TRAIN]:
            self.problems.append(f"{folder}: no training image: {places[TRAIN]}")
        if not kinds["good"] and not kinds["defective"]:
            self.problems.append(
                f"{folder}: no test image. Good ones: {places['good']}, or set 'holdout: 0.2' to "
                f"test with a fifth of the training images. Defective ones: {places['defective']}, "
                "or set 'allow_one_class: true' to do without. A 'list' of a CSV file says what "
                "each image is and leaves it where it is"
            )
            return
        for kind, other, more in (
            ("good", "defective", ", or set 'holdout: 0.2' to take some of the training images"),
            ("defective", "good", ""),
        ):
            if kinds[kind]:
                continue
            if reading.allow_one_class:
                self.notes.append(
                    f"all test images are {other}: image AUROC and the like are not defined"
                )
            else:
                self.problems.append(
                    f"{folder}: no {kind} test image: {places[kind]}{more} (AUROC needs both "
                    f"kinds; 'allow_one_class: true' gives scores and maps without it)"
                )


def _name(folder: Parts, path: Parts) -> Parts:
    """Return what an image goes by: its folder's parts and its name without suffix, composed."""
    return (*map(composed, folder), composed(PurePosixPath(path[-1]).stem))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _undecodable(parts: Parts) -> bool:
    return any("\ud800" <= letter <= "\udfff" for part in parts for letter in part)


def _printable(text: str) -> str:
    """Replace what a terminal or a UTF-8 file cannot show of file names."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def _inspect(folder: Path, image: _Image) -> tuple[Row | None, list[str]]:
    """Read an image's header and all of its mask, and say what is wrong with them."""
    problems = []
    size = None
    path = folder.joinpath(*image.path)
    try:
        size = image_size(path)
    except DataError as error:
        problems.append(str(error))
    mask_hash = ""
    if image.mask is not None:
        mask = folder.joinpath(*image.mask)
        try:
            pixels = mask_pixels(mask)
        except DataError as error:
            problems.append(str(error))
        else:
            mask_hash = _sha256(mask)
            if size and pixels.shape != size:
                turned = pixels.shape == size[::-1] and is_turned(path)
                problems.append(
                    f"{mask}: mask is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
                    f"{size[1]} x {size[0]}; "
                    + (
                        "the image is turned by its EXIF orientation, draw the mask on it as it "
                        "is shown upright"
                        if turned
                        else "export it at the image's size"
                    )
                )
            if not pixels.any():
                problems.append(
                    f"{mask}: mask is empty (no pixel above 0) though the image is in "
                    f"{image.defect!r}; draw the defect or move the image"
                )
    if size is None:
        return None, problems
    return (
        Row(
            image="/".join(image.path),
            split=image.split,
            label=int(image.defect != GOOD),
            defect=image.defect,
            mask="" if image.mask is None else "/".join(image.mask),
            width=size[1],
            height=size[0],
            sha256=_sha256(path),
            mask_sha256=mask_hash,
        ),
        problems,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inspect_good_mask(path: Path) -> list[str]:
    try:
        drawn = mask_pixels(path).any()
    except DataError as error:
        return [str(error)]
    return [f"{path}: marks a defect in an image that is good; which is it?"] if drawn else []


def build(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> pd.DataFrame:
    """Index a category folder and check all of it, but for what only decoding an image shows.

    The folder an image lies in, or the list, gives its label, never its mask. Images are decoded
    once, by ``indad.data.decode``; here they are hashed and their headers read.

    Returns:
        One row an image, columns as in ``COLUMNS``, training images first, sorted by path.

    Raises:
        DataError: everything that is wrong, in one message: an image or mask that cannot be
            read, a mask that is missing, empty, of another size or without an image, the same
            name twice, an image where none is read, no training image, no good or no defective
            test image.
    """
    found = survey(folder, reading, threads=threads, progress=progress)
    if found.problems:
        count = len(found.problems)
        counted = "1 problem" if count == 1 else f"{count} problems"
        listed = "\n".join(f"  - {problem}" for problem in found.problems)
        raise DataError(f"{folder}: {counted} found\n{listed}")
    for note in found.notes:
        logger.warning("%s: %s", folder.name, note)
    return found.table


def survey(
    folder: Path,
    reading: Reading | None = None,
    *,
    threads: int = 4,
    progress: Progress = ignore,
) -> Survey:
    """Index what can be indexed of a category folder, and list what is wrong; see ``build``.

    Raises:
        DataError: there is no such folder, or its list cannot be read.
    """
    if not folder.is_dir():
        raise DataError(missing_folder(folder))
    finder = _Finder(folder, reading or Reading())
    finder.find()
    problems = finder.problems
    rows: list[Row] = []
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda image: _inspect(folder, image), finder.images)
        for done, (row, found) in enumerate(results, 1):
            problems += found
            if row is not None:
                rows.append(row)
            progress(done, len(finder.images))
        for found in pool.map(_inspect_good_mask, map(finder.at, finder.good_masks)):
            problems += found
    return Survey(
        pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS)),
        [_printable(problem) for problem in problems],
        [_printable(note) for note in finder.notes],
    )


def write(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest as CSV, atomically."""
    with atomic.replacing(path) as temporary:
        sealed = manifest.assign(**{SEAL: content_hash(manifest)})
        sealed.to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """Read a manifest.

    Raises:
        DataError: the file is missing, lacks a column, or is not what ``write`` wrote.
    """
    try:
        # Only "" is missing, so that a folder named "NA" or "null" stays what it is.
        frame = pd.read_csv(
            path, keep_default_na=False, dtype=str, encoding="utf-8", lineterminator="\n"
        )
        frame = frame.astype({"label": int, "width": int, "height": int})
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); delete it") from None
    missing = [column for column in (*COLUMNS, SEAL) if column not in frame]
    if missing:
        raise DataError(f"{path}: manifest lacks the columns {', '.join(missing)}; delete it")
    seals = set(frame.pop(SEAL))
    if seals != {content_hash(frame)}:
        raise DataError(
            f"{path}: manifest was damaged or edited, its content does not match the hash it "
            "states; delete it and run again"
        )
    return frame


def content_hash(manifest: pd.DataFrame) -> str:
    """Hash which images and masks a manifest holds, by content: what results were made from."""
    return hashlib.sha256(manifest.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
