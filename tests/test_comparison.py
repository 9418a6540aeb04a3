"""Comparisons equal scipy and published worked examples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from conftest import table_rows
from indad.core.errors import StoreError
from indad.evaluation import bootstrap, comparison, counts, evaluate, metrics
from indad.evaluation.resamples import Resamples
from indad.reporting import comparisons_document, diagrams
from test_uncertainty import slow_delong

# Demsar, JMLR 7 (2006), table 6: AUC of C4.5 and three variants on 14 data sets. Where it prints
# 0.975 twice in a row, its ranks show that the first was a little larger.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def tidy(values: np.ndarray, names=NAMES, metric="image_auroc", dataset="d") -> pd.DataFrame:
    """Metrics of categories (rows) by experiments (columns)."""
    return pd.concat(
        [
            evaluate.tidy(
                {metric: value}, dataset=dataset, category=f"c{i}", experiment=name, seed=0
            )
            for i, row in enumerate(values)
            for name, value in zip(names, row, strict=True)
        ],
        ignore_index=True,
    )


def test_ranks_are_demsars():
    ranked = comparison.ranks(tidy(DEMSAR), NAMES, level=0.95).set_index("experiment")
    assert ranked["mean_rank"].round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    assert ranked["n_categories"].tolist() == [14] * 4
    assert ranked["critical_difference"].round(2).tolist() == [1.25] * 4
    assert ranked["friedman_p"].iloc[0] == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).pvalue)
    assert comparison.critical_difference(4, 14, 0.9) == pytest.approx(2.291 * 0.4880, abs=1e-3)


def test_wilcoxon_is_demsars():
    """Section 3.1.3: C4.5 against C4.5+m has rank sums 93 and 12, significant at 0.05."""
    pairs = comparison.over(tidy(DEMSAR), {"d": (5, 7)}, NAMES, level=0.95)
    row = pairs.iloc[0]
    assert (row["experiment_a"], row["experiment_b"]) == ("C4.5", "C4.5+m")
    assert row["effect_size"] == pytest.approx((12 - 93) / 105)
    assert 0.01 < row["p"] < 0.05
    d = DEMSAR[:, 0] - DEMSAR[:, 1]
    assert row["p"] == pytest.approx(stats.wilcoxon(d.round(10), zero_method="zsplit").pvalue)
    assert row["difference"] < 0
    assert row["ci_low"] <= row["difference"] <= row["ci_high"] < 0.001
    assert row["category"] == comparison.OVER_CATEGORIES
    assert (row["n_good"], row["n_defective"]) == (5, 7)
    assert (pairs["p_holm"] >= pairs["p"]).all()


def test_hodges_lehmann_by_hand():
    """Six differences: the exact 95 % interval of the signed-rank test is their range."""
    d = np.array([1.0, 2.0, 4.0, 7.0, 11.0, 16.0])
    estimate, low, high = comparison.hodges_lehmann(d, 0.95)
    means = [(a + b) / 2 for i, a in enumerate(d) for b in d[i:]]
    assert (estimate, low, high) == (np.median(means), 1.0, 16.0)
    assert np.isnan(comparison.hodges_lehmann(d[:5], 0.95)[1])


def test_holm_by_hand():
    got = comparison.holm([0.01, 0.04, 0.03, np.nan, 0.5])
    np.testing.assert_allclose(got, [0.04, 0.09, 0.09, np.nan, 0.5])
    assert comparison.holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_incomplete_categories_do_not_rank_and_two_are_too_few():
    frame = tidy(DEMSAR[:4])
    frame = frame.drop(index=[0])  # the first category lacks an experiment
    ranked = comparison.ranks(frame, NAMES, level=0.95)
    assert set(ranked["n_categories"]) == {3}
    few = tidy(DEMSAR[:2])
    ranked = comparison.ranks(few, NAMES, level=0.95)
    assert ranked[["friedman_p", "critical_difference"]].isna().all(axis=None)
    assert comparison.over(few, {"d": (1, 1)}, NAMES, level=0.95).empty
    same = comparison.ranks(tidy(np.ones((5, 4))), NAMES, level=0.95)
    assert set(same["friedman_p"]) == {1.0}


# -- within a category ----------------------------------------------------------------------------


def run(scores, labels, experiment="a", seed=0, **changes) -> tuple[Resamples, pd.DataFrame]:
    counted = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
    drawn = counted.metrics(bootstrap.draws(labels, 400, 0))
    names = np.array([f"{i}.png" for i in range(len(labels))])
    fields = {
        "dataset": "d", "category": "c", "experiment": experiment, "seed": seed, "image": names,
        "label": labels, "score": scores, "area": 0 * labels, "draw_seed": 0, "n_regions": 0,
        "values": dict(zip(metrics.IMAGE_METRICS, drawn, strict=False)), "left_out": {},
    }  # fmt: skip
    values = metrics.image_metrics(labels, scores)
    keys = {"dataset": "d", "category": "c", "experiment": experiment, "seed": seed}
    return Resamples(**fields | changes), evaluate.tidy(values, **keys)


def compared(*each, names=("a", "b")):
    runs, rows = zip(*each, strict=True)
    table = comparison.within(list(runs), pd.concat(rows), names, level=0.95)
    return table.set_index("metric")


@pytest.fixture
def labels() -> np.ndarray:
    return np.repeat([0, 1], [30, 50])


def test_image_auroc_by_delong(rng, labels):
    a, b = rng.normal(size=(2, 80)) + labels * np.array([[1.0], [0.6]])
    row = compared(run(a, labels), run(b, labels, "b")).loc["image_auroc"]
    aurocs, covariance = slow_delong(labels, np.stack([a, b]))
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert row["difference"] == pytest.approx(aurocs[0] - aurocs[1])
    assert row["p"] == pytest.approx(2 * stats.norm.sf(abs(row["difference"]) / error))
    assert row["ci_high"] == pytest.approx(row["difference"] + 1.959964 * error, rel=1e-5)
    assert (row["method"], row["n_good"], row["n_defective"]) == ("DeLong", 30, 50)


def test_pairing_narrows_the_interval_of_a_difference(rng, labels):
    shared = rng.normal(size=80) + 1.5 * labels
    a, b = run(shared, labels), run(shared + 0.1 * rng.normal(size=80), labels, "b")
    table = compared(a, b)
    for metric in ("image_auroc", "image_ap"):
        alone = np.hypot(a[0].values[metric].std(), b[0].values[metric].std())
        assert table.loc[metric, "ci_high"] - table.loc[metric, "ci_low"] < 2 * alone
    assert (table["p"] > 0.05).all()


def test_a_clear_difference_is_found_with_its_sign(rng, labels):
    good, bad = run(rng.normal(size=80) + 4 * labels, labels), run(rng.normal(size=80), labels, "b")
    table = compared(good, bad)
    assert (table["p"] < 1e-3).all()
    assert (table["ci_low"] > 0.05).all()
    again = compared(good, bad, names=("b", "a"))
    np.testing.assert_allclose(again["difference"], -table["difference"])


def test_equal_scores_have_p_1_and_no_interval(rng, labels):
    scores = rng.normal(size=80) + labels
    table = compared(run(scores, labels), run(3 * scores, labels, "b"))
    assert (table["p"] == 1).all()
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_seeds_are_averaged(rng, labels):
    each = [
        run(rng.normal(size=80) + labels, labels, name, seed) for name in "ab" for seed in (0, 1)
    ]
    table = compared(*each)
    values = pd.concat(rows for _, rows in each).groupby(["metric", "experiment"])["value"].mean()
    for metric in metrics.IMAGE_METRICS:
        assert table.loc[metric, "difference"] == pytest.approx(
            values[metric, "a"] - values[metric, "b"]
        )
    single = compared(each[0], each[2])
    assert table.loc["image_auroc", "ci_high"] - table.loc["image_auroc", "ci_low"] < (
        single.loc["image_auroc", "ci_high"] - single.loc["image_auroc", "ci_low"]
    )


def test_runs_that_cannot_be_paired_are_refused(rng, labels):
    a = run(rng.normal(size=80), labels)
    with pytest.raises(StoreError, match="d/c: b seed 0 has other test images than a seed 0"):
        compared(a, run(a[0].score[1:], labels[1:], "b"))
    with pytest.raises(StoreError, match="has other resamples"):
        compared(a, run(a[0].score, labels, "b", draw_seed=1))


def test_without_resamples_only_delong_is_left(rng, labels):
    a, b = (run(rng.normal(size=80) + labels, labels, name, values={}) for name in "ab")
    table = compared(a, b)
    assert np.isfinite(table.loc["image_auroc", "p"])
    assert np.isnan(table.loc["image_ap", "p"])


# -- averages over categories ---------------------------------------------------------------------


def made_up_pairs(frame: pd.DataFrame, error: float = 0.01) -> pd.DataFrame:
    """The tests within the categories of ``tidy``, of values with a known standard error."""
    wide = frame.pivot_table("value", "category", "experiment", sort=False)[NAMES]
    rows = [
        ("d", category, "image_auroc", a, b, row[a] - row[b], np.nan, np.nan, 0.5, 0.5, "DeLong",
         20, 60, np.nan, error, np.inf)
        for category, row in wide.iterrows()
        for i, a in enumerate(NAMES)
        for b in NAMES[i + 1 :]
    ]  # fmt: skip
    pairs = pd.DataFrame(rows, columns=list(comparison.COMPARISON_COLUMNS))
    return pd.concat([pairs, comparison.averages(pairs, level=0.95)], ignore_index=True)


def test_the_average_of_aurocs_is_compared_by_delong(rng):
    """Two categories of other images: the variance is that of independent AUROCs, pair by pair."""
    parts, expected, variance = [], [], 0.0
    for category, (good, bad) in {"c": (12, 30), "e": (20, 15)}.items():
        labels = np.repeat([0, 1], [good, bad])
        a, b = rng.normal(size=(2, good + bad)) + labels * np.array([[1.5], [0.8]])
        pair = [run(a, labels, category=category), run(b, labels, "b", category=category)]
        runs, rows = zip(*pair, strict=True)
        parts.append(comparison.within(runs, pd.concat(rows), ("a", "b"), level=0.95))
        aurocs, covariance = slow_delong(labels, np.stack([a, b]))
        expected.append(aurocs[0] - aurocs[1])
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / 4
    table = comparison.averages(pd.concat(parts), level=0.95).set_index("metric")
    row = table.loc["image_auroc"]
    assert row["difference"] == pytest.approx(np.mean(expected))
    assert row["p"] == pytest.approx(2 * stats.norm.sf(abs(np.mean(expected)) / variance**0.5))
    assert row["ci_high"] == pytest.approx(np.mean(expected) + 1.959964 * variance**0.5, rel=1e-5)
    assert (row["category"], row["method"]) == (comparison.AVERAGE, "DeLong")
    assert (row["n_good"], row["n_defective"]) == (32, 45)
    assert 14 < table.loc["image_ap", "freedom"] < 29 + 14  # Satterthwaite's
    assert comparison.averages(parts[0], level=0.95).empty


@pytest.mark.parametrize("categories", [2, 3, 5, 15])
def test_a_clear_lead_is_significant_with_any_number_of_categories(categories):
    """An experiment that is 15 points better everywhere; the pairs are corrected together."""
    values = np.tile([0.95, 0.81, 0.8, 0.8], (categories, 1))
    pairs = made_up_pairs(tidy(values), error=0.03)
    average = pairs[pairs["category"] == comparison.AVERAGE].set_index("experiment_b")
    leads = average[average["experiment_a"] == "C4.5"]
    assert (leads["p_holm"] < 0.001).all()
    np.testing.assert_allclose(leads["difference"], [0.14, 0.15, 0.15])
    np.testing.assert_allclose(leads["standard_error"], 0.03 / categories**0.5)
    assert (average.drop(leads.index)["p_holm"] > 0.3).all()


def test_opposite_effects_are_no_lead():
    values = np.array([[0.9, 0.7, 0.8, 0.8], [0.7, 0.9, 0.8, 0.8]])
    pairs = made_up_pairs(tidy(values))
    average = pairs[pairs["category"] == comparison.AVERAGE]
    assert (average["p_holm"] == 1).all()


def test_wilcoxon_is_left_out_where_it_cannot_reach_the_level():
    """All differences of one sign give the lowest p: pairs * 2^(1 - n) after Holm's correction."""
    values = 0.5 + 0.01 * np.arange(1, 10)[:, None] * np.arange(3)
    names = NAMES[:3]
    for categories in (6, 7):
        frame = tidy(values[:categories], names)
        pairs = comparison.over(frame, {"d": (1, 1)}, names, level=0.95)
        lowest = comparison.lowest_wilcoxon_p(categories, 3)
        assert lowest == 3 * 2.0 ** (1 - categories)
        assert pairs.empty == (lowest >= 0.05)
    np.testing.assert_allclose(pairs["p_holm"], lowest)
    lowest = [round(comparison.lowest_wilcoxon_p(n, 5), 3) for n in (6, 7, 8, 9)]
    assert lowest == [0.312, 0.156, 0.078, 0.039]


