"""Recompute what a solver claims: nothing that a solver says is believed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
        claimed is not the energy of x (of an MIQP: and of the weights, if there are any), or lies
        below the bound claimed.
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
    if violation > 0:
        raise InvalidSolutionError(f"{who} returned an infeasible x (violation {violation:g})")
    energy = problem.energy(x)
    if isinstance(problem, MIQP) and solution.weights is not None:
        _check_weights(problem, x, solution, tolerance, who)
    slack = tolerance * (1.0 + abs(energy))
    if not abs(energy - solution.energy) <= slack:
        raise InvalidSolutionError(
            f"{who} claims energy {solution.energy!r}, but x has energy {energy!r}"
        )
    if solution.bound is not None and not solution.bound <= energy + slack:
        raise InvalidSolutionError(
            f"{who} claims the bound {solution.bound!r}, above the energy {energy!r}"
        )
    return energy


def _check_weights(
    problem: MIQP, x: npt.NDArray[np.int8], solution: Solution, tolerance: float, who: str
) -> None:
    """The weights are gated by x and have the energy that the solution claims."""
    w = np.asarray(solution.weights, dtype=np.float64)
    if not np.isfinite(w).all():
        raise InvalidSolutionError(
            f"{who} returned weights that are not finite: {w[~np.isfinite(w)]}"
        )
    # 0 * inf where M is infinite
    room = np.where(x == 1, problem.M, 0.0)
    if w.shape != (problem.n,) or (np.abs(w) > room + 1e-9 * (1 + np.abs(w))).any():
        raise InvalidSolutionError(f"{who} returned weights outside -M x <= w <= M x")
    energy = problem.energy_of(w)
    if not abs(energy - solution.energy) <= tolerance * (1.0 + abs(energy)):
        raise InvalidSolutionError(
            f"{who} claims energy {solution.energy!r}, but its weights have energy {energy!r}"
        )
