"""Resamples equal the exact metrics of repeated images; intervals equal textbook ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import roc_auc_score

from indad.core.errors import StoreError
from indad.data.ground_truth import GroundTruth
from indad.evaluation import bootstrap, evaluate, intervals, metrics, resamples
from indad.evaluation.intervals import Spread
from indad.evaluation.resamples import Resamples


def materialised(maps, masks, weights) -> list[float]:
    """The exact metrics of a resample whose images really are repeated."""
    chosen = np.repeat(np.arange(len(maps)), weights.astype(int))
    return list(metrics.pixel_metrics(maps[chosen], masks[chosen]).values())


def smooth_maps(rng, good: int, defective: int, side: int = 48):
    """Maps as methods give them: distinct floats, defects of different sizes and contrasts."""
    count = good + defective
    maps = rng.normal(size=(count, side, side)) + rng.normal(size=(count, 1, 1)) / 2
    masks = np.zeros(maps.shape, bool)
    for i in range(good, count):
        for _ in range(1 + i % 2):
            top, left = rng.integers(0, side * 3 // 4, 2)
            height, width = rng.integers(2, side // 4, 2)
            box = i, slice(top, top + height), slice(left, left + width)
            masks[box] = True
            maps[box] += rng.normal(2, 1)
    return maps.astype(np.float32), masks


@pytest.mark.parametrize(
    ("side", "most", "tolerance"),
    [
        (48, bootstrap.MOST_THRESHOLDS, 1e-9),
        (128, bootstrap.MOST_THRESHOLDS, 5e-4),
        (48, 300, 5e-3),
    ],
)
def test_resampled_pixel_metrics_are_those_of_repeated_images(rng, side, most, tolerance):
    """Exact for few positives; with fewer thresholds the error is small against the width."""
    maps, masks = smooth_maps(rng, 5, 9, side)
    labels = masks.any(axis=(1, 2)).astype(int)
    counts = bootstrap.ImageCounts.from_scores(maps, metrics.regions(masks), most)
    assert counts.fp.shape[1] <= most < np.unique(maps).size
    weights = bootstrap.draws(labels, 300, 0)
    got = counts.metrics(weights)
    width = np.ptp(np.quantile(got, [0.025, 0.975], axis=1), axis=0)
    assert (width > 20 * tolerance).all()
    for number in range(6):
        exact = materialised(maps, masks, weights[number])
        np.testing.assert_allclose(got[:, number], exact, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    maps=arrays(np.float32, (3, 5, 4), elements=st.integers(-4, 4).map(float)),
    masks=arrays(bool, (3, 5, 4)),
    weights=arrays(int, 3, elements=st.integers(0, 3)),
)
def test_with_ties_and_few_scores_they_are_exact(maps, masks, weights):
    chosen = np.repeat(masks, weights, axis=0)
    counts = bootstrap.ImageCounts.from_scores(maps, metrics.regions(masks))
    got = counts.metrics(weights[None].astype(float))[:, 0]
    if chosen.all() or not chosen.any():
        assert np.isnan(got[0])
        return
    np.testing.assert_allclose(got, materialised(maps, masks, weights), atol=1e-9)


def test_a_heavy_tie_among_many_scores_is_exact(rng):
    """Half of all pixels score the same, as where a method clips."""
    maps, masks = smooth_maps(rng, 4, 6)
    maps = np.maximum(maps, np.float32(np.median(maps)))
    labels = masks.any(axis=(1, 2)).astype(int)
    weights = bootstrap.draws(labels, 3, 1)
    counts = bootstrap.ImageCounts.from_scores(maps, metrics.regions(masks))
    for row, got in zip(weights, counts.metrics(weights).T, strict=True):
        np.testing.assert_allclose(got, materialised(maps, masks, row), atol=1e-4)


def test_resampled_image_metrics_are_exact(rng):
    labels = np.repeat([0, 1], [20, 35])
    scores = rng.integers(0, 30, 55) / 10 + labels  # some tie
    counts = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
    weights = bootstrap.draws(labels, 50, 0)
    for row, got in zip(weights, counts.metrics(weights)[:3].T, strict=True):
        chosen = np.repeat(np.arange(55), row.astype(int))
        exact = metrics.image_metrics(labels[chosen], scores[chosen])
        np.testing.assert_allclose(got, list(exact.values()), atol=1e-12)


def test_draws_are_stratified_and_reproducible():
    labels = np.array([1, 0, 0, 1, 1, 0, 1])
    weights = bootstrap.draws(labels, 400, 3)
    assert (weights[:, labels == 0].sum(axis=1) == 3).all()
    assert (weights[:, labels == 1].sum(axis=1) == 4).all()
    assert abs(weights.mean(axis=0) - 1).max() < 0.2
    np.testing.assert_array_equal(weights, bootstrap.draws(labels, 400, 3))
    assert (weights != bootstrap.draws(labels, 400, 4)).any()


# -- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (7, 30), (29, 30), (63, 63)])
def test_the_score_interval_of_a_proportion_is_wilsons(hits, count):
    share = hits / count
    many = Spread(share * (1 - share) / count, 10**9)  # so that Student's t is normal
    got = intervals.score_interval(share, many, level=0.9, most=count)
    expected = stats.binomtest(hits, count).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(got, (expected.low, expected.high), atol=1e-7)


def test_few_images_widen_an_interval_and_one_gives_none():
    resampled = np.array([0.87, 0.93])
    bounds = [
        intervals.score_interval(0.9, intervals.bootstrap_spread(resampled, m), level=0.95)
        for m in (1, 3, 10, 1000)
    ]
    widths = np.ptp(bounds, axis=1)
    assert widths[1] > 1.3 * widths[2] > 1.3 * widths[3]
    assert np.isnan(bounds[0]).all()


@settings(max_examples=50, deadline=None)
@given(
    value=st.integers(0, 1000).map(lambda k: k / 1000),
    good=st.integers(1, 300),
    defective=st.integers(1, 300),
    variance=st.floats(0, 0.2),
)
def test_an_auroc_interval_holds_the_value_within_zero_and_one(value, good, defective, variance):
    low, high = intervals.auroc_interval(
        value, variance, level=0.95, good=good, defective=defective
    )
    assert 0 <= low <= value <= high <= 1
    assert high - low > 1e-4
    mirrored = intervals.auroc_interval(
        1 - value, variance, level=0.95, good=good, defective=defective
    )
    np.testing.assert_allclose((1 - mirrored[1], 1 - mirrored[0]), (low, high), atol=1e-6)


def test_newcombes_bounds_are_as_far_as_their_own_standard_error_allows():
    """The interval's defining equation, written out as in the paper."""
    m, n, value = 63, 20, 0.97
    for bound in intervals.auroc_interval(value, 0.0, level=0.95, good=n, defective=m):
        more = (m + n) / 2 - 1
        inner = 1 + more * (1 - bound) / (2 - bound) + more * bound / (1 + bound)
        error = np.sqrt(bound * (1 - bound) * inner / (m * n))
        assert abs(bound - value) == pytest.approx(1.959964 * error, rel=1e-5)


