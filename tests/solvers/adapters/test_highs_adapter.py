"""The HiGHS adapter: proofs, stop criteria, options, the convex relaxation's bound."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune import solvers
from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    InfeasibleProblemError,
)
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    BackendMissingError,
    IterationLimit,
    NoImprovement,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
)
from optiprune.solvers.adapters import highs as highs_module
from optiprune.solvers.adapters.highs import relaxation_bound


def assignments(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)


def optimum(problem) -> float:
    X = assignments(problem.n)
    energies = problem.energies(X)
    feasible = [problem.is_feasible(x) for x in X]
    return float(np.min(energies, where=feasible, initial=np.inf))


def random_problem(kind: str, seed: int, n: int, scale: float):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(n, n)) * scale
    if seed % 3 == 0:
        q = q @ q.T / scale
    linear, offset = rng.normal(size=n) * scale, float(rng.normal() * scale)
    if kind == "qubo":
        return QUBO(q, linear, offset)
    if kind == "cardinality":
        return CardinalityQP(q, linear, offset, k=int(rng.integers(0, n + 1)))
    if kind == "groups":
        groups = rng.permutation(np.arange(n) % 2) if n > 1 else np.zeros(1, dtype=int)
        sizes = np.bincount(groups, minlength=2)
        return CardinalityQP(q, linear, offset, k=rng.integers(0, sizes + 1), groups=groups)
    A = rng.integers(0, 5, size=(2, n))
    most = A.sum(axis=1)
    return BudgetQP(q, linear, offset, A=A, upper=np.ceil(0.7 * most), lower=np.floor(0.2 * most))


KINDS = ["qubo", "cardinality", "groups", "budget"]
cases = given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    n=st.integers(1, 8),
    exponent=st.integers(-12, 12),
)


@settings(max_examples=40, deadline=None)
@cases
def test_optima_are_the_enumerated_ones_whatever_the_scale(kind, seed, n, exponent) -> None:
    scale = 10.0**exponent
    problem = random_problem(kind, seed, n, scale)
    best = optimum(problem)
    for linearisation in ("fortet", "glover"):
        s = solvers.get("highs", linearisation=linearisation).solve(problem, seed=seed)
        if best == np.inf:
            assert s.status is Status.INFEASIBLE
            continue
        assert s.status is Status.OPTIMAL
        assert s.energy == pytest.approx(best, abs=1e-5 * scale * n)
        assert s.bound <= best + 1e-9 * scale


@settings(max_examples=80, deadline=None)
@cases
def test_the_relaxation_bound_is_a_bound(kind, seed, n, exponent) -> None:
    scale = 10.0**exponent
    problem = random_problem(kind, seed, n, scale)
    best = optimum(problem)
    try:
        bound = relaxation_bound(problem)
    except InfeasibleProblemError:
        assert best == np.inf
    else:
        assert np.isfinite(bound)
        assert bound <= best


def test_the_relaxation_by_hand() -> None:
    # x'Qx = (x1 - x2)^2 has eigenvalues 0 and 2; with x1 + x2 = 1 the relaxation meets at 1/2, 1/2
    q = [[1.0, -1.0], [-1.0, 1.0]]
    assert relaxation_bound(CardinalityQP(q, offset=3.0, k=1)) == pytest.approx(3.0, abs=1e-6)
    # least eigenvalue 2: all of x'(2I)x moves into the linear term, where it is exact
    assert relaxation_bound(CardinalityQP(2 * np.eye(3), k=2)) == pytest.approx(4.0, abs=1e-6)
    # x >= 0 with a negative definite form: -x1^2 - x2^2 becomes -x1 - x2, least at (1, 1)
    assert relaxation_bound(QUBO(-np.eye(2))) == pytest.approx(-2.0, abs=1e-6)
    # budgets: min -x1 - x2 under 2 x1 + x2 <= 2 is at (1/2, 1)
    budget = BudgetQP(np.zeros((2, 2)), [-1.0, -1.0], A=[[2, 1]], upper=[2])
    assert relaxation_bound(budget) == pytest.approx(-1.5, abs=1e-6)
    assert relaxation_bound(QUBO(np.zeros((0, 0)), offset=2.0)) == 2.0


def test_the_relaxation_is_far_tighter_than_nothing() -> None:
    problem = layer_problem(40, 20, correlation=0.5, seed=1)
    s = solvers.get("tabu").solve(problem, seed=0)
    bound = relaxation_bound(problem)
    assert 0 < bound <= s.energy


def test_the_relaxation_takes_a_factored_matrix_and_a_time_limit() -> None:
    f = np.random.default_rng(0).normal(size=(5, 9))
    dense, factored = (CardinalityQP(q, k=4) for q in (f.T @ f, FactoredMatrix(f)))
    assert relaxation_bound(dense) == pytest.approx(relaxation_bound(factored), abs=1e-6)
    assert relaxation_bound(dense, time_limit_s=0.0) <= optimum(dense)


def test_infeasible_budgets_in_the_relaxation() -> None:
    # each row alone can be met
    problem = BudgetQP(np.eye(3), A=[[1, 1, 1], [1, 1, 1]], upper=[1, 3], lower=[0, 2])
    with pytest.raises(InfeasibleProblemError, match="budgets"):
        relaxation_bound(problem)
    for relaxation in (True, False):
        s = solvers.get("highs", relaxation=relaxation).solve(problem)
        assert s.status is Status.INFEASIBLE
        assert s.x is None


def test_the_relaxation_refuses_an_miqp() -> None:
    with pytest.raises(UnsupportedProblemError, match="not MIQP"):
        relaxation_bound(MIQP(np.eye(2), [1, 1], k=1))


def test_a_gap_is_not_called_optimal() -> None:
    problem = layer_problem(24, 12, seed=2)
    s = solvers.get("highs", mip_gap=0.9, relaxation=False).solve(problem)
    assert s.status is Status.FEASIBLE
    assert s.stats.stop_reason == "completed"
    assert 1e-4 < (s.energy - s.bound) / abs(s.energy - problem.offset) <= 0.9 + 1e-3


@pytest.fixture(scope="module")
def hard() -> CardinalityQP:
    """Far from provable within the limits used below."""
    return layer_problem(60, 30, seed=3)


def test_stops_by_time_nodes_target_and_no_improvement(hard) -> None:
    solver = solvers.get("highs")
    s = solver.solve(hard, stop=TimeLimit(0.5))
    assert (s.stats.stop_reason, s.status) == ("time", Status.FEASIBLE)
    assert s.bound is not None
    assert s.bound <= s.energy
    energies = [e for _, e in s.stats.trajectory]
    assert energies == sorted(energies, reverse=True)
    assert energies[-1] == s.energy
    first = energies[0]
    s = solver.solve(hard, stop=Target(first) | TimeLimit(20))
    assert (s.stats.stop_reason, s.energy <= first) == ("target", True)
    assert s.stats.wall_s < 10
    s = solver.solve(hard, stop=IterationLimit(3) | TimeLimit(20))
    assert s.stats.stop_reason == "iterations"
    assert s.stats.moves <= 3
    s = solver.solve(hard, stop=NoImprovement(5) | TimeLimit(20))
    assert s.stats.stop_reason == "no improvement"
    s = solver.solve(hard, stop=TimeLimit(0))
    assert (s.status, s.stats.stop_reason) == (Status.NO_INCUMBENT, "time")


def test_a_warm_start_reaches_highs(hard) -> None:
    good = solvers.get("tabu").solve(hard, seed=0)
    s = solvers.get("highs", relaxation=False).solve(hard, x0=good.x, stop=TimeLimit(1))
    # HiGHS itself reports the start as its first incumbent
    assert s.stats.trajectory[0][1] == pytest.approx(good.energy)


def test_threads_may_differ_between_solves_in_one_thread() -> None:
    problem = layer_problem(12, 6, seed=0)
    energies = [solvers.get("highs", threads=t).solve(problem).energy for t in (1, 2, 1)]
    assert energies[0] == energies[1] == energies[2]


def test_auto_takes_fortet_for_sparse_problems() -> None:
    chain = np.diag(np.ones(9), 1) * -1.0
    sparse = solvers.get("highs").solve(QUBO(chain, np.full(10, 0.5)))
    dense = solvers.get("highs").solve(layer_problem(10, 5, seed=0))
    assert sparse.stats.extra["columns"] == 10 + 9
    assert dense.stats.extra["columns"] == 10 + 9  # a helper a variable that has partners after it
    fortet = solvers.get("highs", linearisation="fortet").solve(layer_problem(10, 5, seed=0))
    assert fortet.stats.extra["columns"] == 10 + 45


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"linearisation": "mccormick"}, "'auto', 'fortet' or 'glover', got 'mccormick'"),
        ({"mip_gap": -1.0}, "mip_gap must be >= 0, got -1.0"),
        ({"mip_gap": float("nan")}, "mip_gap"),
        ({"threads": 0}, "threads must be >= 1, got 0"),
        ({"options": {"mip_rel_gapp": 1}}, "did you mean 'mip_rel_gap'"),
        ({"options": {"time_limit": 1.0}}, r"use stop=TimeLimit"),
        ({"options": {"mip_heuristic_effort": "much"}}, "refuses the option"),
    ],
)
def test_bad_options(options, words) -> None:
    with pytest.raises(SolverOptionError, match=words):
        solvers.get("highs", **options)


def test_options_reach_highs() -> None:
    s = solvers.get("highs", options={"mip_max_leaves": 1, "presolve": "off"})
    assert s.solve(layer_problem(30, 15, seed=0)).status is Status.FEASIBLE


def test_miqp_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnsupportedProblemError, match="scip"):
        solvers.get("highs").solve(MIQP(np.eye(2), [1, 1], k=1, M=3))


def test_failure_carries_highs_own_words(monkeypatch) -> None:
    # an ending that is not in the table is a failure, not a success
    monkeypatch.setattr(highs_module, "_ENDINGS", {})
    problem = BudgetQP(np.eye(3), A=[[2, 2, 2]], upper=[3], lower=[3])
    s = solvers.get("highs", relaxation=False).solve(problem)
    assert s.status is Status.FAILED
    assert "Infeasible" in s.stats.message


def test_missing_highspy_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(BackendMissingError, match="pip install highspy"):
        solvers.get("highs").solve(QUBO(np.eye(2)))


def test_silence(capfd) -> None:
    solvers.get("highs").solve(layer_problem(12, 6, seed=0))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
