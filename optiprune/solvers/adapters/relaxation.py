"""A proven lower bound from the convex relaxation of a binary quadratic problem."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from optiprune.problems import (
    QUBO,
    BudgetQP,
    CardinalityQP,
    InfeasibleProblemError,
    Problem,
    QuadraticProblem,
)
from optiprune.problems.linearise import constraint_rows
from optiprune.solvers.errors import UnsupportedProblemError

from .highs_run import highspy_module, new_highs, require_ok, run_highs, set_option
from .scaling import coefficient_scale, scaled, with_scaled_rows

__all__ = ["relaxation_bound"]

_Vector = npt.NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)


def relaxation_bound(problem: Problem, *, time_limit_s: float = math.inf) -> float:
    """A lower bound on the energy of every feasible assignment.

    On binaries x_i**2 = x_i, so ``x'Qx = x'(Q - s I)x + s sum x`` for any s; with s the least
    eigenvalue of Q the quadratic part is convex (Hammer & Rubin, 1970). HiGHS minimises the convex
    form over 0 <= x <= 1 and the problem's rows, at y say. Its answer is not taken at its word:
    convexity gives ``f(x) >= f(y) + f'(y)(x - y)``, whose least value over the relaxed feasible set
    is a valid bound for *any* y, and equal to the optimum of the relaxation at the best y.

    Parameters
    ----------
    problem : QUBO, CardinalityQP or BudgetQP
        O(n**3) time, O(n**2) memory.
    time_limit_s : seconds for HiGHS; a run cut short gives a weaker bound, still valid

    Returns
    -------
    The bound, offset included, less a slack for float64 rounding.

    Raises
    ------
    UnsupportedProblemError
        For another problem type.
    InfeasibleProblemError
        If the relaxation has no feasible point, which proves that the problem has none.
    BackendMissingError
        Without highspy.
    """
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise UnsupportedProblemError(
            f"relaxation_bound takes QUBO, CardinalityQP and BudgetQP, not "
            f"{type(problem).__name__}; fix the weights and bound the choice of the support"
        )
    highspy_module()
    n = problem.n
    if n == 0:
        return problem.offset
    scale = coefficient_scale(problem)
    unit = with_scaled_rows(scaled(problem, scale))
    assert isinstance(unit, QuadraticProblem)
    q = unit.dense(np.float64)
    shift = float(np.linalg.eigvalsh(q)[0])
    shift -= 16 * n * _EPS * max(1.0, float(np.linalg.norm(q)))  # eigvalsh is exact up to this
    hessian: _Vector = q.astype(np.float64)
    hessian[np.diag_indices(n)] -= shift
    cost: _Vector = np.asarray(unit.linear + shift, dtype=np.float64)
    rows, lower, upper = constraint_rows(unit)
    y = _minimise_qp(hessian, cost, rows, lower, upper, time_limit_s)
    if y is None:
        y = np.full(n, 0.5)
    gradient = 2.0 * (hessian @ y) + cost
    tangent_offset = -float(y @ hessian @ y)  # f(y) - gradient @ y
    if isinstance(unit, CardinalityQP):
        least = _least_by_counting(gradient, unit)
    elif isinstance(unit, BudgetQP):
        least = _least_over_rows(gradient, rows, lower, upper)
    else:
        least = float(np.minimum(gradient, 0.0).sum())
    size = float(np.abs(hessian).sum() + np.abs(cost).sum() + np.abs(gradient).sum())
    bound = least + tangent_offset - 16 * _EPS * size
    return scale * bound + problem.offset - 4 * _EPS * abs(problem.offset)


def _minimise_qp(
    hessian: _Vector,
    cost: _Vector,
    rows: sp.csr_matrix,
    lower: _Vector,
    upper: _Vector,
    time_limit_s: float,
) -> _Vector | None:
    """argmin x'hessian x + cost'x over the box and the rows, or None if HiGHS has no point."""
    highspy = highspy_module()
    n = len(cost)
    h = _relaxed(cost, rows, lower, upper)
    if math.isfinite(time_limit_s):
        set_option(h, "time_limit", max(time_limit_s, 0.0))
    # HiGHS minimises 1/2 x'Hx: the lower triangle, column by column (row by row of the upper one)
    i, j = np.triu_indices(n)
    start = np.concatenate([[0], np.cumsum(np.arange(n, 0, -1))]).astype(np.int32)
    h.passHessian(
        n,
        len(i),
        highspy.HessianFormat.kTriangular,
        start,
        j.astype(np.int32),
        2.0 * hessian[i, j],
    )
    if run_highs(h, h.cancelSolve):
        raise KeyboardInterrupt
    if h.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        # the QP solver says so; the LP solver, which is the sturdier one, has the last word
        _run_lp(_relaxed(np.zeros(n), rows, lower, upper))
    y = np.asarray(h.getSolution().col_value, dtype=np.float64)
    return np.clip(y, 0.0, 1.0) if y.shape == (n,) and np.isfinite(y).all() else None


def _least_by_counting(gradient: _Vector, problem: CardinalityQP) -> float:
    """min gradient'x over the cardinalities: the k least entries of each group."""
    total = 0.0
    for g, k in enumerate(problem.k.tolist()):
        total += float(np.sort(gradient[problem.groups == g])[:k].sum())
    return total


