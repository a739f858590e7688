"""What the conformance suite is run over: solvers, problems with known optima, honesty.

The cross product of solvers (each back end of `pyomo` and `dimod` counts as one) and problems. A
solver that is registered without being named in `benchmarks.solver_agreement.VARIANTS` is tried
with its defaults, so that nobody can add one that is not held to this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.solver_agreement import variants
from optiprune import solvers
from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, FactoredMatrix, Problem
from optiprune.problems.generators import layer_miqp, layer_nm_problem, layer_problem
from optiprune.solvers import Solution, Status, UnsupportedProblemError, check_solution

VARIANTS = variants()
# dwave's tabu search fills its time in every read, whatever the problem
VARIANTS["dimod + tabu"][1]["reads"] = 5

every_solver = pytest.mark.parametrize("label", sorted(VARIANTS))
# solvers that look for better assignments until something stops them
SEARCHING = [
    label for label, (name, _) in sorted(VARIANTS.items()) if name not in ("dimod", "greedy")
]
KEEPS_TIME = [
    label
    for label, (name, _) in sorted(VARIANTS.items())
    if solvers.solver_class(name).capabilities.keeps_time_limit
]


@cache
def make(label: str) -> solvers.Solver:
    name, options = VARIANTS[label]
    return solvers.get(name, **options)


@dataclass(frozen=True)
class Case:
    """A problem with its optimum by enumeration and the tolerance that goes with its scale."""

    problem: Any
    optimum: float
    tolerance: float
    feasible: tuple[np.ndarray, ...]  # some feasible assignments, the worst one first


def all_assignments(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)


def case(problem: Any) -> Case:
    X = [x for x in all_assignments(problem.n) if problem.is_feasible(x)]
    energies = np.array([problem.energy(x) for x in X])
    order = np.argsort(-energies)
    some = order[[0, len(order) // 2, -1]]
    matrix = problem.H if isinstance(problem, MIQP) else problem.Q
    dense = problem.dense() if isinstance(matrix, FactoredMatrix) else matrix
    scale = max(float(np.abs(dense).max(initial=0.0)), float(np.abs(energies).max()), 1e-300)
    # back ends judge by 1e-6 of the coefficients; those of an MIQP also round the weights
    relative = 1e-4 if isinstance(problem, MIQP) else 2e-6
    return Case(problem, float(energies.min()), relative * scale, tuple(X[i] for i in some))


def _random(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n)), rng.normal(size=n), rng


def _budget() -> BudgetQP:
    q, linear, rng = _random(8, 11)
    A = rng.integers(1, 9, size=(2, 8))
    return BudgetQP(q, linear, A=A, upper=A.sum(axis=1) // 2, lower=[8, -np.inf])


def _real_costs() -> BudgetQP:
    """Operations of a layer: no common unit, large numbers."""
    q, linear, rng = _random(8, 12)
    A = rng.uniform(1e8, 1e9, size=(2, 8))
    return BudgetQP(q, linear, A=A, upper=A.sum(axis=1) / 2, lower=[1e9, -np.inf])


def _real_equation() -> BudgetQP:
    """Costs that must add up to those of four variables, summed in another order than A x is."""
    q, linear, rng = _random(8, 13)
    A = rng.uniform(1e8, 1e9, size=(1, 8))
    total = float(sum(A[0, [7, 6, 3, 1]]))
    return BudgetQP(q, linear, A=A, upper=total, lower=total)


MAKERS: dict[str, Callable[[], Problem]] = {
    "qubo": lambda: QUBO(*_random(10, 1)[:2], offset=3.0),
    "cardinality": lambda: layer_problem(10, 5, seed=1),
    "factored": lambda: layer_problem(10, 4, factored=True, seed=2),
    "grouped": lambda: CardinalityQP(
        *_random(9, 3)[:2], k=[1, 0, 2], groups=[0, 1, 2, 2, 0, 1, 2, 0, 2]
    ),
    "2:4": lambda: layer_nm_problem(8, 2, 4, seed=4),
    "budget": _budget,
    "real costs": _real_costs,
    "real equation": _real_equation,
    "miqp": lambda: layer_miqp(7, 3, bound=3.0, seed=5),
    "keep none": lambda: CardinalityQP(*_random(6, 6)[:2], offset=-1.0, k=0),
    "keep all": lambda: CardinalityQP(*_random(6, 7)[:2], k=6),
    "one variable": lambda: QUBO([[-2.0]], [0.5]),
    "zero matrix": lambda: CardinalityQP(np.zeros((6, 6)), offset=0.25, k=2),
    "all equal": lambda: CardinalityQP(np.ones((7, 7)), np.full(7, -3.0), k=3),
    "huge": lambda: CardinalityQP(*(1e12 * a for a in _random(8, 8)[:2]), k=4),
    "tiny": lambda: CardinalityQP(*(1e-12 * a for a in _random(8, 9)[:2]), k=4),
    "float32": lambda: CardinalityQP(_random(8, 10)[0].astype(np.float32), k=3),
}


@cache
def known(name: str) -> Case:
    return case(MAKERS[name]())


def supported(label: str, problem: Any) -> bool:
    try:
        make(label).require_support(problem)
    except UnsupportedProblemError:
        return False
    return True


def is_honest(s: Solution, c: Case) -> None:
    """Everything that a solution says is true of the problem."""
    assert isinstance(s, Solution)
    assert s.stats.solver
    assert s.stats.wall_s >= 0
    if not s.status.has_solution:
        assert s.x is None
        assert s.energy == np.inf
        assert s.status is not Status.INFEASIBLE
        return
    assert s.x is not None
    assert s.x.dtype == np.int8
    assert s.x.shape == (c.problem.n,)
    assert check_solution(c.problem, s) == pytest.approx(s.energy)
    assert s.energy >= c.optimum - c.tolerance
    if s.bound is not None:
        assert s.bound <= s.energy
        assert s.bound <= c.optimum + c.tolerance
    if s.status is Status.OPTIMAL:
        assert s.energy <= c.optimum + c.tolerance
    times = [t for t, _ in s.stats.trajectory]
    energies = [e for _, e in s.stats.trajectory]
    assert times == sorted(times)
    assert energies == sorted(energies, reverse=True)


@cache
def large(n: int) -> CardinalityQP:
    return layer_problem(n, n // 2, samples=n, seed=0)


def size_for(label: str) -> int:
    """So large that a solver is busy for longer than the limits below, its model built quickly."""
    name, options = VARIANTS[label]
    if name in ("pyomo", "highs", "cp-sat"):
        return 50
    if name == "exhaustive":
        return 30
    if "Exact" in str(options.get("sampler")):
        return 14
    return 600
