"""Exchanges of blocks, against supports solved one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.patterns import exchange_blocks


def band_error(H, b, kept, width):
    s = np.flatnonzero(np.repeat(kept, width))
    return -float(np.sum(b[:, s].T * np.linalg.solve(H[np.ix_(s, s)], b[:, s].T)))


def band(seed, rows, blocks, width):
    r = np.random.default_rng(seed)
    cols = blocks * width
    x = r.standard_normal((2 * cols + 5, cols)) @ (
        np.eye(cols) + r.standard_normal((cols, cols)) / cols**0.5
    )
    H = x.T @ x / len(x)
    kept = np.zeros(blocks, bool)
    kept[r.permutation(blocks)[: r.integers(1, blocks)]] = True
    return H, r.standard_normal((rows, cols)) @ H, kept


def exchanged(kept):
    for t in np.flatnonzero(kept):
        for u in np.flatnonzero(~kept):
            new = kept.copy()
            new[[t, u]] = False, True
            yield new


def slow_exchanges(H, b, kept, width, steps):
    for _ in range(steps):
        now = band_error(H, b, kept, width)
        best = min(exchanged(kept), key=lambda k: band_error(H, b, k, width))
        if band_error(H, b, best, width) >= now - 1e-9 * abs(now):
            break
        kept = best
    return kept


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 8), st.integers(1, 5))
def test_the_same_exchanges_as_solving_each_from_scratch(seed, rows, blocks, width):
    H, b, kept = band(seed, rows, blocks, width)
    new, change, _ = exchange_blocks(H, b, kept, width, 20)
    np.testing.assert_array_equal(new, slow_exchanges(H, b, kept, width, 20))
    expected = band_error(H, b, new, width) - band_error(H, b, kept, width)
    assert change == pytest.approx(expected, abs=1e-8 * abs(band_error(H, b, kept, width)))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_with_many_blocks_no_exchange_is_left_that_pays(seed):
    H, b, kept = band(seed, 2, 40, 3)
    new, change, done = exchange_blocks(H, b, kept, 3, 500)
    assert done < 500
    assert new.sum() == kept.sum()
    now = band_error(H, b, new, 3)
    assert change == pytest.approx(now - band_error(H, b, kept, 3), abs=1e-8 * abs(now))
    assert min(band_error(H, b, k, 3) for k in exchanged(new)) >= now - 1e-8 * abs(now)


def test_on_a_diagonal_matrix_the_blocks_of_most_energy_stay():
    H = np.diag([1.0, 1.0, 2.0, 2.0, 1.0, 1.0])
    b = np.array([[1.0, 2.0, 2.0, 0.0, 0.0, 3.0], [0.0, 0.0, 2.0, 4.0, 1.0, 0.0]])
    # b squared over H: 5, 2 + 2 + 8 = 12, 10
    new, change, done = exchange_blocks(H, b, np.array([True, False, False]), 2, 5)
    assert new.tolist() == [False, True, False]
    assert change == pytest.approx(5 - 12)
    assert done == 1


def test_nothing_to_exchange_and_singular_matrices_come_back_as_they_are():
    b = np.ones((2, 8))
    for H, kept in (
        (np.eye(8), np.zeros(4, bool)),
        (np.eye(8), np.ones(4, bool)),
        (np.zeros((8, 8)), np.array([True, False, False, True])),
    ):
        new, change, done = exchange_blocks(H, b, kept, 2, 3)
        np.testing.assert_array_equal(new, kept)
        assert (change, done) == (0.0, 0)


def test_blocks_must_fill_the_row():
    with pytest.raises(ValueError, match="3 blocks of 2 do not fill a row of 8"):
        exchange_blocks(np.eye(8), np.ones((1, 8)), np.ones(3, bool), 2, 1)
