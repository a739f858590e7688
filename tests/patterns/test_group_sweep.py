"""Sweeps over the groups of a row, against supports solved one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.patterns import sweep_groups


def squared_error(H, b, mask):
    s = np.flatnonzero(mask)
    return -float(b[s] @ np.linalg.solve(H[np.ix_(s, s)], b[s])) if s.size else 0.0


def others(mask, group, m):
    """The row's masks with every other choice of as many members of one group."""
    at = group * m
    for members in combinations(range(m), int(mask[at : at + m].sum())):
        new = mask.copy()
        new[at : at + m] = False
        new[[at + i for i in members]] = True
        yield new


def slow_sweeps(H, b, mask, m, sweeps, block):
    """What `sweep_groups` does, every support solved from scratch."""
    mask = mask.copy()
    for _ in range(sweeps):
        before = mask.copy()
        for first in range(0, mask.size, block):
            moved = True
            while moved:
                moved = False
                for at in range(first, min(first + block, mask.size), m):
                    best = min(others(mask, at // m, m), key=lambda s: squared_error(H, b, s))
                    gain = squared_error(H, b, mask) - squared_error(H, b, best)
                    if gain > 1e-9 * abs(squared_error(H, b, mask)):
                        mask, moved = best, True
        if np.array_equal(mask, before):
            break
    return mask


def row(seed, cols, condition=1.0):
    r = np.random.default_rng(seed)
    x = r.standard_normal((2 * cols + 5, cols)) @ (
        np.eye(cols) + condition * r.standard_normal((cols, cols)) / cols**0.5
    )
    H = x.T @ x / len(x)
    return r, H, H @ r.standard_normal(cols)


def keep(r, groups, m, counts):
    out = np.zeros((groups, m), bool)
    for g, count in enumerate(counts):
        out[g, r.permutation(m)[:count]] = True
    return out.reshape(-1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 5]), st.integers(1, 5), st.data())
def test_the_same_supports_as_solving_each_from_scratch(seed, m, groups, data):
    r, H, b = row(seed, groups * m)
    counts = data.draw(st.lists(st.integers(0, m), min_size=groups, max_size=groups))
    mask = keep(r, groups, m, counts)
    new, change, _ = sweep_groups(H, b, mask, m, 50)
    np.testing.assert_array_equal(new, slow_sweeps(H, b, mask, m, 50, 64 // m * m))
    scale = abs(squared_error(H, b, new)) + abs(squared_error(H, b, mask))
    assert change == pytest.approx(
        squared_error(H, b, new) - squared_error(H, b, mask), abs=1e-9 * scale
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([(1, 3), (2, 4), (1, 4), (3, 4), (4, 8), (2, 16)]))
def test_no_group_can_be_chosen_better_by_itself(seed, pattern):
    n, m = pattern
    groups = 160 // m
    r, H, b = row(seed, groups * m, 2.0)
    mask = keep(r, groups, m, [n] * groups)
    new, change, passes = sweep_groups(H, b, mask, m, 60)
    assert passes < 60
    assert (new.reshape(-1, m).sum(1) == n).all()
    now = squared_error(H, b, new)
    assert change == pytest.approx(now - squared_error(H, b, mask), abs=1e-9 * abs(now))
    for g in r.permutation(groups)[:4]:
        assert min(squared_error(H, b, s) for s in others(new, g, m)) >= now - 1e-9 * abs(now)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_large_groups_are_left_without_a_better_exchange(seed):
    r, H, b = row(seed, 36, 2.0)
    mask = keep(r, 3, 12, [4, 6, 0])
    new, change, _ = sweep_groups(H, b, mask, 12, 50, most=10)
    np.testing.assert_array_equal(new.reshape(3, 12).sum(1), [4, 6, 0])
    now = squared_error(H, b, new)
    assert change == pytest.approx(now - squared_error(H, b, mask), abs=1e-9 * abs(now))
    for i in np.flatnonzero(new):
        for j in range(i // 12 * 12, i // 12 * 12 + 12):
            if not new[j]:
                trial = new.copy()
                trial[[i, j]] = False, True
                assert squared_error(H, b, trial) >= now - 1e-9 * abs(now)


def test_on_a_diagonal_matrix_the_largest_contributions_stay():
    H = np.diag([1.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    b = np.array([3.0, 4.0, 1.0, 2.0, 0.5, -3.0, 2.0, 1.0])
    new, change, _ = sweep_groups(H, b, np.array([0, 0, 1, 1, 1, 0, 0, 1], bool), 4, 3)
    # b squared over H: 9, 4, 1, 4 (a tie that the first support in order wins) and 1/4, 9, 4, 1
    assert new.tolist() == [True, True, False, False, False, True, True, False]
    assert change == pytest.approx(1 + 4 + 0.25 + 1 - (9 + 4 + 9 + 4))


def test_a_longer_sweep_is_never_worse_and_says_when_it_is_done():
    r, H, b = row(5, 256, 2.0)
    mask = keep(r, 64, 4, [2] * 64)
    changes = [sweep_groups(H, b, mask, 4, sweeps)[1] for sweeps in (0, 1, 2, 4, 40)]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] == 0.0 > changes[1] > changes[-1]
    done, _, passes = sweep_groups(H, b, mask, 4, 40)
    again, change, once = sweep_groups(H, b, done, 4, 40)
    assert passes < 40
    assert once == 1
    assert change == pytest.approx(0.0, abs=1e-12 * abs(squared_error(H, b, done)))
    np.testing.assert_array_equal(done, again)


def test_nothing_to_choose_and_singular_matrices_come_back_as_they_are():
    b = np.ones(8)
    for H, mask in (
        (np.eye(8), np.zeros(8, bool)),
        (np.eye(8), np.ones(8, bool)),
        (np.eye(8), np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)),
        (np.zeros((8, 8)), np.array([1, 1, 0, 0, 0, 0, 1, 1], bool)),
    ):
        new, change, _ = sweep_groups(H, b, mask, 4, 3)
        np.testing.assert_array_equal(new, mask)
        assert change == 0.0


def test_collinear_weights_do_not_meet_in_a_support():
    H = np.eye(8)
    H[0, 1] = H[1, 0] = 1.0  # weights 0 and 1 see the same input
    b = np.array([5.0, 5.0, 1.0, 0.5, 0.0, 1.0, 2.0, 3.0])
    new, change, _ = sweep_groups(H, b, np.array([0, 0, 1, 1, 1, 1, 0, 0], bool), 4, 5)
    assert new.reshape(2, 4).sum(1).tolist() == [2, 2]
    assert new[:4].tolist() in ([True, False, True, False], [False, True, True, False])
    assert np.isfinite(change)


def test_groups_must_divide_the_row():
    with pytest.raises(ValueError, match="groups of 3 do not divide a row of 8"):
        sweep_groups(np.eye(8), np.ones(8), np.ones(8, bool), 3, 1)
