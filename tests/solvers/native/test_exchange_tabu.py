"""Exchange tabu search against a slow twin, and when it ends."""

import numpy as np
import pytest

from optiprune.problems import CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import SolverOptionError, Watch, get
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.native.rng import new_state, next_u64
from optiprune.solvers.native.search import ExchangeSearch
from optiprune.solvers.native.start import prepare
from optiprune.solvers.stop import limits


def _search(problem, precision="float64", seed=3):
    watch = Watch(limits(None))
    incumbent = Incumbent(problem, watch)
    start = prepare(problem, None, watch, incumbent, precision)
    return ExchangeSearch(start, new_state(np.random.SeedSequence(seed)), watch, incumbent)


def _slow(problem, x, pruned, rng, steps, window, tenure, spread):
    """The rule in its own words: x after every step. ``pruned`` lists the positions by slot."""
    x, pruned, until, out = x.copy(), list(pruned), np.zeros(problem.n, int), []
    for step in range(1, steps + 1):
        u = int(next_u64(rng))
        at = ((u & 0xFFFFFFFF) * len(pruned)) >> 32
        best, choice = np.inf, None
        h = problem.fields(x)
        for slot in [(at + c) % len(pruned) for c in range(min(window, len(pruned)))]:
            i = pruned[slot]
            for j in np.flatnonzero(x == 1):
                if problem.groups[i] != problem.groups[j] or max(until[i], until[j]) > step - 1:
                    continue
                delta = h[i] - h[j] - 2 * problem.Q[i, j]
                if delta < best:
                    best, choice = delta, (slot, i, j)
        if choice is not None:
            slot, i, j = choice
            x[i], x[j] = 1, 0
            pruned[slot] = j
            until[i] = step + tenure + ((((u >> 32) & 0xFFFF) * spread) >> 16)
            until[j] = step + tenure + (((u >> 48) * spread) >> 16)
        out.append(x.copy())
    return out


@pytest.mark.parametrize("window", [1, 5, 1000])
@pytest.mark.parametrize(("tenure", "spread"), [(0, 1), (1, 4), (5, 3)])
@pytest.mark.parametrize("kind", ["cardinality", "pruning", "groups", "n:m"])
def test_every_step_is_that_of_the_slow_twin(kind, tenure, spread, window, make):
    p = make(kind, 36, 4)
    search = _search(p)
    inst = search.inst
    order = np.arange(p.n) if inst.order is None else inst.order
    begin = inst.outward(search.state.x)
    slots = order[search.state.pruned]
    want = _slow(p, begin, slots, search.rng.copy(), 60, window, tenure, spread)
    for x in want:
        search._tabu(1, tenure, spread, 10**9, 2, 5, window)
        np.testing.assert_array_equal(inst.outward(search.state.x), x)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_end_is_four_times_as_late_as_the_incumbent(precision):
    p = layer_problem(64, 32, seed=1)
    for settled in (50, 400):
        search = _search(p, precision)
        search.tabu(1e9, tenure=1, spread=4, stall=128, weakest=2, strongest=8, settled=settled)
        step, found = search.state.counters[0], search.state.counters[3]
        assert step == settled + 4 * found
        assert search.incumbent.energy == pytest.approx(p.energy(search.incumbent.x))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_cycles_are_no_improvements(precision):
    """Rounding makes an incumbent that is met again look better; it must not be taken for it."""
    p = layer_problem(48, 24, seed=2)
    best = get("exact").solve(p).energy
    search = _search(p, precision)
    search.tabu(60_000, tenure=1, spread=4, stall=96, weakest=2, strongest=6, rows=12)
    assert p.energy(search.incumbent.x) == pytest.approx(best, rel=1e-6)
    assert search.state.counters[3] < 30_000


def test_everything_tabu_is_waited_for():
    p = CardinalityQP(np.diag(np.arange(4.0)), k=2)
    s = get("tabu", tenure=50, iterations=300).solve(p)
    assert s.energy == 1.0
    assert s.stats.moves == 300


def test_options():
    p = layer_problem(40, 20, seed=0)
    assert get("tabu", iterations=500).solve(p).stats.moves == 500
    assert get("tabu", settled=300).solve(p).stats.moves >= 300
    short, long = (get("tabu", settled=s).solve(p).stats.moves for s in (100, 1000))
    assert short < long
    assert get("tabu", window=3, iterations=100).solve(p).energy <= get("greedy").solve(p).energy
    with pytest.raises(SolverOptionError, match=r"window.*got 0"):
        get("tabu", window=0)
