import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import MIQP, ProblemError
from optiprune.solvers import get
from optiprune.solvers.native.tableau import Tableau


def _random(seed, n, rows):
    r = np.random.default_rng(seed)
    x = r.standard_normal((rows, n))
    return x.T @ x / rows, r.standard_normal(n)


def _expected(h, b, s, u):
    p = np.linalg.inv(h[np.ix_(s, s)])
    c = h[np.ix_(s, u)]
    return p, p @ c, h[np.ix_(u, u)] - c.T @ p @ c, p @ b[s], b[u] - c.T @ (p @ b[s])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 11), min_size=1, max_size=90))
def test_every_block_is_true_after_any_sequence_of_moves(seed, moves):
    h, b = _random(seed, 12, 30)
    t = Tableau(h, b)
    for i in moves:
        if t.inside[i]:
            t.leave(i)
        elif t.can_enter(i):
            t.enter(i)
    s, u = np.flatnonzero(t.inside), np.flatnonzero(~t.inside)
    p, B, schur, w, r = _expected(h, b, s, u)
    np.testing.assert_allclose(t.T[np.ix_(s, s)], p, atol=1e-7)
    np.testing.assert_allclose(t.T[np.ix_(s, u)], B, atol=1e-7)
    np.testing.assert_allclose(t.T[np.ix_(u, u)], schur, atol=1e-7)
    np.testing.assert_allclose(t.T[s, 12], w, atol=1e-7)
    np.testing.assert_allclose(t.T[u, 12], r, atol=1e-7)
    np.testing.assert_allclose(t.T, t.T.T, atol=1e-9)


def test_loading_at_once_equals_sweeping_one_by_one():
    h, b = _random(1, 30, 60)
    s = np.arange(0, 30, 2)
    fast, slow = Tableau(h, b), Tableau(h, b)
    fast.load(s)
    slow.load(s, lambda: None)
    np.testing.assert_allclose(fast.T, slow.T, atol=1e-9)
    np.testing.assert_array_equal(fast.inside, slow.inside)


def test_marginal_costs_are_changes_of_energy():
    h, b = _random(2, 10, 25)
    p = MIQP(h, b, k=5)
    x = np.array([1, 0] * 5, np.int8)
    t = Tableau(h, b)
    t.load(np.flatnonzero(x))
    e = p.energy(x)
    assert t.energy() == pytest.approx(e)
    out, into = np.flatnonzero(x == 1), np.flatnonzero(x == 0)
    for i in range(10):
        y = x.copy()
        y[i] ^= 1
        change = p.energy(y) - e
        got = t.removal_costs()[i] if x[i] else -t.gains()[i]
        assert got == pytest.approx(change, abs=1e-10)
    deltas = t.exchange_deltas(out, into)
    for a, o in enumerate(out):
        for c, i in enumerate(into):
            y = x.copy()
            y[o], y[i] = 0, 1
            assert deltas[a, c] == pytest.approx(p.energy(y) - e, abs=1e-10)


def test_collinear_members_stay_out_of_the_pivots():
    x = np.random.default_rng(0).standard_normal((20, 4))
    x = np.column_stack([x, x[:, 0] + x[:, 1]])
    h = x.T @ x
    t = Tableau(h, h @ np.ones(5))
    t.load(np.array([0, 1, 4]))
    assert t.inside.sum() == 2
    assert MIQP(h, h @ np.ones(5), k=3).energy([1, 1, 0, 0, 1]) == pytest.approx(t.energy())


@pytest.mark.parametrize("kind", ["miqp", "singular-miqp"])
@pytest.mark.parametrize("seed", range(4))
def test_no_exchange_improves_the_answer(kind, seed, make):
    p = make(kind, 12, seed)
    sol = get("local-search", starts=1).solve(p, seed=seed)
    assert sol.energy == pytest.approx(p.energy(sol.x))
    for o in np.flatnonzero(sol.x == 1):
        for i in np.flatnonzero(sol.x == 0):
            y = sol.x.copy()
            y[o], y[i] = 0, 1
            assert p.energy(y) >= sol.energy - 1e-8


@pytest.mark.parametrize("kind", ["miqp", "singular-miqp", "bounded-miqp"])
def test_defaults_reach_the_optimum_of_small_problems(kind, make, brute_force):
    for seed in range(5):
        p = make(kind, 9, seed)
        best = brute_force(p)
        assert get("local-search").solve(p, seed=seed).energy == pytest.approx(best, abs=1e-9)
        sol = get("exhaustive").solve(p)
        assert sol.energy == pytest.approx(best, abs=1e-9)


def test_weights_stay_within_their_bounds(make):
    p = make("bounded-miqp", 14, 1)
    sol = get("local-search").solve(p)
    assert (np.abs(sol.weights) <= p.M * sol.x + 1e-9).all()
    assert (np.abs(sol.weights) > 0.49).any()  # some bound is active


def test_an_energy_without_a_lower_bound_is_reported():
    # H = 0 and b != 0: any weight may grow for ever
    p = MIQP(np.zeros((4, 4)), np.ones(4), k=2)
    for name in ("greedy", "local-search", "exhaustive"):
        with pytest.raises(ProblemError, match="unbounded below"):
            get(name).solve(p)


@pytest.mark.parametrize("k", [0, 1, 5])
def test_trivial_supports(k):
    h, b = _random(3, 5, 9)
    p = MIQP(h, b, k=k)
    best = get("exhaustive").solve(p)
    for name in ("greedy", "local-search", "auto"):
        sol = get(name).solve(p)
        assert sol.x.sum() == k
        if name != "greedy":
            assert sol.energy == pytest.approx(best.energy)