# -- documents ------------------------------------------------------------------------------------


def text(frame, pairs) -> str:
    ranked = comparison.ranks(frame, NAMES, level=0.95)
    return comparisons_document.document(
        frame, pairs, ranked, NAMES, level=0.95, figure="f/{dataset}_{metric}.png"
    )


def test_the_document_names_the_best_and_explains_a_missing_ranking(rng, labels):
    frame = tidy(DEMSAR)
    shown = text(frame, comparison.over(frame, {"d": (1, 1)}, NAMES, level=0.95))
    assert "mean rank C4.5+m+cf 1.96, C4.5+m 2.00" in shown
    assert "![critical difference](f/d_image_auroc.png)" in shown
    assert "near-copies of one method" in shown
    assert "| C4.5 - C4.5+m " in shown
    assert "is not shown" not in shown
    few = tidy(DEMSAR[:5])
    pairs = comparison.over(few, {"d": (1, 1)}, NAMES, level=0.95)
    assert pairs.empty
    shown = text(few, made_up_pairs(few))
    assert "of which these 5 are the observations" in shown
    assert "p after Holm's correction for all pairs is at least 0.38." in shown
    assert "| average over these categories " in shown
    assert "![critical difference]" not in shown  # Friedman's test is not significant
    assert "Friedman's chi-square test p = 0." in shown

    strong, weak = (
        run(rng.normal(size=80) + s * labels, labels, n) for s, n in ((4, "C4.5"), (0, "C4.5+m"))
    )
    rows = pd.concat([strong[1], weak[1]])
    pairs = comparison.within([strong[0], weak[0]], rows, NAMES, level=0.95)
    shown = text(rows, pairs)
    assert "other categories" not in shown
    (cells,) = (row for row in table_rows(shown) if row[0] == "c")
    assert cells[1] == "30 / 50"
    assert cells[2].startswith("C4.5 ")
    assert cells[3] == "-"
    assert cells[4].startswith("C4.5+m -")
    assert "p < 0.001" in cells[4]
    assert "nothing to compare" in text(strong[1], pairs[:0])


def test_bars_join_what_is_not_significantly_different():
    ranks = pd.Series([1.0, 1.8, 2.5, 4.0, 4.4])
    assert diagrams.groups(ranks, 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert diagrams.groups(ranks, 5.0) == [(0, 4)]
    assert diagrams.groups(ranks, 0.1) == []


def test_the_diagram_is_drawn(tmp_path):
    ranked = comparison.ranks(tidy(DEMSAR), NAMES, level=0.95)
    diagrams.critical_difference(ranked, tmp_path / "cd.png", title="d")
    with Image.open(tmp_path / "cd.png") as image:
        assert image.width > 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_images_behind_the_values_are_counted(labels, rng):
    area = np.repeat([0, 5], [40, 40])
    one, _ = run(rng.normal(size=80), labels, area=area, n_regions=44)
    listed = pd.DataFrame({"split": ["train"] * 7 + ["test"] * 80})
    row = counts.row(one, listed)
    assert list(row) == list(counts.COLUMNS)
    assert list(row.values()) == ["d", "c", 7, 30, 50, 40, 44]
