"""The solve before the first measured one: what is compiled or loaded then is no solver's time."""

from __future__ import annotations

import time

import numpy as np

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.solvers import Solver, TimeLimit

from .spec import SolverSpec

__all__ = ["warm_up"]

# kernels of a solver that may have to be compiled, at most
_MOST_KERNELS = 30


def warm_up(problem: Problem, spec: SolverSpec) -> None:
    """Solve a small part of a problem, unmeasured: compiled kernels and back ends load once.

    Errors are left to the solve that is measured.
    """
    small = _corner(problem, 24)
    try:
        solver = spec.make(small)
        if not solver.capabilities.keeps_time_limit:
            solver.solve(small, seed=0, stop=TimeLimit(0.2))
            return
        # other sizes and storage may take other kernels
        for part, seconds in ((small, 0.2), (problem, 0.05)):
            _solve_until_compiled(solver, part, seconds)
    except Exception:
        return


def _solve_until_compiled(solver: Solver, problem: Problem, seconds: float) -> None:
    """A kernel that compiles uses up the limit, and those behind it wait for the next solve."""
    for _ in range(_MOST_KERNELS):
        began = time.perf_counter()
        solver.solve(problem, seed=0, stop=TimeLimit(seconds))
        if time.perf_counter() - began < 1.1 * seconds + 0.05:
            return


def _corner(problem: Problem, size: int) -> Problem:
    """The first variables of a problem, with constraints that can be met."""
    n = min(size, problem.n)
    if isinstance(problem, MIQP):
        H = problem.H if isinstance(problem.H, np.ndarray) else problem.H.toarray(np.float64)
        return MIQP(H[:n, :n], problem.b[:n], k=min(problem.k, n), M=problem.M[:n])
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        return problem
    dtype = problem.Q.dtype if isinstance(problem.Q, np.ndarray) else np.float64
    Q = problem.dense()[:n, :n].astype(dtype)
    linear = problem.linear[:n]
    if isinstance(problem, CardinalityQP):
        ids, groups = np.unique(problem.groups[:n], return_inverse=True)
        k = np.minimum(problem.k[ids], (np.bincount(groups) + 1) // 2)
        return CardinalityQP(Q, linear, k=k, groups=groups)
    if isinstance(problem, BudgetQP):
        return problem
    return QUBO(Q, linear)
