"""Figures of a category by kind of defect: image scores and image AUROC."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from indad.data.folder_layout import GOOD
from indad.evaluation import cases
from indad.reporting import colours, style

#: Maximum number of kinds of defects in a figure; the CSV file has all.
MOST_DEFECTS = 20
_HEAT = LinearSegmentedColormap.from_list("indad", ["#f3e9dc", "#9cc3dd", "#0b4f7d"])
_MARKS = {
    "good": {"marker": "o", "color": "#9aa0a6"},
    "defective": {"marker": "o", "color": "#33526e"},
    cases.MISSED: {"marker": "v", "color": colours.MISSED},
    cases.FALSE_ALARM: {"marker": "X", "color": colours.FALSE_ALARM},
}


def _most_frequent(counts: pd.Series) -> tuple[list[str], str]:
    """Return the kinds with the most images, sorted by name, and a remark on the others."""
    most = counts.sort_values(ascending=False, kind="stable").index[:MOST_DEFECTS]
    left_out = len(counts) - len(most)
    return sorted(map(str, most)), f" (without the {left_out} rarest kinds)" if left_out else ""


def draw_scores(
    names: Sequence[str], tables: Sequence[pd.DataFrame], output: Path, *, title: str
) -> None:
    """Draw every test image's score by kind of defect and the threshold, one panel per experiment.

    Args:
        names: of the experiments.
        tables: image scores of each experiment, as ``scores.read_table``.
        output: the PNG file.
        title: heading.
    """
    counts = tables[0][tables[0]["label"] == 1].groupby("defect").size()
    kinds, remark = _most_frequent(counts)
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    with style.panels(
        output,
        title + remark,
        rows,
        columns,
        width=max(5.6, style.WIDTH * columns / 3),
        height=0.95 + rows * (0.75 + 0.3 * (1 + len(kinds))),
        sharey=True,
    ) as (figure, axes):
        for i, (axis, name, table) in enumerate(zip(axes.flat, names, tables, strict=False)):
            _strip(axis, table, kinds)
            axis.set_title("     " + style.wrap(name, 2.0, 10, lines=1), loc="left")
            axis.add_artist(_swatch(axis, i))
        for axis in axes.flat[len(tables) :]:
            axis.axis("off")
        handles = [
            Line2D([], [], linestyle="", markersize=5, label=label, **look)
            for label, look in _MARKS.items()
        ]
        label = "default threshold of predict, from the good images"
        handles.append(Line2D([], [], color=colours.INK, linewidth=1, linestyle="--", label=label))
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=5 if columns == 3 else 3,
            frameon=False,
            columnspacing=1.2,
            handletextpad=0.4,
        )


def _strip(axis: Axes, table: pd.DataFrame, kinds: Sequence[str]) -> None:
    """Draw the scores of one experiment, one row of marks per kind."""
    labels, score = table["label"].to_numpy(), table["score"].to_numpy()
    groups = {GOOD: labels == 0}
    groups |= {kind: (labels == 1) & (table["defect"] == kind).to_numpy() for kind in kinds}
    logarithmic = score.min() > 0 and score.max() > 10 * score.min()
    row = np.full(len(table), np.nan)
    for place, chosen in enumerate(groups.values()):
        row[chosen] = place
    # Random offsets separate the marks of similar scores.
    row += np.random.default_rng(0).uniform(-0.3, 0.3, len(row))
    at = cases.threshold(table)
    verdict = cases.verdicts(table, at)
    marks = np.where(verdict == "", np.where(labels == 0, "good", "defective"), verdict)
    for name, look in _MARKS.items():
        chosen = (marks == name) & ~np.isnan(row)
        size = 30 if name in (cases.MISSED, cases.FALSE_ALARM) else 11
        axis.scatter(score[chosen], row[chosen], s=size, linewidths=0, **look, alpha=0.8)
    axis.axvline(at, color=colours.INK, linewidth=1, linestyle="--")
    names = [
        f"{style.shorten(style.readable(kind), 20)} ({chosen.sum()})"
        for kind, chosen in groups.items()
    ]
    axis.set_yticks(range(len(groups)), names)
    axis.set_ylim(len(groups) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    if logarithmic:
        style.logarithmic(axis, score.min(), score.max())
        axis.set_xlabel("image score, logarithmic")
    else:
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("image score")
    axis.grid(True, axis="x")


def _swatch(axis: Axes, number: int) -> Line2D:
    """Return a short piece of the experiment's line, drawn before the panel's title."""
    place = axis.transAxes + ScaledTranslation(0, 9 / 72, axis.figure.dpi_scale_trans)
    return Line2D(
        [0, 0.05], [1, 1], transform=place, clip_on=False, linewidth=4, **style.line(number)
    )  # fmt: skip


def defect_table(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return ``cases.by_defect`` of all experiments."""
    return pd.concat(map(cases.by_defect, names, tables), ignore_index=True)


