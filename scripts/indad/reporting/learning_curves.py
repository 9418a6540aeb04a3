"""Learning curves: accuracy against the number of training images.

An experiment whose ``shots`` is a list is run once for each number. The seeds draw the training
images, so the spread over seeds is the spread over draws.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from indad.evaluation.comparison import difference_spread, t_test
from indad.evaluation.intervals import add
from indad.evaluation.resamples import Resamples
from indad.reporting import published, style
from indad.reporting.colours import GREY
from indad.reporting.markdown import markdown_table
from indad.reporting.numbers import NOT_MEASURED, p_value, percent
from indad.reporting.tables import AVERAGE, SHORT_TITLES, SUMMARY, select

#: The metric of the tests and sentences, and of the curves of single categories.
FIRST = SUMMARY[0]
#: Columns of the points and their types.
COLUMNS = {
    "dataset": "str", "category": "str", "experiment": "str", "metric": "str", "shots": "int",
    "images": "float", "draws": "int", "percent": "float", "low": "float", "high": "float",
    "p": "float",
}  # fmt: skip
#: Level of the tests between fewer images and the most.
ALPHA = 0.05
#: Numbers of images that the summary states, or those of the curve that are nearest.
STATED = (10, 50)

#: Experiment as configured, to the experiments it is run as and their shots, None for all images.
Sweeps = Mapping[str, Mapping[str, int | None]]


def gather(
    metrics: pd.DataFrame,
    sweeps: Sweeps,
    trained: Mapping[tuple[str, str], int],
    runs: Iterable[Resamples],
) -> pd.DataFrame:
    """Return the points of all curves.

    Args:
        metrics: tidy metrics, as ``evaluate.read``.
        sweeps: the experiments with several shots.
        trained: data set and category to its number of training images.
        runs: the image scores of these experiments.

    Returns:
        ``COLUMNS``: the category, or ``average`` of several; ``shots``, 0 for all images; the
        ``images`` in use, at most those of the category, and their mean for an average;
        ``percent``, the mean over the ``draws``, with their minimum ``low`` and maximum ``high``;
        for the image AUROC ``p``, of the difference to the value with the most shots on the same
        test images (DeLong).
    """
    names = {one: (base, shots) for base, each in sweeps.items() for one, shots in each.items()}
    most = {base: max(each, key=lambda one: each[one] or math.inf) for base, each in sweeps.items()}
    chosen = metrics[metrics["experiment"].isin(names) & metrics["metric"].isin(SUMMARY)]
    means = chosen.groupby(["dataset", "metric", "category", "experiment"])["value"].mean()
    draws_of: dict[str, dict[tuple[str, str], list[Resamples]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        draws_of[run.dataset][run.category, run.experiment].append(run)
    points = []
    keys = ["dataset", "metric", "experiment"]
    for (dataset, metric, experiment), rows in chosen.groupby(keys, sort=False):
        base, shots = names[experiment]
        values = 100 * rows.pivot_table("value", "seed", "category")
        used = pd.Series({
            name: min(shots or math.inf, trained[dataset, name]) for name in values
        })  # fmt: skip
        scopes = [(name, [name]) for name in values]
        if len(scopes) > 1:
            scopes.append((AVERAGE, list(values)))
        for scope, categories in scopes:
            draws, p = values[categories].dropna().mean(axis=1), math.nan
            if metric == FIRST:
                table = means[dataset, metric].unstack("category")[categories]
                p = _p_of_difference(table, most[base], experiment, draws_of[dataset])
            points.append((
                dataset, scope, base, metric, shots or 0, used[categories].mean(), len(draws),
                draws.mean(), draws.min(), draws.max(), p,
            ))  # fmt: skip
    categories = [AVERAGE, *metrics["category"].unique()]
    return _ordered(pd.DataFrame(points, columns=list(COLUMNS)), categories, list(sweeps))


def _p_of_difference(
    means: pd.DataFrame, last: str, other: str, draws: Mapping[tuple[str, str], list[Resamples]]
) -> float:
    """Test the difference of two experiments' image AUROC, averaged over the columns of means."""
    difference = (means.loc[last] - means.loc[other]).mean(skipna=False)
    if math.isnan(difference):
        return math.nan
    spreads = [difference_spread(draws[at, last], draws[at, other], FIRST) for at in means]
    return t_test(difference, add(spreads, 1 / len(spreads)), 1 - ALPHA)[2]