def slow_delong(labels, scores):
    """DeLong, DeLong and Clarke-Pearson 1988, pair by pair."""
    psi = np.array(
        [[[(b > g) + (b == g) / 2 for g in s[labels == 0]] for b in s[labels == 1]] for s in scores]
    )
    m, n = psi.shape[1:]
    aurocs = psi.mean(axis=(1, 2))
    v10, v01 = psi.mean(axis=2) - aurocs[:, None], psi.mean(axis=1) - aurocs[:, None]
    return aurocs, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


def test_delong_by_ranks_is_delong_by_pairs(rng):
    labels = rng.permutation(np.repeat([0, 1], [13, 21]))
    scores = np.round(rng.normal(size=(3, 34)) + labels, 1)  # some tie
    below, above = intervals.placements(labels, scores)
    aurocs, covariance = slow_delong(labels, scores)
    np.testing.assert_allclose(below.mean(axis=1), aurocs, atol=1e-12)
    np.testing.assert_allclose(above.mean(axis=1), aurocs, atol=1e-12)
    np.testing.assert_allclose(aurocs, [roc_auc_score(labels, s) for s in scores])
    np.testing.assert_allclose(intervals.delong_covariance(below, above), covariance, atol=1e-12)


def test_kish_counts_equal_areas_as_images_and_a_dominating_one_as_few():
    """The jackknife of a mean is its textbook variance; unequal areas leave fewer images."""
    values = np.array([0.2, 0.9, 0.5, 0.7, 0.4])
    labels = np.ones(5, int)
    left_out = (values.sum() - values) / 4
    equal = intervals.jackknife_spread(left_out, labels, np.full(5, 7))
    assert equal.freedom == pytest.approx(4)
    assert equal.variance == pytest.approx(values.var(ddof=1) / 5 * 5 / 4)
    area = np.array([1, 1, 1, 1, 4])
    unequal = intervals.jackknife_spread(left_out, labels, area)
    assert unequal.freedom == pytest.approx(8**2 / 20 - 1)
    assert unequal.variance > equal.variance
    one = intervals.jackknife_spread(left_out, labels, np.array([0, 0, 0, 0, 9]))
    assert np.isnan(one.variance)


