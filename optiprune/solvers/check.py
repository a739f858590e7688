"""Recompute what a solver claims: nothing that a solver says is believed."""

from __future__ import annotations

import numpy as np

from optiprune.problems import MIQP, Problem, ProblemError, as_binary

from .errors import InvalidSolutionError
from .result import Solution

__all__ = ["check_solution"]


def check_solution(problem: Problem, solution: Solution, *, tolerance: float = 1e-6) -> float:
    """Recompute energy and violation in float64 and return the energy.

    Parameters
    ----------
    tolerance : allowed mismatch of the energy, relative to ``1 + |energy|``

    Raises
    ------
    InvalidSolutionError
        If x is missing, has a wrong shape or entries, violates a constraint, or if the energy
        claimed is not the energy of x, or lies below the bound claimed.
    """
    if not isinstance(solution, Solution):
        raise InvalidSolutionError(f"expected a Solution, got {type(solution).__name__}")
    who = f"solver '{solution.stats.solver}'"
    if not solution.status.has_solution or solution.x is None:
        raise InvalidSolutionError(
            f"{who} returned no solution ({solution.status.value}): {solution.stats.message}"
        )
    try:
        x = as_binary(solution.x, problem.n)
    except ProblemError as e:
        raise InvalidSolutionError(f"{who} returned a bad assignment: {e}") from None
    violation = problem.violation(x)
    if violation > 1e-9:
        raise InvalidSolutionError(f"{who} returned an infeasible x (violation {violation:g})")
    energy = problem.energy(x)
    if isinstance(problem, MIQP) and solution.weights is not None:
        w = np.asarray(solution.weights, dtype=np.float64)
        if w.shape != (problem.n,) or (np.abs(w) > problem.M * x + 1e-9 * (1 + np.abs(w))).any():
            raise InvalidSolutionError(f"{who} returned weights outside -M x <= w <= M x")
    if not abs(energy - solution.energy) <= tolerance * (1.0 + abs(energy)):
        raise InvalidSolutionError(
            f"{who} claims energy {solution.energy!r}, but x has energy {energy!r}"
        )
    if solution.bound is not None and solution.bound > energy + tolerance * (1.0 + abs(energy)):
        raise InvalidSolutionError(
            f"{who} claims the bound {solution.bound!r}, above the energy {energy!r}"
        )
    return energy