def _least_over_rows(
    gradient: _Vector, rows: sp.csr_matrix, lower: _Vector, upper: _Vector
) -> float:
    """A lower bound on min gradient'x over the box and the rows, by weak duality.

    The multipliers come from HiGHS, but the bound holds for whatever they are:
    ``g'x = (g - A'l)'x + l'(Ax) >= sum min(g - A'l, 0) + sum (l_r lower_r or l_r upper_r)``.
    """
    multipliers = _lp_multipliers(gradient, rows, lower, upper)
    multipliers = np.where((multipliers > 0) & ~np.isfinite(lower), 0.0, multipliers)
    multipliers = np.where((multipliers < 0) & ~np.isfinite(upper), 0.0, multipliers)
    rest = gradient - rows.T @ multipliers
    active = np.flatnonzero(multipliers)
    side = np.where(multipliers[active] > 0, lower[active], upper[active])
    return float(np.minimum(rest, 0.0).sum() + multipliers[active] @ side)


def _lp_multipliers(
    gradient: _Vector, rows: sp.csr_matrix, lower: _Vector, upper: _Vector
) -> _Vector:
    h = _relaxed(gradient, rows, lower, upper)
    _run_lp(h)
    dual = np.asarray(h.getSolution().row_dual, dtype=np.float64)
    usable = dual.shape == (rows.shape[0],) and np.isfinite(dual).all()
    return dual if usable else np.zeros(rows.shape[0])


def _run_lp(h: Any) -> None:
    """Solve; raise `InfeasibleProblemError` if no point meets the rows."""
    if run_highs(h, h.cancelSolve):
        raise KeyboardInterrupt
    if h.getModelStatus() == highspy_module().HighsModelStatus.kInfeasible:
        raise InfeasibleProblemError("no point, not even a fractional one, meets all budgets")


def _relaxed(cost: _Vector, rows: sp.csr_matrix, lower: _Vector, upper: _Vector) -> Any:
    """HiGHS holding min cost'x over the box and the rows."""
    n = len(cost)
    h = new_highs()
    set_option(h, "threads", 1)
    h.addVars(n, np.zeros(n), np.ones(n))
    h.changeColsCost(n, np.arange(n, dtype=np.int32), cost)
    if rows.shape[0]:
        status = h.addRows(
            rows.shape[0],
            lower,
            upper,
            rows.nnz,
            rows.indptr[:-1].astype(np.int32),
            rows.indices.astype(np.int32),
            rows.data,
        )
        require_ok(status, "the budgets")
    return h
