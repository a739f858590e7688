"""Removal and addition against least squares from scratch."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.shrinking.column_subset import ColumnSubset, System


def system(
    seed: int, units: int, each: int, fixed: int = 0, rows: int = 3, damping: float = 1e-3
) -> System:
    rng = np.random.default_rng(seed)
    cols = units * each + fixed
    X = rng.normal(size=(2 * cols + 3, cols)) @ rng.normal(size=(cols, cols))
    order = rng.permutation(cols)
    columns = [np.sort(order[i * each : (i + 1) * each]) for i in range(units)]
    return System(X.T @ X / len(X), rng.normal(size=(cols, rows)), columns, 1.0, damping)


def best_error(s: System, kept: np.ndarray) -> float:
    gone = [c for u in np.flatnonzero(~kept) for c in s.columns[u]]
    stay = np.setdiff1d(np.arange(len(s.G)), gone)
    B = np.zeros_like(s.W)
    B[stay] = np.linalg.solve(s.G[np.ix_(stay, stay)], s.G[stay] @ s.W)
    d = B - s.W
    return float(np.sum(d * (s.G @ d)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    units=st.integers(2, 6),
    each=st.integers(1, 3),
    fixed=st.integers(0, 2),
    data=st.data(),
)
def test_moves_are_exact(seed: int, units: int, each: int, fixed: int, data: st.DataObject) -> None:
    s = system(seed, units, each, fixed)
    subset = ColumnSubset([s], units)
    error = 0.0
    for _ in range(6):
        unit = data.draw(st.integers(0, units - 1))
        (worth,) = s.worth(np.array([unit]))
        error += float(worth) if subset.kept[unit] else -float(worth)
        subset.flip(unit)
        everyone = np.arange(units)
        one_by_one = [float(s.worth(np.array([i]))[0]) for i in everyone]
        np.testing.assert_allclose(s.worth(everyone), one_by_one, rtol=1e-9)
        want = best_error(s, subset.kept)
        scale = 1.0 + float(np.sum(s.W * (s.G @ s.W)))
        assert subset.error() == pytest.approx(want, abs=1e-7 * scale)
        assert error == pytest.approx(want, abs=1e-7 * scale)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), each=st.integers(1, 2), k=st.integers(1, 5))
def test_exchange_never_makes_it_worse(seed: int, each: int, k: int) -> None:
    systems = [system(seed, 6, each), system(seed + 1, 6, each, rows=2)]
    subset = ColumnSubset(systems, 6)
    for _ in range(6 - k):
        subset.remove_cheapest()
    before = subset.error()
    subset.exchange(100)
    assert subset.kept.sum() == k
    after = subset.error()
    assert after <= before * (1 + 1e-9)
    everything = [
        sum(best_error(s, np.isin(np.arange(6), c)) for s in systems)
        for c in combinations(range(6), k)
    ]
    assert after >= min(everything) * (1 - 1e-6) - 1e-9


def test_parts_keep_their_numbers() -> None:
    s = system(3, 6, 1)
    subset = ColumnSubset([s], 6)
    for unit in (0, 1, 3):
        subset.flip(unit)
    parts = [np.array([0, 1, 2]), np.array([3, 4, 5])]
    subset.exchange(50, parts)
    assert [int(subset.kept[p].sum()) for p in parts] == [1, 2]


def test_dead_and_unread_units_cost_nothing() -> None:
    G = np.diag([1.0, 0.0, 2.0])
    columns = [np.array([0]), np.array([1]), np.array([2]), np.array([], dtype=np.int64)]
    s = System(G, np.ones((3, 2)), columns, 1.0, damping=1e-12)
    costs = ColumnSubset([s], 4).worth(np.arange(4))
    assert costs[3] == 0.0
    assert costs[1] < 1e-9 < costs[0] < costs[2]
    zero = System(np.zeros((2, 2)), np.ones((2, 1)), [np.array([0]), np.array([1])], 1.0)
    assert np.isfinite(ColumnSubset([zero], 2).worth(np.arange(2))).all()
