"""Figures of one category: curves, scores and AUROC by kind of defect.

An experiment has the same colour in all of them: that of its place in ``run.experiments``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from indad.core.errors import StoreError
from indad.data.decode import Pixels
from indad.data.manifest import GOOD
from indad.evaluation import cases, curves, scores
from indad.evaluation.metrics import FPR_LIMIT, ScoreCurve, regions
from indad.reporting import style
from indad.reporting.style import plt

#: Kinds of defects that a figure has room for; the CSV has all.
MOST_DEFECTS = 20


@dataclass(frozen=True)
class Measured:
    """An experiment's scores of one category.

    Attributes:
        name: of the experiment.
        table: image scores, as ``scores.read_table``.
        pixels: curve of its maps' pixels; None where there are no masks.
    """

    name: str
    table: pd.DataFrame
    pixels: ScoreCurve | None


def measure(name: str, table: Path, maps: Path, decoded: Path, rows: pd.DataFrame) -> Measured:
    """Read an experiment's scores and sort its maps' pixels.

    Args:
        name: of the experiment.
        table: file of image scores.
        maps: file of anomaly maps of the same images.
        decoded: file of the images and masks as its backbone saw them.
        rows: the category's manifest.

    Raises:
        StoreError: a product is damaged or of other images.
    """
    read, mapped, _ = scores.read(table, maps)
    test = rows[rows["split"] == "test"]
    # A good image is marked by an empty mask; a defective one without a mask says nothing.
    known = np.asarray((test["label"] == 0) | test["mask"].astype(bool))
    with Pixels(decoded, rows) as pixels:
        if not (list(read["image"]) == pixels.images("test") == list(test["image"])):
            raise StoreError(f"{table}: the scores are not of {decoded}; delete them, run again")
        masks = pixels.mask()
    if not masks.any():
        return Measured(name, read, None)
    curve = ScoreCurve.from_scores(mapped[known], regions(masks[known]))
    return Measured(name, read, curve)


# -- curves ---------------------------------------------------------------------------------------


def draw_curves(measured: Sequence[Measured], output: Path, *, title: str) -> None:
    """Draw ROC and precision-recall curves of images and, with masks, of pixels, and PRO curves."""
    labels = measured[0].table["label"].to_numpy().astype(np.uint32)
    by_image = [
        ScoreCurve.from_scores(each.table["score"].to_numpy(), labels)
        if len(set(labels)) > 1
        else None  # there is nothing to tell apart
        for each in measured
    ]
    by_pixel = [each.pixels for each in measured]
    with_masks = any(curve is not None for curve in by_pixel)
    rows = 1 + with_masks
    with style.look():
        figure, axes = plt.subplots(
            rows,
            3,
            figsize=(style.WIDTH, 0.5 + 2.75 * rows),
            squeeze=False,
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
        heading = style.heading(title, style.WIDTH)
        figure.suptitle(heading, x=0.012, ha="left", fontsize=11, fontweight="bold")
        _roc(axes[0, 0], by_image, "Images: ROC", "AUROC")
        _precision_recall(axes[0, 1], by_image, "Images: precision-recall")
        counts = f"{(labels == 0).sum()} good and {labels.sum()} defective images"
        _key(axes[0, 2], [each.name for each in measured], counts)
        if with_masks:
            _roc(axes[1, 0], by_pixel, "Pixels: ROC", "AUROC")
            _precision_recall(axes[1, 1], by_pixel, "Pixels: precision-recall")
            _overlap(axes[1, 2], by_pixel)
        style.save(figure, output)


def _frame(axis: Axes, title: str, x: str, y: str, right: float = 1.0) -> None:
    axis.set(xlim=(-0.01 * right, 1.01 * right), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)
    axis.set_title(title, loc="left")
    axis.set_xticks(np.linspace(0, right, 6 if right == 1 else 4))
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.grid(True)


def _values(axis: Axes, name: str, values: Sequence[float | None], *, falls: bool = False) -> None:
    """List a metric's values in percent, each beside its experiment's line.

    They stand in the corner that the curves stay away from, which ``falls`` or rise.
    """
    known = [value for value in values if value is not None]
    if not known:
        axis.text(0.5, 0.3, "not defined", transform=axis.transAxes, ha="center", color=style.GREY)
        return
    high = np.mean(known) > 0.5
    place = f"{'lower' if high else 'upper'} {'left' if high == falls else 'right'}"
    axis.legend(
        axis.get_lines()[: len(values)],
        ["-" if value is None else f"{100 * value:.1f}" for value in values],
        title=f"{name}, %",
        title_fontsize=style.SMALL,
        loc=place,
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
        borderpad=0.2,
        labelspacing=0.25,
        handlelength=1.8,
        alignment="left",
    )


def _line(number: int, count: int) -> dict[str, Any]:
    """Draw the first line thickest, so that one below another still shows."""
    return style.line(number) | {"linewidth": 2.8 - 1.6 * number / max(count - 1, 1)}


def _roc(axis: Axes, found: Sequence[ScoreCurve | None], title: str, name: str) -> None:
    for i, curve in enumerate(found):
        points = curves.thin(*curves.roc(curve)) if curve else ([], [])
        axis.plot(*points, **_line(i, len(found)))
    axis.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=":")
    _frame(axis, title, "false positive rate", "true positive rate")
    _values(axis, name, [curve and curve.auroc() for curve in found])


def _precision_recall(axis: Axes, found: Sequence[ScoreCurve | None], title: str) -> None:
    for i, curve in enumerate(found):
        points = curves.thin(*curves.precision_recall(curve)) if curve else ([], [])
        axis.plot(*points, drawstyle="steps-pre", **_line(i, len(found)))
    for curve in [each for each in found if each][:1]:
        share = curve.positives / (curve.positives + curve.negatives)
        axis.axhline(share, color=style.GREY, linewidth=0.8, linestyle=":")
    _frame(axis, title, "recall", "precision")
    values = [curve and curve.average_precision() for curve in found]
    _values(axis, "AP", values, falls=True)


def _overlap(axis: Axes, found: Sequence[ScoreCurve | None]) -> None:
    for i, curve in enumerate(found):
        points = curves.thin(*curves.region_overlap(curve)) if curve else ([], [])
        axis.plot(*points, **_line(i, len(found)))
    _frame(axis, "Regions: overlap (PRO)", "false positive rate", "mean overlap", FPR_LIMIT)
    _values(axis, "AUPRO", [curve and curve.aupro() for curve in found])


def _key(axis: Axes, names: Sequence[str], counts: str) -> None:
    """Name the experiments, with what all panels have in common."""
    axis.axis("off")
    for i, name in enumerate(names):
        axis.plot([], [], label=style.wrap(name, 1.9), linewidth=2.2, **style.line(i))
    axis.legend(
        loc="upper left", frameon=False, borderpad=0, labelspacing=0.55, bbox_to_anchor=(-0.05, 1)
    )
    text = f"{counts}\ndotted: by chance"
    axis.text(
        -0.02, 0.0, text, transform=axis.transAxes, color=style.GREY, va="bottom", linespacing=1.3
    )


# -- scores by kind of defect ----------------------------------------------------------------------


def draw_scores(measured: Sequence[Measured], output: Path, *, title: str) -> None:
    """Draw every test image's score by kind of defect, a panel an experiment, and the threshold."""
    kinds, left_out = _kinds(measured[0].table)
    columns = min(3, len(measured))
    rows = -(-len(measured) // columns)
    with style.look():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(
                max(5.6, style.WIDTH * columns / 3),
                0.95 + rows * (0.75 + 0.3 * (1 + len(kinds))),
            ),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        heading = style.heading(title + _left_out(left_out), figure.get_figwidth())
        figure.suptitle(heading, x=0.012, ha="left", fontsize=11, fontweight="bold")
        for i, (axis, each) in enumerate(zip(axes.flat, measured, strict=False)):
            _strip(axis, each, kinds, i)
        for axis in axes.flat[len(measured) :]:
            axis.axis("off")
        handles = [
            Line2D([], [], linestyle="", markersize=5, label=label, **look)
            for label, look in _MARKS.items()
        ]
        handles.append(
            Line2D([], [], color=style.INK, linewidth=1, linestyle="--",
                       label="threshold: best F1 on these images")
        )  # fmt: skip
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=5 if columns == 3 else 3,
            frameon=False,
            columnspacing=1.2,
            handletextpad=0.4,
        )
        style.save(figure, output)


