"""scipy.optimize: linear constraints, and the arguments of `milp`."""

from __future__ import annotations

from typing import Any, Literal

from scipy.optimize import Bounds, LinearConstraint

from optiprune.problems.base import Problem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.linearise import LinearModel, constraint_rows, linearise

__all__ = ["to_linear_constraints", "to_milp"]


def to_milp(
    problem: Problem, *, method: Literal["fortet", "glover"] = "fortet"
) -> tuple[LinearModel, dict[str, Any]]:
    """``(model, arguments)`` with ``scipy.optimize.milp(**arguments)`` solving the problem.

    ``model.extract(result.x)`` is the binary x, ``result.fun + model.offset`` its energy. Takes
    what `linearise` takes and raises what it raises.
    """
    model = linearise(problem, method=method)
    return model, model.to_scipy()


def to_linear_constraints(problem: Problem) -> tuple[list[LinearConstraint], Bounds]:
    """The problem's own constraints over x (no products), and the bounds 0 <= x <= 1.

    For `scipy.optimize.milp` on another objective, or `minimize` on the relaxation. The list is
    empty for a QUBO. Raises `ProblemError` for an MIQP.
    """
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise ProblemError(
            f"to_linear_constraints takes QUBO, CardinalityQP and BudgetQP, not "
            f"{type(problem).__name__}"
        )
    rows, lower, upper = constraint_rows(problem)
    constraints = [LinearConstraint(rows, lower, upper)] if rows.shape[0] else []
    return constraints, Bounds(0.0, 1.0)
