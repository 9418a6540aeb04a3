"""Metrics equal independent references: scikit-learn, and an AUPRO threshold by threshold."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from indad.evaluation import bootstrap, metrics
from indad.evaluation.metrics import ScoreCurve
from indad.evaluation.sorted_scores import SortedScores, median


def plain_regions(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected regions by flood fill."""
    todo = set(zip(*np.nonzero(mask), strict=True))
    found = []
    while todo:
        queue, region = deque([todo.pop()]), []
        while queue:
            i, j = queue.popleft()
            region.append((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & todo
            todo -= near
            queue.extend(near)
        found.append(region)
    return found


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Flag what scores at least each threshold in turn, and integrate by hand."""
    regions = [(n, region) for n, mask in enumerate(masks) for region in plain_regions(mask)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.reshape(-1)), reverse=True):
        flagged = maps >= threshold
        overlaps = [np.mean([flagged[n][pixel] for pixel in region]) for n, region in regions]
        points.append((flagged[~masks].mean(), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def reference(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    labels, scores = masks.reshape(-1), maps.reshape(-1)
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    return {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_ap": average_precision_score(labels, scores),
        "pixel_f1max": f1.max(),
        "aupro": plain_aupro(maps, masks),
        "aupro_05": plain_aupro(maps, masks, 0.05),
    }


@settings(max_examples=80, deadline=None)
@given(
    maps=arrays(np.float32, (2, 6, 5), elements=st.integers(-4, 4).map(float)),
    masks=arrays(bool, (2, 6, 5)),
)
def test_pixel_metrics_with_heavy_ties(maps, masks):
    if masks.all() or not masks.any():
        with pytest.raises(ValueError, match="undefined"):
            metrics.pixel_metrics(maps, masks)
        return
    got = metrics.pixel_metrics(maps, masks)
    assert got == pytest.approx(reference(maps, masks), abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_pixel_metrics_of_distinct_scores(rng, share):
    masks = rng.random((4, 16, 12)) < share
    maps = (rng.normal(size=masks.shape) + masks).astype(np.float32)
    got = metrics.pixel_metrics(maps, masks)
    assert list(got) == list(metrics.PIXEL_METRICS)
    assert got == pytest.approx(reference(maps, masks), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    maps=arrays(np.float32, (3, 6, 5), elements=st.integers(-9, 9).map(lambda x: x / 8)),
    masks=arrays(bool, (3, 6, 5)),
    block=st.sampled_from([1, 100, 400, 2000]),
)
def test_scores_sorted_on_disk_give_the_same_metrics(maps, masks, block):
    """However many blocks; a tie larger than a block is counted, not read."""
    if masks.all() or not masks.any():
        return
    ordered = SortedScores(metrics.LabelledMaps(maps, masks), block=block)
    assert metrics.pixel_values(ordered) == pytest.approx(
        metrics.pixel_metrics(maps, masks), abs=1e-12
    )
    assert median(maps) == float(np.median(maps))
    whole = SortedScores.from_arrays(maps, metrics.regions(masks))
    for most in (12, 4096):
        for one, other in zip(
            bootstrap._thresholds(ordered, most), bootstrap._thresholds(whole, most), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("spread", [0, 1e-6, 1.0])
def test_many_pieces_are_read_in_order(rng, spread):
    """Scores with few, many or all different upper halves of their bits."""
    maps = (1 + spread * rng.normal(size=(40, 50, 50))).astype(np.float32)
    masks = rng.random(maps.shape) < 0.05
    ordered = SortedScores(metrics.LabelledMaps(maps, masks), block=30_000)
    sizes = [len(piece.negative) + len(piece.positive) for piece in ordered.pieces()]
    assert max(sizes) <= 7500
    assert len(sizes) > 10 or not spread
    assert metrics.pixel_values(ordered) == pytest.approx(
        metrics.pixel_metrics(maps, masks), abs=1e-12
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_image_metrics(rows):
    labels, scores = np.array(rows).T
    if len(set(labels)) == 1:
        with pytest.raises(ValueError, match="there are no"):
            metrics.image_metrics(labels, scores)
        return
    got = metrics.image_metrics(labels, scores)
    expected = reference(scores[None, None].astype(float), labels[None, None].astype(bool))
    assert [got[name] for name in metrics.IMAGE_METRICS] == pytest.approx(
        [expected[name] for name in metrics.PIXEL_METRICS[:3]], abs=1e-12
    )


def test_by_hand():
    """Scores 4 3 2 1 of labels 1 0 1 0: three of four pairs are in order."""
    got = metrics.image_metrics(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0]))
    assert got == pytest.approx(
        {"image_auroc": 0.75, "image_ap": (1 + 2 / 3) / 2, "image_f1max": 0.8}
    )


def test_every_region_counts_the_same():
    """A missed small region costs as much as a missed large one; diagonal pixels are one region."""
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :4, :4] = True
    masks[0, 6, 6] = masks[0, 7, 7] = True
    maps = masks.astype(np.float32)
    maps[0, 6, 6] = maps[0, 7, 7] = -1
    assert metrics.regions(masks).max() == 2
    assert metrics.pixel_metrics(maps, masks)["aupro"] == pytest.approx(0.5, abs=1e-12)


def test_both_zeros_tie_and_extremes_sort():
    scores = np.array([0.0, -0.0, -3e38, 3e38, 1e-45, -1e-45], np.float32)
    labels = np.array([1, 0, 0, 1, 1, 0])
    got = metrics.image_metrics(labels, scores)
    assert got["image_auroc"] == pytest.approx(roc_auc_score(labels, scores.astype(float)))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 1], [0.1, np.inf], "finite"),
        ([0, 1, 1], [0.1, 0.2], "differ in shape"),
        ([0, 2], [0.1, 0.2], "must be 0"),
        ([1, 1], [0.1, 0.2], "there are no negatives"),
    ],
)
def test_bad_input(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.image_metrics(np.array(labels), np.array(scores, np.float32))


def test_aupro_limit_may_be_anything(rng):
    masks = rng.random((2, 8, 8)) < 0.2
    maps = rng.integers(0, 9, (2, 8, 8)).astype(np.float32)
    curve = ScoreCurve.from_scores(maps, metrics.regions(masks))
    for limit in (0.01, 0.05, 0.5, 1.0):
        assert curve.aupro(limit) == pytest.approx(plain_aupro(maps, masks, limit), abs=1e-9)