def test_good_and_defective_images_have_separate_degrees_of_freedom():
    """Welch's t-test: the difference of two means with Satterthwaite's degrees of freedom."""
    good, bad = np.array([3.0, 5.0, 4.0, 8.0]), np.array([2.0, 9.0])
    parts = [Spread(each.var(ddof=1) / len(each), len(each) - 1) for each in (good, bad)]
    expected = stats.ttest_ind(good, bad, equal_var=False)
    assert intervals.add(parts).freedom == pytest.approx(expected.df)
    assert intervals.add(parts, 0.5).variance == pytest.approx(sum(p.variance for p in parts) / 4)
    assert intervals.add([Spread(1.0, np.inf), Spread(2.0, np.inf)]) == Spread(3.0, np.inf)
    assert intervals.add([Spread(0.0, 3), Spread(0.0, 9)]) == Spread(0.0, 3)
    assert np.isnan(intervals.add([Spread(1.0, 3), intervals.UNKNOWN_SPREAD]).variance)


def test_the_interval_of_an_average_adds_the_squares_of_half_widths():
    """Normal intervals: the standard error of an average of independent values."""
    values, errors = np.array([0.6, 0.7, 0.5]), np.array([0.03, 0.04, 0.12])
    got = intervals.average_interval(values, values - 1.96 * errors, values + 1.96 * errors)
    np.testing.assert_allclose(got, (0.6 - 1.96 * 0.13 / 3, 0.6 + 1.96 * 0.13 / 3))


def test_an_average_of_perfect_values_is_narrower_than_they_are_and_not_certain():
    low, high = intervals.average_interval(np.ones(9), np.full(9, 0.9), np.ones(9))
    assert high == 1
    assert low == pytest.approx(1 - 0.05 / 3)
    assert np.isnan(intervals.average_interval(np.ones(2), np.array([0.9, np.nan]), np.ones(2))[0])


# -- of a run -------------------------------------------------------------------------------------


def run_of(rng, good: int, defective: int, contrast: float = 2.0, has_mask=None):
    maps, masks = smooth_maps(rng, good, defective, side=20)
    names = np.array([f"{i}.png" for i in range(len(maps))])
    labels = np.repeat([0, 1], [good, defective])
    known = np.ones(len(maps), bool) if has_mask is None else np.asarray(has_mask)
    masks[~known] = False
    scores = rng.normal(size=len(maps)) + contrast * labels
    table = pd.DataFrame({"image": names, "label": labels, "defect": "", "score": scores})
    return table, maps, GroundTruth(names, labels, names, known, masks)