def draw_defects(table: pd.DataFrame, output: Path, *, title: str) -> None:
    """Draw a heat map of the image AUROC of each kind of defect against all good images.

    Args:
        table: as ``defect_table``.
        output: the PNG file.
        title: heading.
    """
    if table["image_auroc"].isna().all():
        title = style.heading(title, style.WIDTH)
        with style.drawing(output, height=0.7 + 0.18 * title.count("\n")) as figure:
            _heads(
                figure,
                title,
                "Image AUROC by kind of defect is not defined: all test images are of one kind",
            )
        return
    names = list(table["experiment"].unique())
    counts = table.drop_duplicates("defect").set_index("defect")["images"]
    values = table.pivot_table(index="defect", columns="experiment", values="image_auroc")
    shown, remark = _most_frequent(counts)
    values = values.loc[shown, names]
    values = values.loc[values.mean(axis=1).sort_values(kind="stable").index]  # the hardest first
    kinds = [f"{style.shorten(style.readable(k), 24)} ({counts[k]})" for k in values.index]
    # Sizes in inches.
    left = 0.25 + 0.075 * max(map(len, kinds))
    cell = min(1.3, max(0.8, (style.WIDTH - left - 0.15) / len(names)))
    heads = [style.wrap(name, cell) for name in names]
    row, foot = 0.32, 0.1
    width = max(left + cell * len(names) + 0.15, 4.4)
    title = style.heading(title + remark, width)
    head = 0.55 + 0.18 * title.count("\n") + 0.15 * (1 + max(text.count("\n") for text in heads))
    height = head + row * len(kinds) + foot
    subtitle = "Image AUROC in percent, each kind of defect against all good images"
    with style.drawing(output, width=width, height=height) as figure:
        axis = figure.add_axes(
            (left / width, foot / height, cell * len(names) / width, row * len(kinds) / height)
        )
        _heat_map(axis, values.to_numpy())
        axis.set_yticks(np.arange(len(kinds)) + 0.5, kinds)
        axis.set_xticks(np.arange(len(names)) + 0.5, heads)
        axis.invert_yaxis()
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axis.spines[:].set_visible(False)
        _heads(figure, title, subtitle)


def _heat_map(axis: Axes, values: np.ndarray) -> None:
    """Draw values in [0, 1] as coloured cells with their percent."""
    low = min(0.5, float(values.min()))
    axis.pcolormesh(values, cmap=_HEAT, vmin=low, vmax=1, edgecolors="white", linewidth=1.5)
    for (down, across), value in np.ndenumerate(values):
        red, green, blue, _ = _HEAT((value - low) / (1 - low))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axis.text(
            across + 0.5, down + 0.5, f"{100 * value:.1f}", ha="center", va="center",
            color="white" if dark else colours.INK,
        )  # fmt: skip


def _heads(figure: Figure, title: str, subtitle: str) -> None:
    """Write a heading of any number of lines and a line below it."""
    style.text(figure, 0.1, 0.08, title, fontsize=11, fontweight="bold")
    style.text(figure, 0.1, 0.3 + 0.18 * title.count("\n"), subtitle, color=colours.GREY)
