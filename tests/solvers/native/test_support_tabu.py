"""Tabu search over supports: prices, rounding, answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import MIQP
from optiprune.problems.generators import layer_miqp
from optiprune.solvers import IterationLimit, Target, get
from optiprune.solvers.native.exchange import BEST, CURRENT, MARGIN, RUN_BEST, STEP
from optiprune.solvers.native.rng import new_state
from optiprune.solvers.native.support_tabu import support_tabu
from optiprune.solvers.native.tableau import Tableau


class Search:
    """The kernel on one tableau, a step or more at a time."""

    def __init__(self, H, b, members, *, tenure=1, stall=20, refresh=400):
        self.t = Tableau(H, b)
        self.t.load(np.asarray(members))
        n = len(b)
        self.counters, self.floats = np.zeros(16, np.int64), np.zeros(8)
        self.floats[[CURRENT, BEST, RUN_BEST]] = 0.5 * self.t.T[n, n]
        self.floats[MARGIN] = 1e-12
        self.best = self.t.inside.astype(np.int8)
        self.until, self.rng = np.full(n, -1, np.int64), new_state(np.random.SeedSequence(0))
        self.options = (tenure, 1, stall, 2, 4, 0, refresh, -np.inf)

    def run(self, steps, rows=64):
        t = self.t
        return support_tabu(
            t.T, t.H, t.b, 1e3 * t.floor, t.inside, self.until, self.best, self.rng, self.counters,
            self.floats, np.empty((4, len(t.b))), steps, rows, *self.options,
        )  # fmt: skip

    @property
    def energy(self):
        return 0.5 * self.t.T[-1, -1]


def _random(seed, n, rows):
    r = np.random.default_rng(seed)
    x = r.standard_normal((rows, n))
    return x.T @ x / rows, r.standard_normal(n)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(3, 14), st.data())
def test_a_step_is_the_best_exchange_of_all(seed, n, data):
    h, b = _random(seed, n, 2 * n)
    k = data.draw(st.integers(1, n - 1))
    search = Search(h, b, range(k))
    t = Tableau(h, b)
    t.load(np.arange(k))
    best = t.exchange_deltas(np.arange(k), np.arange(k, n)).min()
    before = search.energy
    search.run(1)
    assert search.energy - before == pytest.approx(best, abs=1e-9 * (1 + abs(before)))
    assert search.t.inside.sum() == k
    assert search.counters[STEP] == 1


@pytest.mark.parametrize("seed", range(6))
def test_rounding_does_not_grow_over_many_steps(seed):
    # few more samples than members: supports come close to singular
    h, b = _random(seed, 14, 8)
    search = Search(h, h @ b, range(6), refresh=10**9)
    for _ in range(20):
        if search.run(100):
            break
        fresh = Tableau(h, h @ b)
        fresh.load(np.flatnonzero(search.t.inside))
        assert search.energy == pytest.approx(0.5 * fresh.T[-1, -1], rel=1e-7)
    assert search.counters[STEP] >= 100


def test_the_window_holds_the_cheapest_to_lose():
    h, b = _random(3, 30, 90)
    search = Search(h, b, range(15))
    t = Tableau(h, b)
    t.load(np.arange(15))
    few = np.argsort(t.removal_costs()[:15])[:4]
    best = t.exchange_deltas(few, np.arange(15, 30)).min()
    before = search.energy
    search.run(1, rows=4)
    assert search.energy - before == pytest.approx(best)


@pytest.mark.parametrize("seed", range(40))
def test_it_finds_the_optimum_of_small_problems(seed):
    r = np.random.default_rng(seed)
    n = int(r.integers(2, 13))
    k, samples = int(r.integers(0, n + 1)), int(r.integers(1, 2 * n + 1))
    x = r.standard_normal((samples, n))
    if seed % 3 == 0:
        x[:, r.integers(n)] = 0.0  # a dead input
    if seed % 4 == 0 and n > 3:
        x[:, 0] = x[:, 1]
    h = x.T @ x / samples
    problem = MIQP(h, h @ r.standard_normal(n), k=k)
    best = get("exhaustive").solve(problem).energy
    for x0 in (None, np.repeat([1, 0], [k, n - k]), np.zeros(n, np.int8)):
        found = get("tabu").solve(problem, x0=x0, seed=seed)
        assert found.energy == pytest.approx(best, rel=1e-8, abs=1e-10)


def test_it_leads_descent_and_keeps_what_stops_it():
    problems = [layer_miqp(80, 40, correlation=0.9, seed=i) for i in range(6)]
    tabu = [get("tabu").solve(p).energy for p in problems]
    descent = [get("local-search", starts=1).solve(p).energy for p in problems]
    assert all(a <= b + 1e-9 * abs(b) for a, b in zip(tabu, descent, strict=True))
    assert sum(a < b - 1e-9 * abs(b) for a, b in zip(tabu, descent, strict=True)) >= 2
    start = np.repeat([1, 0], 40)
    cut = get("tabu").solve(problems[0], x0=start, stop=IterationLimit(5))
    assert cut.stats.moves == 5
    met = get("tabu").solve(problems[0], stop=Target(descent[0]))
    assert met.energy <= descent[0]
    assert met.stats.stop_reason == "target"


def test_bounded_weights_are_left_to_descent():
    p = layer_miqp(20, 10, seed=0)
    bounded = MIQP(p.H, p.b, k=10, M=0.2)
    found = get("tabu").solve(bounded)
    assert found.energy == pytest.approx(get("local-search", starts=1).solve(bounded).energy)
