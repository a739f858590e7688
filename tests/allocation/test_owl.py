"""Outlier shares and the densities that follow from them (Yin et al. 2023, arXiv:2310.05175)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.allocation import AllocationError, outlier_share, owl_densities


def test_outliers_by_hand() -> None:
    # mean 2: above five times it is 11 alone; above once it 11 and none of the ones
    score = np.array([1.0] * 9 + [11.0])
    assert outlier_share(score, 5.0) == 0.1
    assert outlier_share(score, 5.5) == 0.0  # exactly at the threshold is no outlier
    assert outlier_share(score, 0.4) == 1.0
    assert outlier_share(np.zeros(4), 5.0) == 0.0
    assert outlier_share(np.zeros(0), 5.0) == 0.0


def test_densities_by_hand() -> None:
    # equal sizes, mean share 0.02: off by -0.02, 0.01, 0.01, and the farthest at 0.08
    d = owl_densities([0.0, 0.03, 0.03], [10, 10, 10], 0.5, 0.08)
    assert d == pytest.approx([0.42, 0.54, 0.54])


@settings(deadline=None, max_examples=200)
@given(
    layers=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**9)), min_size=1, max_size=12),
    density=st.floats(0.001, 1.0),
    reach=st.floats(0, 1),
)
def test_mean_is_exact_and_the_reach_is_kept(
    layers: list[tuple[float, int]], density: float, reach: float
) -> None:
    shares, sizes = np.array([d for d, _ in layers]), np.array([n for _, n in layers], float)
    d = owl_densities(shares, sizes, density, reach)
    assert float((d * sizes).sum() / sizes.sum()) == pytest.approx(density, rel=1e-12)
    assert (np.abs(d - density) <= reach + 1e-12).all()
    assert (d >= 0.5 * density - 1e-12).all()
    assert (d <= 1.0 + 1e-12).all()
    order = np.argsort(shares)
    assert (np.diff(d[order]) >= -1e-12).all()


def test_equal_shares_are_uniform() -> None:
    assert owl_densities([0.1, 0.1], [3, 5], 0.3, 0.08).tolist() == [0.3, 0.3]
    assert owl_densities([0.0, 0.0], [3, 5], 0.3, 0.08).tolist() == [0.3, 0.3]
    assert owl_densities([], [], 0.3, 0.08).shape == (0,)


@pytest.mark.parametrize(
    ("shares", "sizes", "density"),
    [([0.1], [1, 2], 0.5), ([np.nan], [1], 0.5), ([0.1], [0], 0.5), ([0.1], [1], 0.0)],
)
def test_what_it_refuses(shares: list, sizes: list, density: float) -> None:
    with pytest.raises(AllocationError):
        owl_densities(shares, sizes, density, 0.08)