def _ordered(
    table: pd.DataFrame, categories: Sequence[str], experiments: Sequence[str]
) -> pd.DataFrame:
    """Sort the points of all curves, and leave out points that repeat another one."""
    orders = {"metric": SUMMARY, "category": categories, "experiment": experiments}
    for column, order in orders.items():
        table[column] = pd.Categorical(table[column], order)
    # A category with fewer images than shots uses all its images: the same point once.
    keys = ["dataset", *orders, "images"]
    table = table.sort_values([*keys, "shots"], ignore_index=True).drop_duplicates(keys)
    return table.astype(dict.fromkeys(orders, str))


def enough(curve: pd.DataFrame) -> float:
    """Return the number of images from which more make no significant difference.

    It is the lowest for which neither its value nor that of any more images differs from the value
    with the most.

    Args:
        curve: points of one category and experiment, image AUROC, by number of images.
    """
    differs = ~(curve["p"] >= ALPHA).to_numpy()
    differs[-1] = False
    return float(curve["images"].iloc[differs.nonzero()[0].max() + 1 if differs.any() else 0])


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """Yield one sentence for each data set and experiment on its average image AUROC.

    Args:
        table: as `gather`.
    """
    keys = ["dataset", "experiment"]
    for (dataset, experiment), curve in overall(table).groupby(keys, sort=False):
        sizes = curve["images"].to_numpy()
        stated = [sizes[np.abs(np.log(sizes / number)).argmin()] for number in STATED]
        values = [
            f"{each.images:.0f} good image{'s' * (each.images > 1)} "
            f"{'gives' if each.images == 1 else 'give'} {_value(each)}"
            for each in curve[curve["images"].isin(stated)].itertuples()
        ]
        limit, last = enough(curve), curve.iloc[-1]
        before = curve.iloc[max(-2, -len(curve))]
        most = f"{last.images:.0f} images" if last.shots else "all images"
        at = curve[curve["images"] == limit].iloc[0]
        yield f"{dataset}, {experiment}, image AUROC: {', '.join(values)}. " + (
            f"More than {limit:.0f} good {'image makes' if limit == 1 else 'images make'} no "
            f"difference that these test images can show: {percent(at.percent)} with "
            f"{limit:.0f}, {percent(last.percent)} with {most} ({p_value(at.p)})."
            if limit < last.images
            else f"The value still rises with the last images added ({p_value(before.p)}): more "
            f"than {last.images:.0f} images may help."
        )


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Return the image AUROC averaged over categories, or that of a single category."""
    rows = select(table, metric=FIRST)
    averaged = rows.groupby("dataset")["category"].transform(lambda each: (each == AVERAGE).any())
    return rows[(rows["category"] == AVERAGE) | ~averaged]


def document(
    table: pd.DataFrame,
    compared: Mapping[str, str],
    methods: Mapping[str, str],
    *,
    heading: str = "#",
    selected: Collection[str] = SUMMARY,
) -> str:
    """Return the curves as Markdown: the summary and one table for each data set and metric.

    Args:
        table: as `gather`.
        compared: data set to its name in the published results.
        methods: experiment to its method.
        heading: Markdown level of the first heading.
        selected: metrics with a table.
    """
    parts = [f"{heading} Accuracy against the number of training images"]
    parts.append("\n".join(f"- {each}" for each in sentences(table)))
    table = table[table["metric"].isin(selected)]
    for (dataset, metric), rows in table.groupby(["dataset", "metric"], sort=False):
        header, lines = grid(rows, compared.get(dataset, ""), methods)
        parts.append(f"{heading}# {SHORT_TITLES[metric]}: {dataset}")
        parts.append(markdown_table(header, lines, (0, 1)))
    parts.append(
        "Percent, mean over the draws of training images (seeds); in parentheses the lowest and "
        "the highest. A category with fewer images than asked for uses all it has. Published "
        "low-shot values: `resources/published_low_shot.csv`, each with its source; Wide "
        "ResNet-50-2, average of all 15 categories."
    )
    return "\n\n".join(parts) + "\n"


def grid(
    rows: pd.DataFrame, compared: str, methods: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table: curves by number of training images.

    Args:
        rows: points of one data set and metric.
        compared: name of the data set in the published results; "" for none.
        methods: experiment to its method.
    """
    sizes = sorted(set(rows["shots"]) - {0}) + [0] * (0 in set(rows["shots"]))
    lines = []
    for (category, experiment), curve in rows.groupby(["category", "experiment"], sort=False):
        cells = {each.shots: _value(each) for each in curve.itertuples()}
        lines.append([category, experiment, *(cells.get(n, NOT_MEASURED) for n in sizes)])
        if category == AVERAGE:
            theirs = low_shot(compared, methods.get(experiment, ""), rows["metric"].iloc[0])
            lines += [
                ["", f"{name}, {backbone}", *(percent(values.get(n, np.nan)) for n in sizes)]
                for (name, backbone), values in theirs.items()
            ]
    return ["category", "experiment", *(str(n) if n else "all" for n in sizes)], lines


