import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indad.methods import groups, neighbors
from indad.methods.neighbors import GROUP, Bank, Gallery, augmented, augmented_bank, block_shape


def gaussian(rows, dimensions, seed, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dimensions, generator=generator) + offset


def nearest(queries, bank, memory=1 << 30):
    return Bank(bank, memory).nearest(queries)


def k_nearest(queries, bank, k, memory=1 << 30):
    return Bank(bank, memory).k_nearest(queries, k)


def reference(queries, bank):
    return torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist")


SHAPES = [
    (1, 1, 1),
    (5, 3, 2),
    (7, GROUP, 24),
    (33, GROUP + 1, 64),
    (50, 3 * GROUP - 1, 130),
    (1500, 4500, 16),
]


@pytest.mark.parametrize(("queries", "bank", "dimensions"), SHAPES)
def test_distances_equal_the_full_float64_matrix(queries, bank, dimensions):
    x, y = gaussian(queries, dimensions, 2), gaussian(bank, dimensions, 3)
    prepared, k = Bank(y), min(5, bank)
    value, place = reference(x, y).topk(k, largest=False)
    distance, index = prepared.k_nearest(x, k)
    assert index.dtype == torch.int64
    assert torch.equal(index, place)
    torch.testing.assert_close(distance.double(), value, rtol=1e-5, atol=0)
    for one, other in zip(prepared.nearest(x), prepared.k_nearest(x, 1), strict=True):
        assert torch.equal(one, other[:, 0])
        assert torch.equal(one, (distance if one.is_floating_point() else index)[:, 0])


def test_k_may_be_the_size_of_the_bank():
    _, index = k_nearest(gaussian(4, 3, 0), gaussian(300, 3, 1), 300, memory=50_000)
    assert torch.equal(index.sort(dim=1)[0], torch.arange(300).expand(4, 300))


@pytest.mark.parametrize("memory", [1, 60_000, 300_000, 2_000_000, 1 << 30])
def test_chunks_do_not_change_the_result(memory):
    x, y = gaussian(300, 20, 4, offset=3.0), gaussian(1000, 20, 5, offset=3.0)
    value, place = reference(x, y).topk(4, largest=False)
    distance, index = nearest(x, y, memory=memory)
    assert torch.equal(index, place[:, 0])
    torch.testing.assert_close(distance.double(), value[:, 0], rtol=1e-5, atol=0)
    distance, index = k_nearest(x, y, 4, memory=memory)
    assert torch.equal(index, place)
    torch.testing.assert_close(distance.double(), value, rtol=1e-5, atol=0)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("memory", [60_000, 1 << 30])
def test_identical_vectors_are_at_exactly_zero(offset, memory):
    bank = gaussian(900, 50, 6, offset)
    order = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    distance, index = nearest(bank[order], bank, memory=memory)
    assert torch.equal(index, order)
    assert distance.count_nonzero() == 0
    distance, index = k_nearest(bank[order], bank, 3, memory=memory)
    assert torch.equal(index[:, 0], order)
    assert distance[:, 0].count_nonzero() == 0
    assert bool((distance[:, 1] > 0).all())


def test_a_large_common_offset_does_not_cancel():
    x, y = gaussian(50, 10, 7), gaussian(400, 10, 8)
    # Integers divided by 1024 stay exact after the offset is added.
    x, y = (x * 1024).round() / 1024, (y * 1024).round() / 1024
    moved = nearest(x + 1000, y + 1000)
    torch.testing.assert_close(moved[0], nearest(x, y)[0], rtol=1e-6, atol=0)


