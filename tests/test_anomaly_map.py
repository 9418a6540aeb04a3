"""Upsampling and smoothing equal torch's and SciPy's functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from indad.methods.anomaly_map import anomaly_maps


@pytest.mark.parametrize("grid", [(56, 56), (28, 28), (14, 20), (7, 7), (1, 1), (2, 1)])
def test_equals_interpolate_then_gaussian_filter(grid):
    maps = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0))
    fine = interpolate(maps[:, None].double(), size=(96, 112), mode="bilinear")[:, 0].numpy()
    expected = np.stack([gaussian_filter(each, 4, mode="reflect", truncate=4) for each in fine])
    np.testing.assert_allclose(anomaly_maps([maps], (96, 112)).numpy(), expected, rtol=1e-5)


def test_averages_over_layers_of_different_grids():
    one, two = torch.rand(2, 8, 8), torch.rand(2, 4, 4)
    before = one.clone()
    both = anomaly_maps([one, two], (32, 32))
    assert torch.equal(one, before)
    expected = (anomaly_maps([one], (32, 32)) + anomaly_maps([two], (32, 32))) / 2
    torch.testing.assert_close(both, expected)


def test_a_constant_map_stays_constant():
    maps = torch.full((1, 5, 5), 3.25)
    torch.testing.assert_close(anomaly_maps([maps], (40, 40)), torch.full((1, 40, 40), 3.25))
