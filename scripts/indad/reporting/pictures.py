"""Sheets of test images with the anomaly maps of every experiment: what they show."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from indad.data.decode import Pixels
from indad.evaluation import calibration, cases, scores
from indad.evaluation.scores import Scored, ScoreFiles
from indad.evaluation.sorted_scores import median
from indad.reporting import sheet
from indad.reporting.sheet import Column, Shown

#: Rows of the main sheet: one good image, then one image of each kind of defect.
MOST_ROWS = 10
#: Number of missed defects, and of false alarms, on the sheet of cases.
MOST_ERRORS = 2

_NOTES = (
    "With each map: the score of the image, and if it is wrong the verdict. Cyan: outline of the "
    "labelled defect. Circle: peak of the map. Colours: one scale per experiment, from the median "
    "pixel of good images to the 90th percentile of the images' peaks."
)


def colour_range(scored: Scored) -> tuple[float, float]:
    """Return the colour scale of an experiment, the same for all its images.

    It starts at the median of the good images' pixels, so that normal areas are dark. It ends at
    the 90th percentile of the images' peaks, so that a single extreme image does not define it.
    """
    normal = scored.normal
    if normal is None:
        normal = median(scored.maps)
    return normal, float(np.quantile(scored.peaks, 0.9))


def column(name: str, files: ScoreFiles, rows: pd.DataFrame, images: Sequence[str]) -> Column:
    """Read what a sheet shows of an experiment.

    Raises:
        StoreError: a file is damaged or belongs to other images.
    """
    scored, truth = scores.read_with_truth(files, rows)
    table = scored.table
    threshold = cases.threshold(table)
    verdicts = cases.verdicts(table, threshold)
    score, place = table["score"].to_numpy(), {name: i for i, name in enumerate(table["image"])}
    chosen = {}
    for image in images:
        i = place[image]
        mask = truth.mask[i]
        chosen[image] = Shown(scored.maps[i], mask if mask.any() else None, score[i], verdicts[i])
    missed, alarms = (int((verdicts == each).sum()) for each in (cases.MISSED, cases.FALSE_ALARM))
    return Column(name, threshold, missed, alarms, *colour_range(scored), chosen)


def read_photos(pixels: Path, rows: pd.DataFrame, images: Sequence[str]) -> dict[str, np.ndarray]:
    """Return test images by name, uint8 ``(H, W, 3)``."""
    with Pixels(pixels, rows) as opened:
        number = {name: i for i, name in enumerate(opened.images("test"))}
        return {name: opened.read("test", [number[name]])[0] for name in images}


def sheets(
    rows: pd.DataFrame,
    experiments: Mapping[str, ScoreFiles],
    typical: Path,
    notable: Path,
    *,
    title: str,
) -> None:
    """Draw a category's two sheets: typical images, and the clearest, the hardest and the errors.

    Args:
        rows: the category's manifest.
        experiments: the columns.
        typical: PNG file of the median image of each kind.
        notable: PNG file of the other cases.
        title: heading of the sheets.

    Raises:
        StoreError: a product is damaged, or the experiments scored different images.
    """
    classified = cases.consensus([scores.read_table(files.table) for files in experiments.values()])
    median = cases.typical(classified, MOST_ROWS)
    others = cases.notable(classified, MOST_ERRORS)
    images = list(dict.fromkeys(case.image for case in median + others))
    columns = [column(name, files, rows, images) for name, files in experiments.items()]
    first = next(iter(experiments.values()))
    photos = read_photos(first.pixels, rows, images)
    notes = f"{_NOTES} {_threshold_note(classified)}"
    height, width = photos[images[0]].shape[:2]
    if height > sheet.STRIP * width:
        photos = {name: np.rot90(photo) for name, photo in photos.items()}
        columns = [_turned(each) for each in columns]
        notes += " The images are turned by 90 degrees: their top is on the left."
    good = int((classified["label"] == 0).sum())
    counts = f"{good} good and {len(classified) - good} defective test images"
    remark = f"{counts}. {_typical_remark(classified, len(median))}"
    sheet.draw(median, columns, photos, typical, title=title, remark=remark, notes=notes)
    remark, title = f"{counts}. {_error_remark(classified)}", f"{title}: clear, hard and wrong"
    sheet.draw(others, columns, photos, notable, title=title, remark=remark, notes=notes)


def _turned(column: Column) -> Column:
    images = {
        name: each._replace(
            map=np.rot90(each.map), mask=None if each.mask is None else np.rot90(each.mask)
        )
        for name, each in column.images.items()
    }
    return dataclasses.replace(column, images=images)


def _threshold_note(classified: pd.DataFrame) -> str:
    good = int((classified["label"] == 0).sum())
    if not good:
        return "There is no threshold without good images."
    source = calibration.default_source(good)
    return f"Missed and false alarm: at the threshold that predict uses by default ({source})."


def _typical_remark(classified: pd.DataFrame, shown: int) -> str:
    kinds = classified.loc[classified["label"] == 1, "defect"].nunique()
    left_out = kinds + 1 - shown
    if left_out:
        return f"Of each kind the image with the median score; {left_out} rarer kinds are left out."
    return "Of each kind the image with the median score."


def _error_remark(classified: pd.DataFrame) -> str:
    if (classified["label"] == 1).all():
        return "No image is classified."
    errors = int((classified["missed"] + classified["false_alarms"] > 0).sum())
    if errors:
        wrong = f"{errors} of {len(classified)} images"
        return f"{wrong} are classified wrongly by at least one experiment."
    return "No experiment classifies an image wrongly."