def test_the_lowest_index_wins_exact_ties():
    # Small whole numbers about a mean of zero: every step is exact.
    y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(2 * GROUP, 1)
    _, index = nearest(torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]), y, memory=20_000)
    assert index.tolist() == [0, 1, 2]
    distance, index = k_nearest(torch.zeros(1, 2), torch.ones(6, 2), 6)
    assert index.tolist() == [[0, 1, 2, 3, 4, 5]]  # the lower index first
    torch.testing.assert_close(distance, torch.full((1, 6), math.sqrt(2)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    queries=st.integers(1, 40),
    size=st.integers(1, 400),
    dimensions=st.integers(1, 9),
    memory=st.integers(1, 200_000),
    seed=st.integers(0, 1000),
)
# A query between two bank vectors: the farther one is found, because the squared distances differ
# by less than the rounding of the squared norms.
@example(queries=17, size=252, dimensions=1, memory=1, seed=153)
def test_any_shape_and_memory(queries, size, dimensions, memory, seed):
    """The vectors found are the nearest up to the rounding that `Bank.nearest` states."""
    x, y = gaussian(queries, dimensions, seed), gaussian(size, dimensions, seed + 1)
    exact, mean = reference(x, y), y.double().mean(dim=0)
    norms = (x - mean).square().sum(dim=1, keepdim=True) + (y - mean).square().sum(dim=1).max()
    rounding = (3 * dimensions + 6) * torch.finfo(torch.float32).eps * norms
    bank, k = Bank(y, memory), min(3, size)
    least = exact.sort(dim=1)[0][:, :k].square()
    one = [each[:, None] for each in bank.nearest(x)]
    for distance, index in (one, bank.k_nearest(x, k)):
        found = exact.gather(1, index)
        torch.testing.assert_close(distance.double(), found, rtol=1e-5, atol=0)
        assert bool((found.square() <= least[:, : found.shape[1]] + rounding).all())
        assert bool((index.sort(dim=1)[0].diff(dim=1) > 0).all())


def test_strided_inputs_are_accepted_and_not_changed():
    wide = gaussian(300, 20, 10)
    x, y = wide[:40, ::2].requires_grad_(), wide[50:, 1::2]
    kept = wide.clone()
    distance, index = nearest(x, y)
    assert not distance.requires_grad
    assert torch.equal(index, nearest(x.contiguous(), y.contiguous())[1])
    assert torch.equal(wide, kept)


def test_no_queries_give_no_results():
    distance, index = nearest(torch.zeros(0, 3), gaussian(5, 3, 0))
    assert distance.shape == index.shape == (0,)
    assert k_nearest(torch.zeros(0, 3), gaussian(5, 3, 0), 2)[0].shape == (0, 2)


@pytest.mark.parametrize("dimensions", [1, 24, 1024, 10_000])
@pytest.mark.parametrize("memory", [1 << 22, 1 << 26, 1 << 30])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_blocks_keep_to_the_memory(device, memory, dimensions):
    rows, columns = block_shape(torch.device(device), memory, dimensions)
    assert rows >= 1
    assert columns % GROUP == 0
    assert 4 * rows * columns <= memory // 8
    assert 4 * rows * (dimensions + 1) <= memory // 8
    assert columns == GROUP or 4 * columns * (dimensions + 1) <= memory // 8


def test_the_factors_multiply_to_half_squares():
    x, y = gaussian(6, 4, 0), gaussian(5, 4, 1)
    mean = y.mean(dim=0)
    half = augmented(x, mean) @ augmented_bank(y, mean, 7).T
    square = 2 * half + (x - mean).square().sum(dim=1, keepdim=True)
    np.testing.assert_allclose(square[:, :5], reference(x, y).square(), rtol=1e-4)
    assert bool(square[:, 5:].isinf().all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    good, spoilt = gaussian(10, 3, 0), gaussian(10, 3, 0)
    spoilt[7, 1] = bad
    with pytest.raises(ValueError, match=r"queries: .*NaN"):
        nearest(spoilt, good)
    with pytest.raises(ValueError, match=r"bank: .*NaN"):
        nearest(good, spoilt)
    with pytest.raises(ValueError, match=r"queries: .*NaN"):
        k_nearest(spoilt, good, 2)


def test_queries_and_banks_that_do_not_fit_are_refused():
    x, y = gaussian(4, 3, 0), gaussian(6, 3, 1)
    with pytest.raises(ValueError, match="3 dimensions, the bank 2"):
        nearest(x, y[:, :2])
    with pytest.raises(ValueError, match="no vectors"):
        nearest(x, y[:0])
    with pytest.raises(ValueError, match="no vectors"):
        nearest(x[:, :0], y[:, :0])
    with pytest.raises(ValueError, match="float32 matrix"):
        nearest(x[0], y)
    with pytest.raises(ValueError, match=r"float32 matrix, got torch\.float64"):
        nearest(x, y.double())
    with pytest.raises(ValueError, match="7 neighbours asked for, but the bank has 6"):
        k_nearest(x, y, 7)
    with pytest.raises(ValueError, match="0 neighbours"):
        k_nearest(x, y, 0)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("memory", [1 << 10, 1 << 30])
def test_a_gallery_is_searched_among_the_images_named(rng, keep, memory):
    images = torch.from_numpy(rng.normal(size=(5, 150, 7)).astype(np.float32)) + 3
    queries = torch.from_numpy(rng.normal(size=(3, 40, 7)).astype(np.float32)) + 3
    queries[1, :5] = images[4, 100:105]
    among = [[0, 3], [4], [1, 4, 2]]
    read = []

    def of(image: int) -> torch.Tensor:
        read.append(image)
        return images[image]

    gallery = Gallery(of, keep=keep, memory=memory)
    for _ in range(2):
        distance = gallery.nearest(queries, among)
        for query, chosen, found in zip(queries, among, distance, strict=True):
            expected = torch.cdist(query.double(), images[chosen].flatten(0, 1).double())
            expected = expected.amin(dim=1)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert (distance[1, :5] == 0).all()
    assert len(read) == (1 + 5 if keep else 1 + 5 + 5)
    with pytest.raises(ValueError, match="image 2: values that are NaN"):
        Gallery(lambda i: images[i] if i < 2 else images[i] / 0, keep=False).nearest(
            queries, [[2]] * 3
        )


# -- groups of near vectors, skipped by lower bounds ----------------------------------------------


def grouped(monkeypatch, axes=None, members=8):
    """Form small groups in every bank, with principal axes or with some orthonormal ones."""
    monkeypatch.setattr(neighbors, "LARGE_BANK", 1)
    monkeypatch.setattr(neighbors, "MANY_QUERIES", 0)
    monkeypatch.setattr(groups, "MEMBERS", members)
    if axes is not None:
        monkeypatch.setattr(
            neighbors,
            "principal_axes",
            lambda x: torch.linalg.qr(gaussian(x.shape[1], min(axes, x.shape[1]), 1).double())[0],
        )


def compared(monkeypatch):
    """Count the comparisons in all dimensions: queries times groups."""
    count = []
    compare = groups.Groups._compare

    def counting(self, queries, group, *rest):
        count.append(len(group))
        compare(self, queries, group, *rest)

    monkeypatch.setattr(groups.Groups, "_compare", counting)
    return count


def features(rows, dimensions, seed, decay=1.0):
    """Return vectors whose variance is mostly in a few directions, as that of patch features."""
    turn = torch.linalg.qr(gaussian(dimensions, dimensions, 99).double())[0]
    scale = torch.arange(1, dimensions + 1).double() ** -decay
    return ((gaussian(rows, dimensions, seed).double() * scale) @ turn + 1).float()


def test_the_search_of_a_gpu_finds_the_same(monkeypatch):
    """On a GPU, masks replace the lists of rows; here a CPU runs it."""
    queries, bank = gaussian(300, 6, 0), gaussian(600, 6, 1)
    queries[:90], bank[200:400] = bank[-90:], bank[:200]  # exact ties
    searches = (
        lambda: Bank(bank, 60_000).nearest(queries),
        lambda: (
            Gallery(bank.split(150).__getitem__, keep=False).nearest(queries[None], [[0, 1, 3]]),
        ),
    )
    expected = [search() for search in searches]
    monkeypatch.setattr(neighbors, "_waits_for_indices", lambda block: True)
    for search, (distance, *index) in zip(searches, expected, strict=True):
        found, *place = search()
        torch.testing.assert_close(found, distance, rtol=1e-6, atol=0)
        assert all(map(torch.equal, place, index))


def test_bounds_skip_most_groups_and_change_no_result(monkeypatch):
    bank, queries = features(6000, 64, 0), features(3000, 64, 1)
    plain = Bank(bank)
    plain._groupable = False
    count = compared(monkeypatch)
    found = Bank(bank).nearest(queries)
    assert count  # a large bank and many queries: groups are formed
    assert sum(count) < 0.5 * len(queries) * 6000 / groups.MEMBERS
    for one, other in zip(found, plain.nearest(queries), strict=True):
        assert torch.equal(one, other)
    value, place = reference(queries, bank).min(dim=1)
    assert torch.equal(found[1], place)
    torch.testing.assert_close(found[0].double(), value, rtol=1e-5, atol=0)


def test_groups_are_formed_once_there_are_enough_queries(monkeypatch):
    bank, queries = features(6000, 64, 0), features(1600, 64, 1)
    count = compared(monkeypatch)
    searched = Bank(bank)
    first = searched.nearest(queries)
    assert not count
    for one, other in zip(first, searched.nearest(queries), strict=True):
        assert torch.equal(one, other)
    assert count
    small = Bank(bank, memory=4 * 6000 * 65)  # the bank's copy does not fit in half of it
    small.nearest(features(4000, 64, 1))
    assert small._groups is None


ADVERSARIAL = {
    "duplicates": lambda x: x[torch.arange(len(x)) // 7 * 7],
    "all the same": lambda x: x[:1].expand(len(x), -1).contiguous(),
    "constant features": lambda x: x * (torch.arange(x.shape[1]) % 3 == 0),
    "far outliers": lambda x: torch.where(torch.arange(len(x))[:, None] % 50 == 3, x * 1e6, x),
    "far offset": lambda x: x + 1000,
    "tiny": lambda x: x * 1e-15,
    "squares underflow": lambda x: x * 1e-21,
    "huge": lambda x: x * 1e16,
    "isotropic": lambda x: gaussian(*x.shape, 5),
    "on a line": lambda x: x[:, :1] * torch.linspace(-1, 1, x.shape[1]),
}


@pytest.mark.parametrize("axes", [None, 1, 5, 40])
@pytest.mark.parametrize("make", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_rounding_does_not_lose_the_nearest(monkeypatch, make, axes):
    """Skipped vectors are farther: what is found is as near as what the plain search finds."""
    both = make(features(900, 40, 3))
    bank = both[:600]
    queries = torch.cat([both[600:], bank[::5], (bank[1:50] + bank[:49]) / 2])
    plain, plain_index = Bank(bank).nearest(queries)
    grouped(monkeypatch, axes)
    distance, index = Bank(bank).nearest(queries)
    mean = bank.double().mean(dim=0)
    norms = (queries - mean).square().sum(dim=1) + (bank - mean).square().sum(dim=1)[plain_index]
    rounding = (3 * 40 + 6) * torch.finfo(torch.float32).eps * norms.double()
    exact = (queries.double() - bank.double()[index]).square().sum(dim=1)
    least = (queries.double() - bank.double()[plain_index]).square().sum(dim=1)
    assert bool((exact <= least + rounding + 1e-36).all())
    same = index == plain_index
    assert torch.equal(distance[same], plain[same])


@pytest.mark.parametrize("members", [1, 2, 8, 1000])
def test_the_lowest_index_wins_exact_ties_in_groups(monkeypatch, members):
    grouped(monkeypatch, axes=1, members=members)
    y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(2 * GROUP, 1)
    _, index = nearest(torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]), y)
    assert index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 65, 130])
