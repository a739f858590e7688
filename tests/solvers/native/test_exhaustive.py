"""Exhaustive search against plain enumeration, and its limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.solvers import (
    IterationLimit,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
    get,
)


def enumerate_best(problem: object) -> float:
    """Least energy over all feasible assignments: the slow, obviously right twin."""
    best = np.inf
    for bits in itertools.product((0, 1), repeat=problem.n):
        if problem.violation(bits) <= 1e-9:
            best = min(best, problem.energy(bits))
    return best


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 9),
    kind=st.sampled_from(["qubo", "cardinality", "groups", "budget", "miqp"]),
)
def test_is_the_optimum(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    q, c = rng.normal(size=(n, n)), rng.normal(size=n)
    if kind == "qubo":
        problem = QUBO(q, c, 0.5)
    elif kind == "cardinality":
        problem = CardinalityQP(q, c, -1.0, k=int(rng.integers(0, n + 1)))
    elif kind == "groups":
        g = rng.integers(0, 3, size=n)
        k = [int(rng.integers(0, np.sum(g == i) + 1)) for i in range(3)]
        problem = CardinalityQP(q, c, k=k, groups=g)
    elif kind == "budget":
        a = rng.integers(-2, 6, size=(2, n)).astype(float)
        problem = BudgetQP(
            q, c, A=a, upper=np.maximum(a, 0).sum(1) * 0.6, lower=np.minimum(a, 0).sum(1)
        )
    else:
        problem = MIQP(q @ q.T + np.eye(n), c, k=int(rng.integers(0, n + 1)), M=1.0)
    solution = get("exhaustive").solve(problem)
    want = enumerate_best(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.energy == pytest.approx(want, abs=1e-9)
    assert solution.bound == pytest.approx(want, abs=1e-9)


def test_infeasible_is_proven() -> None:
    # 3x + 3y = 4 has no solution in 0/1, though the range [0, 6] holds 4
    problem = BudgetQP(np.eye(2), A=[[3.0, 3.0]], upper=[4.0], lower=[4.0])
    assert get("exhaustive").solve(problem).status is Status.INFEASIBLE


def test_too_many_assignments_are_refused_before_any_work() -> None:
    with pytest.raises(UnsupportedProblemError, match=r"n = 60.*'annealing'"):
        get("exhaustive").solve(CardinalityQP(np.eye(60), k=30))
    # but 60 choose 2 is nothing
    assert get("exhaustive").solve(CardinalityQP(np.eye(60), k=2)).energy == 2.0
    with pytest.raises(UnsupportedProblemError, match="max_assignments"):
        get("exhaustive", max_assignments=100).solve(QUBO(np.eye(7)))


def test_stopped_early_it_claims_nothing() -> None:
    rng = np.random.default_rng(0)
    problem = QUBO(rng.normal(size=(26, 26)))
    for stop in (TimeLimit(0.02), IterationLimit(1000)):
        solution = get("exhaustive").solve(problem, stop=stop)
        assert solution.status is Status.FEASIBLE
        assert solution.bound is None
    hit = get("exhaustive").solve(problem, stop=Target(0.0))
    assert hit.energy <= 0.0
    assert hit.stats.stop_reason == "target"
