"""The manifest: what is in a category, one row an image, and everything that is wrong with it.

A category folder is laid out as in MVTec AD::

    train/good/*.png
    test/good/*.png   test/<defect>/*.png
    ground_truth/<defect>/<image name>_mask.png      (optional; without "_mask" is fine too)
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from indad import atomic
from indad.errors import DataError
from indad.images import SUFFIXES, UNREADABLE_SUFFIXES, mask_pixels
from indad.images import size as image_size
from indad.progress import Progress, ignore

GOOD = "good"
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


COLUMNS = tuple(field.name for field in fields(Row))


def image_files(folder: Path) -> list[Path]:
    """List the image files directly in ``folder``, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def find_categories(root: Path) -> list[str]:
    """Name the sub-folders of ``root`` that have a ``train/good`` folder, sorted.

    Raises:
        DataError: ``root`` is missing, or holds no category.
    """
    if not root.is_dir():
        raise DataError(missing_folder(root))
    found = sorted(path.name for path in root.iterdir() if (path / "train" / GOOD).is_dir())
    if not found:
        hint = (
            " It looks like a single category itself: give its parent folder."
            if (root / "train" / GOOD).is_dir()
            else ""
        )
        raise DataError(
            f"{root.resolve()}: no category found. Each category is a sub-folder with images in "
            f"train/good and test/good, test/<defect>, as in MVTec AD.{hint}"
        )
    return found


def missing_folder(folder: Path) -> str:
    """Say that a data folder is missing, and how to get it there."""
    return (
        f"{folder.resolve()}: data folder not found. Set 'path' of the data set in the "
        "configuration (or --data-root) to a folder in MVTec AD layout, "
        "<category>/train/good/*.png and <category>/test/<defect>/*.png; MVTec AD itself is "
        "free for research at https://www.mvtec.com/company/research/datasets/mvtec-ad"
    )


def fingerprint(folder: Path) -> str:
    """Hash the names, sizes and times of all files below a category folder; "" if it is missing.

    Cheap enough to be taken whenever the workflow is planned, so that an added, removed or edited
    image is noticed without reading any.
    """
    digest = hashlib.sha256()
    for split in ("train", "test", "ground_truth"):
        for path in sorted(_walk(str(folder / split))):
            digest.update(path.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16] if folder.is_dir() else ""


def _walk(folder: str) -> Iterator[str]:
    if not Path(folder).is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                status = entry.stat()
                yield f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}"


class _Masks:
    """The masks of one defect, found by the image's name, never by position."""

    def __init__(self, folder: Path) -> None:
        self.by_name: dict[str, list[Path]] = {}
        for path in image_files(folder):
            self.by_name.setdefault(path.stem, []).append(path)
        self.unused = {path for paths in self.by_name.values() for path in paths}

    def of(self, image: Path) -> list[Path]:
        found = self.by_name.get(f"{image.stem}_mask", []) + self.by_name.get(image.stem, [])
        self.unused -= set(found)
        return found


def _candidates(folder: Path, problems: list[str]) -> Iterator[tuple[Path, str, str, Path | None]]:
    """Yield ``(image, split, defect, mask)`` for every image file of the category."""
    for image in image_files(folder / "train" / GOOD):
        yield image, "train", GOOD, None
    test = folder / "test"
    names = sorted(path.name for path in test.iterdir() if path.is_dir()) if test.is_dir() else []
    for defect in names:
        masks = _Masks(folder / "ground_truth" / defect)
        has_any = bool(masks.unused) and defect != GOOD
        for image in image_files(test / defect):
            found = masks.of(image)
            if len(found) > 1:
                listed = ", ".join(path.name for path in found)
                problems.append(f"{image}: more than one mask ({listed}); keep one")
            elif has_any and not found:
                expected = folder / "ground_truth" / defect / f"{image.stem}_mask.png"
                problems.append(
                    f"{image}: mask missing, looked for {expected} (or without '_mask'); other "
                    f"images of '{defect}' have one"
                )
            yield image, "test", defect, found[0] if found and defect != GOOD else None
        if defect != GOOD:
            problems.extend(
                f"{path}: a mask without an image of that name in {test / defect}"
                for path in sorted(masks.unused)
            )


