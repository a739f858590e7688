"""Where a search within budgets begins: a feasible start is never lost, however soon it stops."""

import numpy as np
import pytest

from optiprune.problems import BudgetQP
from optiprune.solvers import (
    IterationLimit,
    NoImprovement,
    Status,
    Target,
    TimeLimit,
    Watch,
    get,
)
from optiprune.solvers.native.budget_search import budget_start
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.stop import limits

SOLVERS = ["annealing", "local-search", "greedy", "auto"]


def equation(seed: int) -> tuple[BudgetQP, np.ndarray]:
    """An equation between real costs, whose limit is a sum in another order than that of A x."""
    r = np.random.default_rng(seed)
    A = r.uniform(1e8, 1e9, size=(1, 12))
    x = np.array([1, 0] * 6, dtype=np.int8)
    total = float(sum(A[0][x == 1][::-1]))
    return BudgetQP(r.normal(size=(12, 12)), A=A, lower=[total], upper=[total]), x


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(
    "stop",
    [Target(1e9), IterationLimit(0), NoImprovement(1), TimeLimit(0.0), IterationLimit(7)],
    ids=repr,
)
def test_a_feasible_start_with_an_early_stop(name, stop, make):
    p = make("budget", 40, 0)
    x0 = get("greedy").solve(p).x
    s = get(name).solve(p, x0=x0, stop=stop)
    assert s.status is Status.FEASIBLE
    assert s.energy <= p.energy(x0)
    assert "no assignment" not in s.stats.message


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_only_feasible_assignment_may_be_the_start(name, seed):
    p, x0 = equation(seed)
    s = get(name).solve(p, x0=x0)
    assert s.status.has_solution
    assert s.energy <= p.energy(x0)
    assert "no assignment" not in s.stats.message


@pytest.mark.parametrize("seed", range(4))
def test_a_feasible_start_is_among_those_found(seed):
    p, x0 = equation(seed)
    for stop in (None, IterationLimit(0)):
        watch = Watch(limits(stop))
        start = budget_start(p, x0, np.random.SeedSequence(0), watch, Incumbent(p, watch))
        assert any((x == x0).all() for x in start.found)
        assert start.message == ""