def low_shot(dataset: str, method: str, metric: str) -> dict[tuple[str, str], dict[int, float]]:
    """Return published low-shot values: name and backbone to shots to percent."""
    chosen = select(published.low_shot(), dataset=dataset, method=method, metric=metric)
    return {
        names: dict(zip(each["shots"], each["percent"], strict=True))
        for names, each in chosen.groupby(["name", "backbone"], sort=False)
    }


def draw(
    table: pd.DataFrame,
    dataset: str,
    output: Path,
    *,
    compared: str = "",
    methods: Mapping[str, str],
) -> None:
    """Draw the curves of a data set: averages of each metric, then each category's image AUROC.

    Args:
        table: as `gather`.
        dataset: the data set.
        output: the PNG file.
        compared: name of the data set in the published results.
        methods: experiment to its method.
    """
    mine = select(table, dataset=dataset)
    number = {name: i for i, name in enumerate(dict.fromkeys(mine["experiment"]))}
    categories = [name for name in dict.fromkeys(mine["category"]) if name != AVERAGE]
    first = AVERAGE if len(categories) > 1 else categories[0]
    shown = [(first, metric) for metric in SUMMARY if (mine["metric"] == metric).any()]
    shown += [(name, FIRST) for name in categories if len(categories) > 1]
    columns = 3
    rows = math.ceil(len(shown) / columns)
    with style.panels(
        output,
        f"Accuracy against the number of training images: {dataset}",
        rows,
        columns,
        height=1.1 + 2.3 * rows + 0.2 * math.ceil(len(number) / 3),
    ) as (figure, axes):
        for axis, (category, metric) in zip(axes.flat, shown, strict=False):
            _panel(axis, select(mine, category=category, metric=metric), number)
            axis.set_title(f"{category}: {SHORT_TITLES[metric]}", loc="left")
            if category == AVERAGE:
                _published(axis, number, methods, compared, metric)
        for axis in axes.flat[len(shown) :]:
            axis.axis("off")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=3, frameon=False, borderpad=0
        )


def _panel(axis: Axes, curves: pd.DataFrame, number: Mapping[str, int]) -> None:
    """Draw the mean and the range over draws of each experiment."""
    for experiment, curve in curves.groupby("experiment", sort=False):
        look = style.line(number[experiment])
        axis.fill_between(
            curve["images"], curve["low"], curve["high"], color=look["color"], alpha=0.15, lw=0
        )
        axis.plot(
            curve["images"], curve["percent"], marker="o", markersize=3, label=experiment, **look
        )
    most = curves["images"].max()
    style.logarithmic(axis, 0.9 * curves["images"].min(), 1.15 * most)
    axis.set_xlim(0.9 * curves["images"].min(), 1.15 * most)
    axis.set_xlabel("training images")
    axis.set_ylabel("percent")
    axis.grid(True)


def _published(
    axis: Axes, number: Mapping[str, int], methods: Mapping[str, str], dataset: str, metric: str
) -> None:
    """Add the published low-shot values of the experiments' methods."""
    drawn = set()
    for experiment, order in number.items():
        for (name, _), values in low_shot(dataset, methods[experiment], metric).items():
            if name not in drawn:
                drawn.add(name)
                axis.plot(
                    list(values), list(values.values()), linestyle=":", marker="o", markersize=4,
                    markerfacecolor="white", color=style.line(order)["color"],
                    label=f"{name}, published (WRN-50)",
                )  # fmt: skip
    if drawn:
        axis.annotate(
            "hollow: published, all 15 categories", (0.98, 0.03), xycoords="axes fraction",
            ha="right", color=GREY, fontsize=style.SMALL,
        )  # fmt: skip


def _value(point: Any) -> str:
    """Return a mean with the range over the draws."""
    spread = f" ({percent(point.low)} to {percent(point.high)})" if point.draws > 1 else ""
    return percent(point.percent) + spread