def _overlooked(folder: Path, seen: set[Path]) -> Iterator[str]:
    """Point out images that no rule of the layout reads, so that none is skipped in silence."""
    for split, places in (("train", "train/good"), ("test", "test/good or test/<defect>")):
        for path in sorted((folder / split).rglob("*")):
            if any(part.startswith(".") for part in path.relative_to(folder).parts):
                continue
            suffix = path.suffix.lower()
            if suffix in SUFFIXES and path not in seen:
                yield f"{path}: an image in a place that is not read; move it to {places}"
            elif suffix in UNREADABLE_SUFFIXES:
                yield f"{path}: {suffix} files cannot be read; convert it to PNG or remove it"


def _inspect(
    folder: Path, image: Path, split: str, defect: str, mask: Path | None
) -> tuple[Row | None, list[str]]:
    """Read an image's header and all of its mask, and say what is wrong with them."""
    problems = []
    size = None
    try:
        size = image_size(image)
    except DataError as error:
        problems.append(str(error))
    mask_hash = ""
    if mask is not None:
        try:
            pixels = mask_pixels(mask)
        except DataError as error:
            problems.append(str(error))
        else:
            mask_hash = hashlib.sha256(mask.read_bytes()).hexdigest()
            if size and pixels.shape != size:
                problems.append(
                    f"{mask}: mask is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
                    f"{size[1]} x {size[0]}; export it at the image's size"
                )
            if not pixels.any():
                problems.append(
                    f"{mask}: mask is empty (no pixel above 0) though the image is in "
                    f"'{defect}'; draw the defect or move the image"
                )
    if size is None:
        return None, problems
    return (
        Row(
            image=image.relative_to(folder).as_posix(),
            split=split,
            label=int(defect != GOOD),
            defect=defect,
            mask="" if mask is None else mask.relative_to(folder).as_posix(),
            width=size[1],
            height=size[0],
            sha256=hashlib.sha256(image.read_bytes()).hexdigest(),
            mask_sha256=mask_hash,
        ),
        problems,
    )


def build(folder: Path, *, threads: int = 4, progress: Progress = ignore) -> pd.DataFrame:
    """Index a category folder and check all of it, but for what only decoding an image shows.

    The folder an image lies in gives its label, never its mask. Images are decoded once, by
    ``indad.pixels``; here they are hashed and their headers read.

    Returns:
        One row an image, columns as in ``COLUMNS``, training images first, sorted by path.

    Raises:
        DataError: everything that is wrong, in one message: an image or mask that cannot be
            read, a mask that is missing, empty, of another size or without an image, the same
            name twice, an image where none is read, no training image, no good or no defective
            test image.
    """
    table, problems = survey(folder, threads=threads, progress=progress)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise DataError(f"{folder}: {count} found\n{listed}")
    return table


def survey(
    folder: Path, *, threads: int = 4, progress: Progress = ignore
) -> tuple[pd.DataFrame, list[str]]:
    """Index what can be indexed of a category folder, and list what is wrong; see ``build``.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(missing_folder(folder))
    problems: list[str] = []
    candidates = list(_candidates(folder, problems))
    problems += _overlooked(folder, {image for image, *_ in candidates})
    rows: list[Row] = []
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda candidate: _inspect(folder, *candidate), candidates)
        for done, (row, found) in enumerate(results, 1):
            problems += found
            if row is not None:
                rows.append(row)
            progress(done, len(candidates))

    names = Counter((image.parent, image.stem) for image, *_ in candidates)
    problems += [
        f"{parent / stem}.*: {count} images of that name; masks and scores go by name, rename one"
        for (parent, stem), count in names.items()
        if count > 1
    ]
    kinds = Counter(
        "train" if split == "train" else ("good" if defect == GOOD else "defective")
        for _, split, defect, _ in candidates
    )
    for kind, where in (
        ("train", "training image: put good images into train/good"),
        ("good", "good test image: put some into test/good (AUROC needs both kinds)"),
        ("defective", "defective test image: put some into test/<name of the defect>"),
    ):
        if not kinds[kind]:
            problems.append(f"{folder}: no {where}")
    return pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS)), problems


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