_MARKS = {
    "good": {"marker": "o", "color": "#9aa0a6"},
    "defective": {"marker": "o", "color": "#33526e"},
    cases.MISSED: {"marker": "v", "color": style.MISSED},
    cases.FALSE_ALARM: {"marker": "X", "color": style.FALSE_ALARM},
}


def _kinds(table: pd.DataFrame) -> tuple[list[str], int]:
    """Return the kinds of defects with the most images, and how many there is no room for."""
    counts = table[table["label"] == 1].groupby("defect").size()
    most = counts.sort_values(ascending=False, kind="stable").index[:MOST_DEFECTS]
    return sorted(map(str, most)), len(counts) - len(most)


def _left_out(count: int) -> str:
    return f" (without the {count} rarest kinds)" if count else ""


def _strip(axis: Axes, shown: Measured, kinds: Sequence[str], number: int) -> None:
    table, at = shown.table, cases.threshold(shown.table)
    verdict = cases.verdicts(table, at)
    labels = table["label"].to_numpy()
    groups = [(GOOD, labels == 0)]
    groups += [(kind, (labels == 1) & (table["defect"] == kind).to_numpy()) for kind in kinds]
    score = table["score"].to_numpy()
    logarithmic = score.min() > 0 and score.max() > 10 * score.min()
    row = np.full(len(table), np.nan)
    for place, (_, chosen) in enumerate(groups):
        row[chosen] = place + _spread(np.log(score[chosen]) if logarithmic else score[chosen])
    right = np.where(labels == 0, "good", "defective")
    marks = np.where(verdict == "", right, verdict)
    for name, look in _MARKS.items():
        chosen = (marks == name) & ~np.isnan(row)
        size = 11 if name in right else 30
        axis.scatter(score[chosen], row[chosen], s=size, linewidths=0, **look, alpha=0.8)
    axis.axvline(at, color=style.INK, linewidth=1, linestyle="--")
    names = [
        f"{style.shorten(style.readable(kind), 20)} ({chosen.sum()})" for kind, chosen in groups
    ]
    axis.set_yticks(range(len(groups)), names)
    axis.set_ylim(len(groups) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_title("     " + style.wrap(shown.name, 2.0, 10, lines=1), loc="left")
    axis.add_artist(_swatch(axis, number))
    if logarithmic:
        style.logarithmic(axis, score.min(), score.max())
        axis.set_xlabel("image score, logarithmic")
    else:
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("image score")
    axis.grid(True, axis="x")


def _swatch(axis: Axes, number: int) -> Line2D:
    """Return a short piece of the experiment's line, to stand before the panel's title."""
    place = axis.transAxes + ScaledTranslation(0, 9 / 72, axis.figure.dpi_scale_trans)
    return Line2D(
        [0, 0.05], [1, 1], transform=place, clip_on=False, linewidth=4, **style.line(number)
    )  # fmt: skip


def _spread(values: np.ndarray, height: float = 0.32, bins: int = 60) -> np.ndarray:
    """Return offsets that keep close values apart, the same every time.

    Values of a narrow bin are fanned out around the middle, the more of them the further.
    """
    offsets = np.zeros(len(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return np.linspace(-height, height, len(values)) if len(values) > 1 else offsets
    which = ((values - values.min()) / np.ptp(values) * bins).astype(int)
    fullest = max(np.bincount(which).max(), 6)
    for each in np.unique(which):
        inside = np.flatnonzero(which == each)
        inside = inside[np.argsort(values[inside], kind="stable")]
        offsets[inside] = (np.arange(len(inside)) - (len(inside) - 1) / 2) * 2 * height / fullest
    return offsets


# -- image AUROC by kind of defect ----------------------------------------------------------------


def defect_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return columns ``experiment, defect, images, image_auroc, missed`` (``cases.by_defect``)."""
    parts = [cases.by_defect(each.table).assign(experiment=each.name) for each in measured]
    frame = pd.concat(parts, ignore_index=True)
    return frame[["experiment", "defect", "images", "image_auroc", "missed"]]


def draw_defects(table: pd.DataFrame, output: Path, *, title: str) -> None:
    """Draw the image AUROC of each kind of defect against all good images, as a heat table.

    Args:
        table: as ``defect_table``.
        output: the PNG file.
        title: heading.
    """
    if table["image_auroc"].isna().all():
        with style.look():
            figure = plt.figure(figsize=(style.WIDTH, 0.7))
            why = "Image AUROC by kind of defect is not defined: all test images are of one kind"
            figure.text(0.012, 0.72, style.heading(title, style.WIDTH), fontsize=11,
                        fontweight="bold", va="center")  # fmt: skip
            figure.text(0.012, 0.28, why, color=style.GREY, va="center")
            style.save(figure, output)
        return
    names = list(dict.fromkeys(table["experiment"]))
    counts = table.drop_duplicates("defect").set_index("defect")["images"]
    most = counts.sort_values(ascending=False, kind="stable").index[:MOST_DEFECTS]
    wide = table.pivot_table(index="defect", columns="experiment", values="image_auroc")
    wide = wide.loc[sorted(most), names]
    wide = wide.loc[wide.mean(axis=1).sort_values(kind="stable").index]  # the hardest first
    kinds = [f"{style.shorten(style.readable(k), 24)} ({counts[k]})" for k in wide.index]
    left = 0.25 + 0.075 * max(map(len, kinds))
    cell = min(1.3, max(0.8, (style.WIDTH - left - 0.15) / len(names)))
    heads = [style.wrap(name, cell) for name in names]
    head = 0.55 + 0.15 * (1 + max(text.count("\n") for text in heads))
    row, foot = 0.32, 0.1
    width, height = left + cell * len(names) + 0.15, head + row * len(kinds) + foot
    width = max(width, 4.4)
    heading = style.heading(title + _left_out(len(counts) - len(most)), width)
    low = min(0.5, float(wide.to_numpy().min()))
    with style.look():
        figure = plt.figure(figsize=(width, height))
        axis = figure.add_axes(
            (left / width, foot / height, cell * len(names) / width, row * len(kinds) / height)
        )
        axis.pcolormesh(
            wide.to_numpy(), cmap=_HEAT, vmin=low, vmax=1, edgecolors="white", linewidth=1.5
        )
        for (down, across), value in np.ndenumerate(wide.to_numpy()):
            red, green, blue, _ = _HEAT((value - low) / (1 - low))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axis.text(
                across + 0.5, down + 0.5, f"{100 * value:.1f}", ha="center", va="center",
                color="white" if dark else style.INK,
            )  # fmt: skip
        axis.set_yticks(np.arange(len(kinds)) + 0.5, kinds)
        axis.set_xticks(np.arange(len(names)) + 0.5, heads)
        axis.invert_yaxis()
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        figure.text(
            0.1 / width, 1 - 0.08 / height, heading, fontsize=11, fontweight="bold", va="top"
        )
        figure.text(
            0.1 / width, 1 - 0.3 / height,
            "Image AUROC in percent, each kind of defect against all good images",
            color=style.GREY, va="top",
        )  # fmt: skip
        style.save(figure, output)


_HEAT = LinearSegmentedColormap.from_list("indad", ["#f3e9dc", "#9cc3dd", "#0b4f7d"])
