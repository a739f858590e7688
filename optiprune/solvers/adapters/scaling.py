"""Bring the coefficients near 1 before a back end with absolute tolerances sees them."""

from __future__ import annotations

import math

import numpy as np

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem, ProblemError
from optiprune.problems.binary import forgiven

__all__ = ["TINY", "coefficient_scale", "scaled", "with_scaled_rows"]

# beside entries near 1, one that no back end can tell from rounding; HiGHS drops them
TINY = 1e-12


def coefficient_scale(problem: Problem) -> float:
    """The power of two just below the largest |coefficient| of the objective; 1 if all are zero.

    A power of two, so that dividing by it is exact.
    """
    if isinstance(problem, MIQP):
        parts = [problem.dense(), problem.b]
    elif isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        parts = [problem.dense(), problem.linear]
    else:
        raise ProblemError(f"the coefficients of a {type(problem).__name__} are not known")
    largest = max(float(np.abs(p).max(initial=0.0)) for p in parts)
    if largest == 0.0:
        return 1.0
    # kept where both the scale and its inverse are ordinary float64 numbers
    return float(2.0 ** min(max(math.floor(math.log2(largest)), -1000), 1000))


def scaled(problem: Problem, scale: float) -> Problem:
    """The problem with its objective divided by ``scale`` and its offset dropped.

    ``energy = scale * (energy of the scaled problem) + problem.offset``; the feasible set is the
    same. Back ends judge gaps and feasibility by absolute tolerances of 1e-6 or so; a pruning
    problem whose energies are of that size would be "optimal" at once.
    """
    if isinstance(problem, MIQP):
        return MIQP(problem.dense() / scale, problem.b / scale, k=problem.k, M=problem.M)
    if isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        q, linear = problem.dense(np.float64) / scale, problem.linear / scale
        if isinstance(problem, CardinalityQP):
            return CardinalityQP(q, linear, k=problem.k, groups=problem.groups)
        if isinstance(problem, BudgetQP):
            return BudgetQP(q, linear, A=problem.A, upper=problem.upper, lower=problem.lower)
        return QUBO(q, linear)
    raise ProblemError(f"the coefficients of a {type(problem).__name__} are not known")


def with_scaled_rows(problem: Problem) -> Problem:
    """A `BudgetQP` with each row divided by the power of two below its largest entry.

    Back ends compare a row with its limits by absolute tolerances, and drop entries below a fixed
    threshold; `BudgetQP.violation` forgives rounding relative to the row. So the limits are
    widened, by half of what it forgives: an equation between large numbers would have no solution
    in exact arithmetic. Entries below `TINY` are left out and the limits widened by their sum.
    Every assignment that met the rows still does. Other problems are returned as they are.
    """
    if not isinstance(problem, BudgetQP):
        return problem
    largest = np.abs(problem.A).max(axis=1, initial=0.0)
    exponent = np.frexp(largest)[1] - 1
    exponent = np.where(largest > 0, np.clip(exponent, -1000, 1000), 0)
    with np.errstate(over="ignore", under="ignore"):  # a limit far beyond its row is none
        A = np.ldexp(problem.A, -exponent[:, None])
        lower, upper = (np.ldexp(v, -exponent) for v in (problem.lower, problem.upper))
    small = np.abs(A) <= TINY
    left_out = np.where(small, np.abs(A), 0.0).sum(axis=1)
    return BudgetQP(
        problem.Q,
        problem.linear,
        problem.offset,
        A=np.where(small, 0.0, A),
        upper=upper + 0.5 * forgiven(upper, 0.0) + left_out,
        lower=lower - 0.5 * forgiven(lower, 0.0) - left_out,
    )