def test_each_vector_is_in_a_group(monkeypatch, size):
    monkeypatch.setattr(groups, "MEMBERS", 8)
    ids = groups.near_groups(gaussian(size, 3, 0))
    assert ids.shape[1] <= 8
    assert ids.unique().tolist() == list(range(size))
    assert bool((ids.diff(dim=1) >= 0).all())


@pytest.mark.parametrize("memory", [1 << 19, 1 << 20, 1 << 30])
def test_queries_in_parts_find_the_same_in_groups(monkeypatch, memory):
    grouped(monkeypatch, axes=6)
    bank, queries = features(400, 24, 0), features(700, 24, 1)
    value, place = reference(queries, bank).min(dim=1)
    searched = Bank(bank, memory)
    distance, index = searched.nearest(queries)
    assert (searched._groups is None) == (memory == 1 << 19)
    assert torch.equal(index, place)
    torch.testing.assert_close(distance.double(), value, rtol=1e-5, atol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_groups_do_not_depend_on_threads(monkeypatch, threads):
    grouped(monkeypatch)
    bank, queries = features(900, 40, 0), features(301, 40, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            index = Bank(bank).nearest(queries)[1]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(index, reference(queries, bank).argmin(dim=1))
    assert Bank(bank).nearest(queries[:0])[0].shape == (0,)


def test_axes_need_variance_in_few_directions():
    assert groups.principal_axes(gaussian(500, 40, 0)) is None
    assert groups.principal_axes(torch.zeros(500, 40)) is None
    assert groups.principal_axes(gaussian(500, 3, 0)) is None
    centred = features(500, 40, 0) - 1
    axes = groups.principal_axes(centred)
    torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]).double())
    whole = torch.linalg.eigvalsh(centred.double().T @ centred.double()).flip(0)
    held = (centred.double() @ axes).square().sum()
    assert held >= 0.99 * whole[: axes.shape[1]].sum()