KEYS = {"dataset": "d", "category": "c", "experiment": "e", "seed": 0}


def bounds_of(table, maps, truth, count=200):
    pixels = evaluate.PixelScores(maps, truth)
    values = evaluate.evaluate(table, pixels)
    run = evaluate.resample(table, pixels, resamples=count, draw_seed=0, **KEYS)
    return values, run.values, evaluate.intervals(values, run, level=0.95)


def test_every_metric_has_an_interval_around_it(rng):
    values, drawn, found = bounds_of(*run_of(rng, 8, 12))
    assert (
        list(found)
        == list(values)
        == list(drawn)
        == [*metrics.IMAGE_METRICS, *metrics.PIXEL_METRICS]
    )
    for metric, (low, high) in found.items():
        assert 0 <= low < values[metric] < high <= 1
    tidy = evaluate.tidy(values, found, **KEYS)
    assert tidy[["ci_low", "ci_high"]].notna().all(axis=None)


def test_perfect_scores_are_not_certain(rng):
    few = bounds_of(*run_of(rng, 5, 6, contrast=50))
    many = bounds_of(*run_of(rng, 50, 60, contrast=50))
    for metric in metrics.IMAGE_METRICS:
        assert few[0][metric] == many[0][metric] == 1
        assert few[2][metric][1] == many[2][metric][1] == 1
        assert few[2][metric][0] < 0.8 < 0.9 < many[2][metric][0] < 0.99


def test_images_without_a_mask_count_for_image_metrics_alone(rng):
    table, maps, truth = run_of(rng, 6, 8, has_mask=[True] * 11 + [False] * 3)
    pixels = evaluate.PixelScores(maps, truth)
    run = evaluate.resample(table, pixels, resamples=50, draw_seed=0, **KEYS)
    kept = slice(0, 11)
    without = GroundTruth(
        truth.image[kept], truth.label[kept], truth.defect[kept], truth.has_mask[kept],
        truth.mask[kept],
    )  # fmt: skip
    pixels = evaluate.PixelScores(maps[kept], without)
    alone = evaluate.resample(table[kept], pixels, resamples=50, draw_seed=0, **KEYS)
    np.testing.assert_array_equal(run.values["aupro"], alone.values["aupro"])
    assert np.isnan(run.left_out["pixel_ap"]).tolist() == [False] * 11 + [True] * 3
    assert (run.values["image_auroc"] != alone.values["image_auroc"]).any()


def test_the_variance_of_one_defective_image_is_unknown(rng):
    _, _, found = bounds_of(*run_of(rng, 6, 1))
    assert np.isnan(found["aupro"]).all()
    assert np.isfinite(found["image_auroc"]).all()


def test_resamples_files_round_trip_and_damage_is_reported(tmp_path, rng):
    run = Resamples(
        "d", "ü", "X", 3, np.array(["a.png", "b.png"]), np.array([0, 1]), np.array([0.1, 0.2]),
        np.array([0, 9]), {"image_auroc": rng.random(5), "aupro": rng.random(5)},
        {"pixel_ap": rng.random(2)}, 7, 2,
    )  # fmt: skip
    path = tmp_path / "seed3.h5"
    resamples.write(run, path)
    again = resamples.read(path)
    assert (again.dataset, again.category, again.seed, again.n_regions) == ("d", "ü", 3, 2)
    assert list(again.image) == ["a.png", "b.png"]
    assert list(again.values) == ["image_auroc", "aupro"]
    np.testing.assert_array_equal(again.values["aupro"], run.values["aupro"])
    np.testing.assert_array_equal(again.left_out["pixel_ap"], run.left_out["pixel_ap"])
    assert again.n_masks == 1
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(StoreError, match=r"seed3\.h5: damaged: it has .* bytes instead of"):
        resamples.read(path)
