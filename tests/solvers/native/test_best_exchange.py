"""Local search and tabu rest on the exact best exchange: compare with all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import CardinalityQP
from optiprune.solvers import get
from optiprune.solvers.native.exchange import ExchangeState
from optiprune.solvers.native.instance import build_instance
from optiprune.solvers.native.pairs import PairWorkspace, _best_pair, _leavers


def _all_pairs(problem, x, frozen):
    best = np.inf
    for i in np.flatnonzero(x == 0):
        for j in np.flatnonzero(x == 1):
            if problem.groups[i] == problem.groups[j] and not frozen[i] and not frozen[j]:
                best = min(best, problem.exchange_delta(x, int(j), int(i)))
    return best


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**31), st.booleans())
def test_the_pair_found_is_the_best_of_all(n, n_groups, seed, positive):
    r = np.random.default_rng(seed)
    q = r.standard_normal((n, n))
    q = np.abs(q) if positive else q
    g = np.sort(r.integers(0, n_groups, n))
    k = [int(r.integers(0, s + 1)) for s in np.bincount(g, minlength=n_groups)]
    p = CardinalityQP(q, r.standard_normal(n), k=k, groups=g)
    x = get("greedy", direction="forward").solve(p).x
    inst = build_instance(p, "float64")
    state, work = ExchangeState.at(inst, x), PairWorkspace(inst)
    frozen = r.random(n) < 0.2
    work.free_at[:] = np.where(frozen, 9, 0)
    _leavers(state.h, state.mask, inst.starts, work.free_at, 5, work.leave, work.tops)
    delta, slot, j = _best_pair(
        inst.J, state.h, work.leave, work.tops, work.maxima, state.pruned, state.pruned_group,
        inst.starts, work.free_at, 5, np.inf,
    )  # fmt: skip
    want = _all_pairs(p, x, frozen)
    if np.isinf(want):
        assert slot == -1
    else:
        i = int(state.pruned[slot])
        assert delta == pytest.approx(want, abs=1e-9)
        assert p.exchange_delta(x, int(j), i) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("strategy", ["best", "first"])
@pytest.mark.parametrize("kind", ["cardinality", "pruning", "groups", "n:m", "factored"])
@pytest.mark.parametrize("n", [24, 160])
def test_local_search_ends_where_no_exchange_improves(kind, strategy, n, make):
    p = make(kind, n, 7)
    sol = get("local-search", starts=1, strategy=strategy).solve(p, seed=1)
    h = np.abs(p.fields(sol.x)).max()
    least = _all_pairs(p, sol.x, np.zeros(n, bool))
    assert least >= -1e-5 * h if n > 128 else least >= -1e-12 * h


@pytest.mark.parametrize("strategy", ["best", "first"])
@pytest.mark.parametrize("kind", ["qubo", "pruning-qubo", "integer-qubo"])
@pytest.mark.parametrize("n", [24, 160])
def test_local_search_ends_where_no_flip_improves(kind, strategy, n, make):
    p = make(kind, n, 7)
    sol = get("local-search", starts=1, strategy=strategy).solve(p, seed=1)
    d = p.flip_deltas(sol.x)
    assert d.min() >= -1e-5 * np.abs(d).max()


def test_descent_from_x0_improves_x0_and_not_something_else(make):
    p = make("pruning", 60, 1)
    x0 = np.zeros(60, np.int8)
    x0[: int(p.k[0])] = 1
    sol = get("local-search", starts=1).solve(p, x0=x0)
    assert sol.energy < p.energy(x0)
    # steepest descent, done slowly
    x = x0.copy()
    while True:
        out, into = np.flatnonzero(x == 1), np.flatnonzero(x == 0)
        pairs = [(p.exchange_delta(x, o, i), o, i) for o in out for i in into]
        delta, o, i = min(pairs)
        if delta >= -1e-12:
            break
        x[o], x[i] = 0, 1
    np.testing.assert_array_equal(sol.x, x)
