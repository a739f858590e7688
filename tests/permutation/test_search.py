"""The order that is found: never worse, the best on two stripes, the same for the same seed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.permutation.search import kept_score, search_order


def random_scores(seed, rows, cols):
    r = np.random.default_rng(seed)
    scores = r.standard_normal((rows, cols)) ** 2 * np.exp(r.standard_normal(cols))
    scores[r.random(scores.shape) < 0.1] = 0.0
    return scores


def recount(scores, order, n, m):
    """Group by group, weight by weight."""
    run = scores.shape[1] // len(order)
    cols = [c * run + i for c in order for i in range(run)]
    total = 0.0
    for row in scores:
        for g in range(0, len(cols), m):
            total += sum(sorted(row[c] for c in cols[g : g + m])[m - n :])
    return total


def test_kept_score_by_hand():
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 5.0, 0.0]])
    assert kept_score(scores, np.arange(4), 1, 2) == 4 + 2 + 1 + 5
    assert kept_score(scores, np.array([0, 3, 1, 2]), 1, 2) == 4 + 3 + 1 + 5
    # two channels of two columns each: their order is that of the groups
    assert kept_score(scores, np.array([1, 0]), 1, 2) == 4 + 2 + 1 + 5


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(2, 4), (1, 4), (3, 4), (4, 8), (1, 2), (2, 3)]),
    st.integers(1, 4),
    st.lists(st.sampled_from([1, 2, 4, 9]), min_size=1, max_size=3),
    st.integers(0, 2),
)
def test_an_order_is_never_worse_and_counts_as_a_recount_says(seed, pattern, stripes, runs, again):
    n, m = pattern
    channels = stripes * m
    scores = [random_scores(seed + i, 3, channels * run) for i, run in enumerate(runs)]
    order = search_order(scores, channels, n, m, restarts=again, seed=seed)
    assert sorted(order) == list(range(channels))
    before, after = (
        sum(kept_score(s, o, n, m) for s in scores) for o in (np.arange(channels), order)
    )
    assert after >= before
    assert after == pytest.approx(sum(recount(s, order, n, m) for s in scores))
    again_order = search_order(scores, channels, n, m, restarts=again, seed=seed)
    np.testing.assert_array_equal(order, again_order)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 3), (2, 3), (1, 2)]))
def test_on_two_stripes_it_is_the_best_partition_reached_from_no_worse_neighbour(seed, pattern):
    n, m = pattern
    scores = random_scores(seed, 4, 2 * m)
    order = search_order([scores], 2 * m, n, m)
    best = 0.0
    for rest in combinations(range(1, 2 * m), m - 1):
        first = [0, *rest]
        second = [c for c in range(2 * m) if c not in first]
        best = max(best, recount(scores, [*first, *second], n, m))
    # every partition of two stripes of four or less is one move away
    assert kept_score(scores, order, n, m) == pytest.approx(best, rel=1e-5)


def test_no_swap_is_left_that_gains():
    scores = random_scores(3, 6, 32)
    order = search_order([scores], 32, 4, 8)
    now = kept_score(scores, order, 4, 8)
    for i, j in combinations(range(32), 2):
        new = order.copy()
        new[[i, j]] = new[[j, i]]
        assert kept_score(scores, new, 4, 8) <= now * (1 + 1e-5)


def test_channels_that_rival_one_another_are_parted():
    # eight large columns in two groups of four, eight small ones in the others
    scores = np.tile([5.0, 5, 5, 5, 5, 5, 5, 5, 1, 1, 1, 1, 1, 1, 1, 1], (3, 1))
    order = search_order([scores], 16, 2, 4)
    assert kept_score(scores, order, 2, 4) == 3 * 8 * 5


def test_what_no_order_can_change_stays():
    # a channel fills whole groups; one stripe; all alike
    for scores, channels in (
        (random_scores(0, 3, 32), 8),
        (random_scores(0, 3, 4), 4),
        (np.ones((3, 16)), 16),
        (np.zeros((3, 16)), 16),
    ):
        order = search_order([scores], channels, 2, 4)
        np.testing.assert_array_equal(order, np.arange(channels))
    np.testing.assert_array_equal(search_order([], 5, 2, 4), np.arange(5))


def test_restarts_do_not_lose_what_was_found():
    scores = random_scores(7, 16, 64)
    kept = [
        kept_score(scores, search_order([scores], 64, 2, 4, restarts=k, seed=1), 2, 4)
        for k in (0, 3, 12)
    ]
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    ("scores", "channels", "n", "m", "message"),
    [
        (np.ones((2, 8)), 8, 4, 4, "0 < N < M, got 4:4"),
        (np.ones((2, 6)), 6, 2, 4, "6 columns"),
        (np.ones((2, 8)), 3, 2, 4, "3 channels"),
        (-np.ones((2, 8)), 8, 2, 4, "not negative"),
        (np.full((2, 8), np.nan), 8, 2, 4, "finite"),
    ],
)
def test_bad_arguments_are_named(scores, channels, n, m, message):
    with pytest.raises(ValueError, match=message):
        search_order([scores], channels, n, m)
