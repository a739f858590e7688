"""Bring the coefficients near 1 before a back end with absolute tolerances sees them."""

from __future__ import annotations

import math

import numpy as np

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem, ProblemError

__all__ = ["coefficient_scale", "scaled"]


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
