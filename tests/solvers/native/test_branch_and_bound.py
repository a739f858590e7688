"""Branch and bound: the optimum, always; an honest bound when it is stopped before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune import solvers
from optiprune.problems import QUBO, BudgetQP, CardinalityQP
from optiprune.solvers import IterationLimit, Status, Target, TimeLimit, UnsupportedProblemError
from optiprune.solvers.base import Watch
from optiprune.solvers.native.branch_and_bound import BranchAndBound, _Tree
from optiprune.solvers.native.branch_kernels import STACK
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.native.instance import build_instance
from optiprune.solvers.native.relaxation import convex_forms
from optiprune.solvers.stop import Limits


def random_problem(seed: int) -> QUBO | CardinalityQP:
    """Definite, indefinite, integer or sparse; any scale; counts, groups or neither; n <= 13."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    A = rng.normal(size=(n, n))
    kind = rng.integers(4)
    Q = [A, A @ A.T, np.round(3 * A), np.where(rng.random((n, n)) < 0.2, A, 0.0)][kind]
    linear = rng.normal(size=n) * rng.choice([0.0, 1.0, 5.0])
    if kind == 2:
        linear, Q = np.round(linear), Q + Q.T
    else:
        scale = 10.0 ** rng.integers(-8, 9)
        linear, Q = linear * scale, Q * scale
    shape = rng.integers(3)
    if shape == 0:
        return QUBO(Q, linear, offset=rng.normal())
    if shape == 1:
        return CardinalityQP(Q, linear, offset=1.0, k=int(rng.integers(0, n + 1)))
    groups = np.unique(rng.integers(0, max(1, n // 3), size=n), return_inverse=True)[1]
    k = [int(rng.integers(0, size + 1)) for size in np.bincount(groups)]
    return CardinalityQP(Q, linear, k=k, groups=groups)


def dense_pruning_problem(n: int, seed: int) -> CardinalityQP:
    A = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQP(A @ A.T / n, k=n // 2)


def tolerance(problem: Any) -> float:
    return 1e-8 * float(np.abs(problem.Q).sum() + np.abs(problem.linear).sum()) + 1e-300


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_the_optimum_with_a_proof(seed: int) -> None:
    problem = random_problem(seed)
    best = solvers.get("exhaustive").solve(problem)
    got = solvers.get("exact").solve(problem)
    assert got.status is Status.OPTIMAL
    assert abs(got.energy - best.energy) <= tolerance(problem)
    assert got.bound is not None
    assert got.bound <= best.energy + tolerance(problem)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_a_bound_that_holds_when_stopped(seed: int, nodes: int) -> None:
    problem = random_problem(seed)
    best = solvers.get("exhaustive").solve(problem)
    got = solvers.get("exact").solve(problem, stop=IterationLimit(nodes))
    assert got.bound is None or got.bound <= best.energy + tolerance(problem)
    if got.status is Status.OPTIMAL:
        assert abs(got.energy - best.energy) <= tolerance(problem)
    else:
        assert got.status is Status.FEASIBLE


def test_integer_data_are_solved_to_the_last_unit() -> None:
    rng = np.random.default_rng(3)
    Q = rng.integers(-9, 10, size=(16, 16))
    problem = QUBO(Q + Q.T)
    got = solvers.get("exact").solve(problem)
    assert got.status is Status.OPTIMAL
    assert got.energy == got.bound == solvers.get("exhaustive").solve(problem).energy


def test_a_poor_first_incumbent_is_improved_on() -> None:
    """The tree by itself, from the worst assignment, without a heuristic."""
    problem = dense_pruning_problem(20, 1)
    inst = build_instance(problem, "float64")
    watch = Watch(Limits())
    worst = solvers.get("exhaustive").solve(CardinalityQP(-problem.Q, k=10)).x
    assert worst is not None
    incumbent = Incumbent(problem, watch)
    incumbent.measure(worst)
    form = next(convex_forms(inst, problem.diagonal()))
    tree = _Tree(form, inst, incumbent, 1e-9, 16)
    assert tree.search(watch, incumbent, math.inf) is None
    assert tree.done
    best = solvers.get("exhaustive").solve(problem)
    assert incumbent.energy == pytest.approx(best.energy, abs=1e-8)
    assert tree.bound == pytest.approx(best.energy, abs=1e-8)


def test_a_full_heap_goes_on_depth_first() -> None:
    problem = dense_pruning_problem(40, 2)
    inst = build_instance(problem, "float64")
    watch = Watch(Limits())
    start = solvers.get("greedy").solve(problem).x
    assert start is not None
    found = []
    for memory in (0, 64):
        incumbent = Incumbent(problem, watch)
        incumbent.measure(start)
        form = next(convex_forms(inst, problem.diagonal()))
        tree = _Tree(form, inst, incumbent, 1e-9, memory)
        stacked = False
        while not tree.done:
            tree.search(watch, incumbent, 100)
            stacked |= bool(tree.counters[STACK])
            assert tree.bound <= incumbent.energy
        assert stacked == (memory == 0)
        found.append(incumbent.energy)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_chunks_do_not_change_the_tree() -> None:
    problem = dense_pruning_problem(36, 5)
    whole = solvers.get("exact").solve(problem, seed=1)
    # a limit that never bites makes the chunks smaller
    limited = solvers.get("exact").solve(problem, seed=1, stop=IterationLimit(10**9))
    assert np.array_equal(whole.x, limited.x)
    assert whole.stats.extra == limited.stats.extra


def test_the_time_limit_is_kept_with_a_bound() -> None:
    problem = dense_pruning_problem(200, 6)
    got = solvers.get("exact").solve(problem, stop=TimeLimit(1.0))
    assert got.stats.wall_s < 1.15
    assert got.status is Status.FEASIBLE
    assert got.bound is not None
    assert 0.0 < got.bound < got.energy


def test_a_target_is_enough() -> None:
    problem = dense_pruning_problem(64, 7)
    got = solvers.get("exact").solve(
        problem, stop=Target(problem.energy(np.r_[[1] * 32, [0] * 32]))
    )
    assert got.stats.stop_reason == "target"


def test_what_it_does_not_take() -> None:
    with pytest.raises(UnsupportedProblemError, match="does not take BudgetQP"):
        solvers.get("exact").solve(BudgetQP(np.eye(2), A=[[1, 1]], upper=[1]))


@pytest.mark.parametrize("options", [{"gap": -1.0}, {"gap": math.nan}, {"memory_mb": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(solvers.SolverOptionError, match=next(iter(options))):
        BranchAndBound(**options)


def test_ctrl_c_keeps_the_bound_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dense_pruning_problem(60, 0)
    whole = solvers.get("exact").solve(problem, stop=IterationLimit(200))
    original = _Tree.search

    def interrupted(self: _Tree, watch: Watch, incumbent: Incumbent, passes: float) -> str | None:
        original(self, watch, incumbent, 50)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Tree, "search", interrupted)
    found = solvers.get("exact").solve(problem)
    assert found.stats.stop_reason == "interrupted"
    assert found.bound is not None
    assert whole.bound is not None
    assert 0.5 * whole.bound < found.bound <= found.energy


def test_a_search_of_no_nodes_has_a_bound_all_the_same() -> None:
    found = solvers.get("exact").solve(dense_pruning_problem(60, 0), stop=IterationLimit(0))
    assert found.bound is not None
