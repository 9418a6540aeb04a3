"""The comparisons of experiments as a Markdown document."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from indad.evaluation.comparison import AVERAGE, FEWEST, OVER_CATEGORIES, lowest_wilcoxon_p
from indad.reporting.markdown import markdown_table
from indad.reporting.numbers import p_value
from indad.reporting.tables import RANKS_DEPEND, SUMMARY, TITLES, both_orders, select


def document(
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    ranked: pd.DataFrame,
    experiments: Sequence[str],
    *,
    level: float,
    figure: str,
) -> str:
    """Return Markdown: for each data set and main metric, the best experiments and the tests.

    Args:
        metrics: tidy metrics.
        comparisons: rows of ``comparison.COMPARISON_COLUMNS``.
        ranked: rows of ``comparison.RANK_COLUMNS``.
        experiments: in the order of the tables.
        level: confidence level.
        figure: path of a diagram, with placeholders ``{dataset}`` and ``{metric}``.
    """
    if comparisons.empty:
        return "# Comparisons\n\nThere is only one experiment, so there is nothing to compare.\n"
    parts = ["# Comparisons"]
    for (dataset, metric), values in metrics.groupby(["dataset", "metric"], sort=False):
        if metric not in SUMMARY:
            continue
        keys = {"dataset": dataset, "metric": metric}
        pairs = select(comparisons, **keys)
        single = ~pairs["category"].isin([AVERAGE, OVER_CATEGORIES])
        means = values.groupby(["category", "experiment"], sort=False)["value"].mean()
        parts += [
            f"## {TITLES[metric]}: {dataset}",
            *_averages(select(pairs, category=AVERAGE)),
            _within_categories(means, pairs[single], experiments, 1 - level),
            *_other_categories(
                select(ranked, **keys),
                select(pairs, category=OVER_CATEGORIES),
                figure.format(**keys),
                1 - level,
            ),
        ]
    parts.append(
        "Differences in percentage points, of an experiment minus the best of its row or of a pair "
        f"in the order of its name, with {100 * level:g} % intervals, which are not corrected: for "
        "the difference that unlimited test images like these would give. p after Holm's "
        "correction for all pairs of experiments, not for the number of categories. Same test "
        "images: DeLong's test for image AUROC, a paired jackknife over images for pixel AUROC "
        "and pixel average precision, a paired bootstrap over images for all other metrics. The "
        "variance of a difference of averages is the sum of the categories' variances, divided by "
        'the squared number of categories. "Not significantly different" does not mean equal: '
        "the interval shows how large the difference may be. Seeds are averaged; the intervals do "
        "not include the variation between seeds. All pairs: `comparisons.csv`, `ranks.csv`."
    )
    return "\n\n".join(parts) + "\n"


def _averages(pairs: pd.DataFrame) -> list[str]:
    """Return the table of differences of averages; nothing for a single category."""
    lines = [
        [f"{row.experiment_a} - {row.experiment_b}", _difference(row), p_value(row.p_holm)]
        for row in pairs.itertuples()
    ]
    header = ["average over these categories", "difference", "p (Holm)"]
    return [markdown_table(header, lines, left=range(3))] if lines else []


def _other_categories(
    ranked: pd.DataFrame, pairs: pd.DataFrame, figure: str, alpha: float
) -> list[str]:
    """Return the ranks and Wilcoxon's tests, which are about other categories like these."""
    if ranked.empty or ranked["n_categories"].iloc[0] < FEWEST:
        return []
    first, count = ranked.iloc[0], int(ranked["n_categories"].iloc[0])
    parts = [f"For other categories like these, of which these {count} are the observations: "]
    if np.isfinite(first["friedman_p"]):
        listed = ", ".join(
            f"{row.experiment} {row.mean_rank:.2f}"
            for row in ranked.sort_values("mean_rank", kind="stable").itertuples()
        )
        parts[0] += (
            f"mean rank {listed}; Friedman's chi-square test {p_value(first['friedman_p'])}. "
        )
        if first["friedman_p"] < alpha:
            parts[0] += (
                f"Nemenyi's critical difference of two mean ranks is "
                f"{first['critical_difference']:.2f}. {RANKS_DEPEND} "
            )
            parts.append(f"![critical difference]({figure})")
        else:
            parts[0] += "The ranks do not differ significantly. "
    if pairs.empty:
        lowest = lowest_wilcoxon_p(count, len(ranked))
        parts[0] += (
            "Wilcoxon's test is not shown: however large the differences, its p after Holm's "
            f"correction for all pairs is at least {min(lowest, 1):.2g}."
        )
    parts[0] = parts[0].strip()
    lines = [
        [
            f"{row.experiment_a} - {row.experiment_b}",
            _difference(row),
            p_value(row.p_holm),
            f"{row.effect_size:+.2f}",
        ]
        for row in pairs.itertuples()
    ]
    header = ["other categories (Wilcoxon)", "median difference", "p (Holm)", "rank-biserial"]
    return [*parts, markdown_table(header, lines, left=range(4))] if lines else parts


def _within_categories(
    means: pd.Series, pairs: pd.DataFrame, experiments: Sequence[str], alpha: float
) -> str:
    """Return a table with the best experiment of each category and its tests against the others."""
    lines = []
    for category in dict.fromkeys(means.index.get_level_values("category")):
        have = [name for name in experiments if (category, name) in means.index]
        best = max(have, key=lambda name: means[category, name])
        tested = select(pairs, category=category)
        equal, worse = [], []
        for row in select(both_orders(tested), experiment_b=best).itertuples():
            text = f"{row.experiment_a} {_difference(row)}, {p_value(row.p_holm)}"
            (worse if row.p_holm < alpha else equal).append(text)
        counts = [f"{row.n_good} / {row.n_defective}" for row in tested.itertuples()]
        lines.append(
            [
                category,
                counts[0] if counts else "-",
                f"{best} {100 * means[category, best]:.1f}",
                "<br>".join(equal) or "-",
                "<br>".join(worse) or "-",
            ]
        )
    header = ["category", "good / defective", "best", "not significantly different", "worse"]
    return markdown_table(header, lines, left=range(5))


def _difference(row: Any) -> str:
    """Write a difference in percentage points with its interval."""
    text = f"{100 * row.difference + 0:+.1f}"
    interval = f" [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]"
    return text if np.isnan(row.ci_low) else text + interval
