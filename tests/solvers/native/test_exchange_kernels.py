"""The kernels against slow twins: fields, energies, bookkeeping, resumption, the distribution."""

import itertools

import numpy as np
import pytest

from optiprune.solvers import IterationLimit, Watch
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.native.exchange import BEST, CURRENT, STEP
from optiprune.solvers.native.search import ExchangeSearch, FlipSearch
from optiprune.solvers.native.start import prepare
from optiprune.solvers.stop import limits

_KINDS = ["cardinality", "pruning", "groups", "n:m", "factored"]


def _search(problem, moves="heat-bath", precision="float64", seed=5):
    watch = Watch(limits(None))
    incumbent = Incumbent(problem, watch)
    start = prepare(problem, None, watch, incumbent, precision)
    rng = np.random.SeedSequence(seed).generate_state(4, np.uint64)
    if len(start.inst.k):
        return ExchangeSearch(start, rng, watch, incumbent, moves)
    return FlipSearch(start, rng, watch, incumbent)


def _check(search, problem, rel):
    """Everything that the state holds, recomputed from x alone."""
    s, inst = search.state, search.inst
    x = inst.outward(s.x)
    assert problem.violation(x) == 0
    scale = np.abs(inst.fields(s.x)).max()
    np.testing.assert_allclose(s.h, inst.fields(s.x), atol=rel * scale)
    assert s.floats[CURRENT] + inst.offset == pytest.approx(problem.energy(x), abs=rel * 10 * scale)
    best = problem.energy(inst.outward(s.best_x))
    assert s.floats[BEST] + inst.offset == pytest.approx(best, abs=rel * 10 * scale)
    if isinstance(search, ExchangeSearch):
        np.testing.assert_array_equal(s.mask, np.where(s.x == 1, 0, -np.inf))
        moving = np.zeros(inst.n, bool)
        for g, k in enumerate(inst.k):
            a, b = inst.starts[g], inst.starts[g + 1]
            moving[a:b] = 0 < k < b - a
        np.testing.assert_array_equal(np.sort(s.pruned), np.flatnonzero(moving & (s.x == 0)))
    else:
        np.testing.assert_array_equal(s.sign, 1 - 2 * s.x)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("moves", ["heat-bath", "metropolis"])
def test_annealing_state_is_true_after_many_moves(kind, moves, precision, make):
    p = make(kind, 40, 1)
    search = _search(p, moves, precision)
    search.anneal(20.0, 1.0, 300)
    assert search.watch.accepted > 100
    _check(search, p, 1e-4 if precision == "float32" else 1e-10)
    if moves == "metropolis":
        s = search.state
        np.testing.assert_array_equal(
            np.sort(np.concatenate([s.pruned, s.kept])), np.sort(np.unique([*s.pruned, *s.kept]))
        )
        assert (s.x[s.kept] == 1).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", [*_KINDS, "qubo", "pruning-qubo"])
def test_tabu_state_is_true_after_many_moves_and_perturbations(kind, precision, make):
    p = make(kind, 40, 2)
    search = _search(p, precision=precision)
    search.tabu(3000, tenure=3, spread=4, stall=40, weakest=2, strongest=6)
    assert search.watch.restarts > 5
    _check(search, p, 1e-4 if precision == "float32" else 1e-10)
    if isinstance(search, ExchangeSearch):
        assert (search.state.x[search.state.kept] == 1).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_flip_annealing_state_is_true_after_many_moves(precision, make):
    p = make("qubo", 40, 2)
    search = _search(p, precision=precision)
    search.anneal(3.0, 0.1, 300)
    _check(search, p, 1e-4 if precision == "float32" else 1e-10)


@pytest.mark.parametrize("kind", ["pruning", "groups", "qubo"])
@pytest.mark.parametrize("what", ["anneal", "tabu"])
def test_results_do_not_depend_on_how_steps_are_cut(kind, what, make):
    p = make(kind, 30, 3)
    searches = [_search(p), _search(p)]
    kernel = {
        "anneal": lambda s, m: s._anneal(m, 0.99),
        "tabu": lambda s, m: s._tabu(m, 2, 3, 50, 2, 5),
    }[what]
    for s in searches:
        s.state.floats[2] = 0.5
    kernel(searches[0], 2000)
    r = np.random.default_rng(0)
    while searches[1].state.counters[STEP] < 2000:
        left = 2000 - int(searches[1].state.counters[STEP])
        kernel(searches[1], min(left, int(r.integers(1, 60))))
    a, b = (s.state for s in searches)
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.best_x, b.best_x)
    np.testing.assert_array_equal(a.h, b.h)
    np.testing.assert_array_equal(a.floats, b.floats)
    np.testing.assert_array_equal(searches[0].rng, searches[1].rng)


@pytest.mark.parametrize("moves", ["heat-bath", "metropolis"])
def test_at_a_fixed_temperature_states_have_boltzmann_weights(moves, make):
    p = make("cardinality", 6, 4)
    search = _search(p, moves)
    t = 2.0
    states = [x for x in itertools.product((0, 1), repeat=6) if sum(x) == 3]
    energies = np.array([p.energy(np.array(x)) for x in states])
    weights = np.exp(-(energies - energies.min()) / t)
    weights /= weights.sum()
    at = {x: i for i, x in enumerate(states)}
    counts = np.zeros(len(states))
    search.state.floats[2] = t
    for _ in range(40_000):
        search._anneal(2, 1.0)
        counts[at[tuple(int(v) for v in search.state.x)]] += 1
    # total variation; sampling error is about 0.01
    assert 0.5 * np.abs(counts / counts.sum() - weights).sum() < 0.04


def test_proposals_are_counted_exactly(make):
    p = make("pruning", 30, 3)
    search = _search(p)
    search.watch.limits = limits(IterationLimit(777))
    assert search.anneal(1.0, 0.1, 10_000) == "iterations"
    assert search.watch.moves == 777
