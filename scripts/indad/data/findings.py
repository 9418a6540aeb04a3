"""What is found in a category folder: its images and masks, problems and warnings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from indad.core.names import printable
from indad.data.data_warnings import DataWarning
from indad.data.folder_layout import GOOD, Parts, Reading, nfc


class FoundImage(NamedTuple):
    """An image and its masks, as paths relative to the category folder."""

    path: Parts
    split: str
    defect: str
    masks: tuple[Parts, ...] = ()


@dataclass
class Findings:
    """The images of a category folder, and what is wrong with it.

    Attributes:
        folder: the category folder.
        reading: how it is read.
        images: training images first, sorted by path.
        good_masks: good images with their masks, which must be empty.
        problems: errors that keep the category from being used.
        warnings: things that can be used, but may be a mistake.
        table: the manifest of all images that can be indexed, once they have been examined.
    """

    folder: Path
    reading: Reading
    images: list[FoundImage] = field(default_factory=list)
    good_masks: list[tuple[Parts, Parts]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def add_problem(self, path: Parts, text: str) -> None:
        """Add a problem of the file or folder ``path``; ``()`` is the category folder."""
        self.problems.append(f"{self.folder.joinpath(*path)}: {text}")

    def warn(
        self,
        code: str,
        text: str,
        files: Iterable[str] = (),
        remedy: str = "",
        *,
        note: bool = False,
    ) -> None:
        """Add a warning; the arguments are those of `DataWarning`."""
        text, names = printable(text, keep="\n"), tuple(map(printable, files))
        self.warnings.append(DataWarning(code, self.folder.name, text, names, remedy, note))

    def add_image(self, path: Parts, split: str, defect: str, masks: Sequence[Parts] = ()) -> None:
        """Add an image and its masks, if it has any."""
        if self.reading.is_good(defect):
            self.good_masks += [(path, mask) for mask in masks]
            self.images.append(FoundImage(path, split, GOOD))
        else:
            self.images.append(FoundImage(path, split, nfc(defect), tuple(masks)))
