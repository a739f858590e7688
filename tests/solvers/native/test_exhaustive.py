"""Exhaustive search against plain enumeration, and its limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, FactoredMatrix
from optiprune.problems.generators import layer_miqp, layer_problem
from optiprune.solvers import (
    IterationLimit,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
    get,
)
from optiprune.solvers.native.exhaustive import assignments, work


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


class TestWork:
    @staticmethod
    def counted(n, k, square):
        """Nodes of the tree, and what those that add a one cost, by walking it."""
        nodes = adds = 0
        stack = [(0, 0)]
        while stack:
            depth, ones = stack.pop()
            if depth == n:
                continue
            nodes += 1
            if k - ones < n - depth:
                stack.append((depth + 1, ones))
            if ones < k:
                adds += ones**2 if square else ones
                stack.append((depth + 1, ones + 1))
        return nodes + adds

    @pytest.mark.parametrize("n", [3, 5, 9, 12])
    def test_the_estimate_is_the_walk_up_to_a_small_factor(self, n):
        for k in range(n + 1):
            tree = work(CardinalityQP(np.eye(n), k=k))
            assert 0.5 <= tree / self.counted(n, k, False) <= 5
            support = work(MIQP(np.eye(n), np.ones(n), k=k))
            assert 0.3 <= support / self.counted(n, k, True) <= 5

    def test_groups_multiply(self):
        # the tree of two equal groups: the first once, the second under each of its 6 leaves
        one = work(CardinalityQP(np.eye(4), k=2))
        two = work(CardinalityQP(np.eye(8), k=[2, 2], groups=[0] * 4 + [1] * 4))
        assert two == one + 6 * (one + 2 * 10)  # two ones above each of C(5, 2) nodes

    def test_few_assignments_may_be_much_work(self):
        assert assignments(CardinalityQP(np.eye(500), k=498)) == 124_750
        assert work(CardinalityQP(np.eye(500), k=498)) > 10**9
        assert work(QUBO(np.eye(18))) == 18 << 18

    def test_numbers_too_long_to_print_are_named_all_the_same(self):
        p = CardinalityQP(FactoredMatrix(np.ones((1, 20_000))), k=10_000)
        with pytest.raises(UnsupportedProblemError, match=r"about 10\^6018 assignments"):
            get("exhaustive").solve(p)


@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (layer_miqp(600, 599, seed=1), 0.3),
        (layer_miqp(600, 598, bound=0.05, seed=1), 0.3),
        (layer_miqp(40, 38, bound=0.01, seed=1), 0.05),
        (layer_problem(1500, 1499, seed=1), 0.3),
        (layer_problem(500, 498, seed=1), 0.1),
    ],
    ids=["long factor", "long factor, bounds", "bounds", "long path", "many paths"],
)
def test_a_time_limit_holds_within_a_descent_to_a_leaf(problem, limit):
    solver = get("exhaustive")
    solver.solve(type_of_eight(problem))  # compile
    best = np.inf  # of three: another process may hold the machine
    for _ in range(3):
        s = solver.solve(problem, stop=TimeLimit(limit))
        best = min(best, s.stats.wall_s)
        if best <= 1.1 * limit + 0.05:
            break
    assert best <= 1.1 * limit + 0.05
    assert s.status.has_solution


def type_of_eight(problem):
    return layer_miqp(8, 4, bound=0.5) if isinstance(problem, MIQP) else layer_problem(8, 4)
