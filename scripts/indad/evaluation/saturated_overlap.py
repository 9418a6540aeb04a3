"""MVTec LOCO AD's saturated per-region overlap (sPRO), with the saturations of the data set.

Bergmann et al., "Beyond Dents and Scratches", IJCV 2022, and its evaluation code. Each mask file of
an image is one defect, even if it has several parts or overlaps another one. A defect counts as
completely found once a number of its pixels is flagged: its saturation. The category's file
``defects_config.json`` has a saturation for each pixel value of the masks: a number of pixels of
the image file, or a share of the defect's area.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from indad.core.errors import DataError
from indad.core.lazy import LazySequence
from indad.data.decode import require_unchanged
from indad.data.images import Geometry, drawn_pixels, mask_values
from indad.data.manifest import mask_files, photo_of
from indad.evaluation.metrics import LOW_FPR_LIMIT, curve_parts
from indad.evaluation.sorted_scores import SortedScores

#: Name of the file with the saturations, in the category folder.
FILE = "defects_config.json"


class Saturation(NamedTuple):
    """When a defect counts as completely found.

    Attributes:
        threshold: number of pixels of the image file; or share of the defect's area, in (0, 1].
        relative: whether it is a share.
    """

    threshold: float
    relative: bool

    def pixels(self, area: int, scale: float = 1.0) -> float:
        """Return the saturation in pixels: at least 1, and at most the defect's area.

        A share is rounded down to whole pixels, as in the authors' code.

        Args:
            area: number of pixels of the defect.
            scale: number of such pixels per pixel of the image file.
        """
        own = math.floor(self.threshold * area) if self.relative else self.threshold * scale
        return min(max(own, 1.0), float(area))


class Defect(NamedTuple):
    """A defect of an image: its pixels, bool ``(H, W)``, and its saturation in pixels."""

    mask: np.ndarray
    saturation: float


def read(path: Path) -> dict[int, Saturation]:
    """Read the saturation of each pixel value of the masks.

    Raises:
        DataError: the file is missing, or not such a list.
    """
    found: dict[int, Saturation] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            value, relative = entry["pixel_value"], entry["relative_saturation"]
            threshold = float(entry["saturation_threshold"])
            if not isinstance(relative, bool) or type(value) is not int or not 0 < value < 256:
                raise ValueError(f"wrong pixel_value or relative_saturation in {entry}")
            if not 0 < threshold <= (1 if relative else math.inf):
                raise ValueError(f"saturation_threshold out of range in {entry}")
            new = Saturation(threshold, relative)
            if found.setdefault(value, new) != new:
                raise ValueError(f"several entries for the pixel value {value}")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); the metric spro_05 needs it. Add the "
            "file, or set the option 'metrics' of the data set without spro_05, for example to []"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: no list of saturations like that of MVTec LOCO AD ({error!r}); correct it"
        ) from None
    return found


def read_defects(
    rows: pd.DataFrame, folder: Path, geometry: Geometry | None = None
) -> Sequence[list[Defect]]:
    """Return the defects of each test image, read from its mask files when they are used.

    Args:
        rows: test images of the manifest.
        folder: the category folder.
        geometry: resize and crop; None for masks at the images' own size. With a geometry, a
            saturation in pixels is multiplied by the ratio of the areas of the resized and the
            original image.

    Raises:
        DataError: ``defects_config.json`` is missing or damaged; when a mask is used: it has
            changed, or its pixel value has no saturation.
    """
    saturations = read(folder / FILE)

    def of_image(row: Any) -> list[Defect]:
        found, photo = [], photo_of(folder, row)
        for name, sha256 in mask_files(row):
            path = folder / name
            require_unchanged(path, sha256)
            values = mask_values(path, photo)
            mask = drawn_pixels(values)
            kinds = np.unique(values[mask]).tolist()
            if len(kinds) != 1 or kinds[0] not in saturations:
                raise DataError(
                    f"{path}: its pixels have the values {kinds}; expected one value above 0 that "
                    f"{FILE} lists ({sorted(saturations)})"
                )
            scale = 1.0
            if geometry is not None:
                drawn = Image.fromarray(mask.astype(np.uint8))
                scale = math.prod(geometry.resized(*mask.shape)) / mask.size
                mask = np.asarray(geometry.apply(drawn, Image.Resampling.NEAREST)) > 0
            pixels = saturations[kinds[0]].pixels(np.count_nonzero(mask), scale)
            found.append(Defect(mask, pixels))
        return found

    images = list(rows.itertuples())
    return LazySequence(len(images), lambda image: of_image(images[image]))


def au_spro(
    maps: Sequence[np.ndarray],
    defects: Sequence[Sequence[Defect]],
    kinds: Sequence[str | None],
    folder: Path | None = None,
    limit: float = LOW_FPR_LIMIT,
) -> float:
    """Compute the area under the curve of sPRO, averaged over the kinds of defects.

    For each kind, the curve is that of its images and of all good images: the mean sPRO of all
    defects as a function of the false positive rate over the pixels without any defect, integrated
    up to ``limit`` and divided by it. The average is the authors' mean over logical and structural
    anomalies. A defect without pixels, because the resize or the crop removed them, is left out.

    Args:
        maps: float32 ``(H, W)`` of each image, higher is more anomalous.
        defects: of each image.
        kinds: of each image: "" if it is good, None if it is left out.
        folder: as for ``SortedScores``.
        limit: largest false positive rate.

    Returns:
        The average; NaN if no kind has both pixels with and without a defect.
    """
    areas = []
    for kind in sorted({each for each in kinds if each}):
        chosen = [i for i, each in enumerate(kinds) if each in ("", kind)]
        saturation = [1.0]  # of region 0, which no defect has
        scores = SortedScores(_labelled(maps, defects, chosen, saturation), folder)
        if scores.positives and scores.negatives:
            limits = np.array(saturation[: len(scores.area)])
            areas.append(sum(part.aupro(limit) for part in curve_parts(scores, limits)))
    return float(np.mean(areas)) if areas else math.nan


def _labelled(
    maps: Sequence[np.ndarray],
    defects: Sequence[Sequence[Defect]],
    chosen: Iterable[int],
    saturation: list[float],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and defect numbers for ``SortedScores``; append the defects' saturations."""
    for i in chosen:
        values = maps[i]
        normal = np.ones(values.shape, bool)
        for mask, pixels in defects[i]:  # a pixel of several defects counts for each of them
            yield values[mask], np.full(np.count_nonzero(mask), len(saturation), np.int32)
            saturation.append(pixels)
            normal &= ~mask
        yield values[normal], np.zeros(np.count_nonzero(normal), np.int32)
