import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indad.methods.coreset import greedy_k_center, random_projection


def gaussian(size, dimensions, seed):
    return torch.randn(size, dimensions, generator=torch.Generator().manual_seed(seed))


def clustered(size, dimensions, seed):
    """Clusters far from the origin, each stretched along few directions."""
    random = np.random.default_rng(seed)
    centres = 3 * random.standard_normal((20, dimensions)) + 10
    directions = random.standard_normal((4, dimensions)) * np.array([[1], [0.5], [0.25], [0.1]])
    points = (
        centres[random.integers(20, size=size)] + random.standard_normal((size, 4)) @ directions
    )
    points += 0.05 * random.standard_normal((size, dimensions))
    return torch.from_numpy(points.astype(np.float32))


# With these seeds the second farthest point is nearer by at least 5e-6 of the distance at every
# pick, so that float32 products and the float64 loop pick the same points.
DATA = {"gaussian": gaussian(2000, 16, 7), "clustered": clustered(2000, 24, 20)}
COUNT = 400


def plain_loop(points, count, start):
    """Farthest-first traversal as the papers write it, in float64."""
    points = points.double().numpy()
    order = [start]
    nearest = np.linalg.norm(points - points[start], axis=1)
    while len(order) < count:
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[order[-1]], axis=1))
    return order


def covering_radii(points, order):
    """Largest distance of any point to the first picks, for each number of them, in float64."""
    points = points.double().numpy()
    nearest, radii = np.full(len(points), np.inf), []
    for pick in order:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[pick], axis=1))
        radii.append(nearest.max())
    return radii


@pytest.fixture(scope="module", params=DATA)
def case(request):
    points = DATA[request.param]
    return points, plain_loop(points, COUNT, 17)


@pytest.mark.parametrize("candidates", [7, 64, 1024, 2000])
def test_the_order_is_that_of_the_plain_loop(case, candidates):
    points, order = case
    found = greedy_k_center(points, COUNT, start=17, candidates=candidates)
    assert found.indices.dtype == torch.int64
    assert found.indices.tolist() == order
    np.testing.assert_allclose(found.radii, covering_radii(points, order), rtol=1e-4)


@pytest.mark.parametrize("memory", [40_000, 1_000_000])
def test_blocks_do_not_change_the_order(case, memory):
    points, order = case
    assert greedy_k_center(points, COUNT, start=17, memory=memory).indices.tolist() == order


@pytest.mark.parametrize("count", [1, 2, 51, 173])
def test_a_smaller_coreset_is_a_prefix(case, count):
    points, order = case
    found = greedy_k_center(points, count, start=17, candidates=50)
    assert found.indices.tolist() == order[:count]
    assert float(found.radii[-1]) == pytest.approx(covering_radii(points, order)[count - 1], 1e-4)


def test_all_points_are_picked_once():
    points = gaussian(300, 16, 25)
    found = greedy_k_center(points, 300, start=3, candidates=64)
    assert found.indices.tolist() == plain_loop(points, 300, 3)
    assert found.radii[-1] == 0


@pytest.mark.parametrize("candidates", [1, 8, 1024])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_duplicates_come_last_in_the_order_of_their_indices(candidates, offset):
    distinct = gaussian(60, 8, 3) + offset
    points = distinct[torch.arange(300) % 60]
    found = greedy_k_center(points, 300, start=5, candidates=candidates)
    first, rest = found.indices[:60].tolist(), found.indices[60:].tolist()
    assert sorted(index % 60 for index in first) == list(range(60))
    assert rest == sorted(set(range(300)) - set(first))
    assert found.radii[58] > 0
    assert not found.radii[59:].any()


def test_points_that_are_all_equal_are_picked_by_index():
    found = greedy_k_center(torch.full((40, 5), 0.1), 12, start=4, candidates=3)
    assert not found.radii.any()
    assert found.indices.tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 120),
    dimensions=st.integers(1, 4),
    share=st.floats(0, 1),
    candidates=st.integers(1, 40),
    memory=st.integers(1, 100_000),
    seed=st.integers(0, 1000),
)
def test_every_pick_is_a_farthest_point(size, dimensions, share, candidates, memory, seed):
    # Whole numbers: many ties and duplicates.
    points = (gaussian(size, dimensions, seed) * 3).round()
    count = max(1, int(share * size))
    found = greedy_k_center(points, count, start=seed % size, candidates=candidates, memory=memory)
    order = found.indices.tolist()
    assert order[0] == seed % size
    assert len(set(order)) == count
    between = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    for i in range(1, count):
        to_chosen = between[:, order[:i]].min(axis=1)
        assert to_chosen[order[i]] == pytest.approx(to_chosen.max(), abs=1e-2)
    np.testing.assert_allclose(found.radii, covering_radii(points, order), atol=1e-2)


def test_progress_is_reported_to_the_end_and_the_points_are_not_changed():
    points, calls = DATA["clustered"].clone(), []
    greedy_k_center(points, 200, start=0, candidates=20, progress=lambda *at: calls.append(at))
    assert torch.equal(points, DATA["clustered"])
    assert len(calls) > 1
    assert calls == sorted(calls)
    assert calls[-1] == (200, 200)


@pytest.mark.parametrize(
    ("points", "count", "start", "message"),
    [
        (gaussian(10, 3, 0), 11, 0, "count: 11 asked for, but there are 10 points"),
        (gaussian(10, 3, 0), 0, 0, "count: 0"),
        (gaussian(10, 3, 0), 2, 10, "start: 10 "),
        (gaussian(10, 3, 0), 2, -1, "start: -1 "),
        (gaussian(10, 3, 0).double(), 2, 0, "float32 matrix"),
        (gaussian(10, 3, 0) / 0, 2, 0, "NaN"),
    ],
)
def test_arguments_out_of_range_are_refused(points, count, start, message):
    with pytest.raises(ValueError, match=message):
        greedy_k_center(points, count, start=start)


def test_the_projection_is_the_same_everywhere():
    projection = random_projection(3, 2, seed=0)
    expected = np.random.default_rng(0).standard_normal((3, 2)) / math.sqrt(2)
    assert projection.dtype == torch.float32
    np.testing.assert_allclose(projection, expected, rtol=1e-6)
    # The first draw of NumPy's PCG64 with seed 0, by the standard's ziggurat.
    assert float(projection[0, 0]) == pytest.approx(0.12573022 / math.sqrt(2), rel=1e-6)
    assert not torch.equal(projection, random_projection(3, 2, seed=1))


def test_the_projection_keeps_squared_lengths_on_average():
    points = gaussian(500, 300, 5)
    projected = points @ random_projection(300, 128, seed=2)
    ratio = projected.square().sum(dim=1) / points.square().sum(dim=1)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
    assert float(ratio.std()) == pytest.approx(math.sqrt(2 / 128), rel=0.25)
