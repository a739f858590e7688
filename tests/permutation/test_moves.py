"""Prices of moves, against stripes counted anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.permutation.moves import (
    PAIRS,
    best_swaps,
    insertion_gains,
    pair_exchanges,
    stripe_value,
)


def slow_value(S, members, n, m):
    """Each row written out, each group sorted."""
    cols = np.concatenate([S[c] for c in members]).T.astype(np.float64)
    groups = np.sort(cols.reshape(len(cols), -1, m), axis=2)
    return float(groups[:, :, m - n :].sum())


def case(seed, channels, run, rows=5):
    r = np.random.default_rng(seed)
    S = (r.standard_normal((channels, run, rows)) ** 2).astype(np.float32)
    S[r.random(S.shape) < 0.2] = 0.0
    return S, r.permutation(channels)


# run, n, m, channels of a stripe
SHAPES = """
    1 2 4 4, 1 1 4 4, 1 3 4 4, 1 4 8 8, 9 2 4 4, 3 1 2 2,
    2 2 4 2, 6 2 4 2, 1 1 3 3, 9 4 8 8, 5 3 4 4, 4 2 4 4
"""
shapes = st.sampled_from([tuple(map(int, s.split())) for s in SHAPES.split(",")])


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**31), shapes)
def test_an_insertion_is_worth_the_stripe_after_less_the_stripe_before(seed, shape):
    run, n, m, q = shape
    S, order = case(seed, 3 * q, run)
    gains = np.zeros((q, 3 * q), np.float32)
    insertion_gains(S, order, q, q, n, m, gains)
    before = slow_value(S, order[q : 2 * q], n, m)
    assert stripe_value(S, order[q : 2 * q], n, m) == pytest.approx(before)
    for k in range(q):
        for c in range(3 * q):
            members = order[q : 2 * q].copy()
            members[k] = c
            after = slow_value(S, members, n, m)
            assert gains[k, c] == pytest.approx(after - before, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([(2, 4), (1, 2), (4, 8)]))
def test_the_best_swap_of_two_stripes_is_the_best_of_all(seed, pattern):
    n, m = pattern
    S, order = case(seed, 2 * m, 1)
    D = np.zeros((2 * m, 2 * m), np.float32)
    for at in (0, m):
        insertion_gains(S, order, at, m, n, m, D[at : at + m])
    gain, which = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)
    best_swaps(D, order, m, gain, which)

    def after(k, e):
        new = order.copy()
        new[k], new[m + e] = new[m + e], new[k]
        return slow_value(S, new[:m], n, m) + slow_value(S, new[m:], n, m)

    before = slow_value(S, order[:m], n, m) + slow_value(S, order[m:], n, m)
    best = max(after(k, e) for k in range(m) for e in range(m)) - before
    assert gain[0, 1] == pytest.approx(max(best, 0.0), abs=1e-4)
    if gain[0, 1] > 1e-3:
        assert after(*divmod(int(which[0, 1]), m)) - before == pytest.approx(best, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3]))
def test_the_best_exchange_of_two_for_two_is_the_best_of_all(seed, n):
    S, order = case(seed, 12, 1)
    values = np.array([slow_value(S, order[4 * a : 4 * a + 4], n, 4) for a in range(3)])
    gain, which = np.zeros((3, 3), np.float32), np.zeros((3, 3), np.int32)
    pair_exchanges(S, order, n, values, np.array([True, False, False]), gain, which)
    for b in (1, 2):
        first, second = order[:4], order[4 * b : 4 * b + 4]

        def after(i, j, first=first, second=second):
            new = np.concatenate(
                [first[PAIRS[i]], second[PAIRS[j]], first[PAIRS[5 - i]], second[PAIRS[5 - j]]]
            )
            return slow_value(S, new[:4], n, 4) + slow_value(S, new[4:], n, 4)

        before = values[0] + values[b]
        best = max(after(i, j) for i in range(6) for j in range(6)) - before
        assert gain[0, b] == pytest.approx(max(best, 0.0), abs=1e-4)
        if gain[0, b] > 1e-3:
            assert after(*divmod(int(which[0, b]), 6)) - before == pytest.approx(best, abs=1e-4)
    assert gain[1, 2] == 0.0  # neither is stale
