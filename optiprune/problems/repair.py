"""Make an infeasible assignment feasible at little cost in energy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP
from .errors import InfeasibleProblemError, ProblemError
from .matrix import FactoredMatrix

__all__ = ["repair"]

_Bits = npt.NDArray[np.int8]
_TOLERANCE = 1e-9


def repair(problem: Problem, x: npt.ArrayLike) -> _Bits:
    """A feasible assignment near x, by greedy moves of least energy increase.

    Parameters
    ----------
    problem : QUBO (returned as is), CardinalityQP or BudgetQP
    x : (n,) 0/1 array-like

    Returns
    -------
    (n,) int8, with violation 0. A feasible x comes back unchanged.

    For a cardinality, flips in each group until the count is k. For budgets, flips that lower the
    total violation, the one with the least energy increase per unit of violation first; then
    exchanges; and where neither helps, the assignment that a small MILP (scipy `milp`) finds with
    the least first-order energy increase.

    Raises
    ------
    InfeasibleProblemError
        If the budgets exclude every assignment (proven by the MILP).
    ProblemError
        For another problem type, or if the MILP gave up.
    """
    xi = as_binary(x, problem.n)
    if isinstance(problem, QUBO):
        return xi
    if isinstance(problem, CardinalityQP):
        return _repair_cardinality(problem, xi)
    if isinstance(problem, BudgetQP):
        return _repair_budgets(problem, xi)
    raise ProblemError(
        f"repair takes QUBO, CardinalityQP and BudgetQP, got {type(problem).__name__}"
    )


def _column(problem: QuadraticProblem, i: int) -> npt.NDArray[np.float64]:
    if isinstance(problem.Q, FactoredMatrix):
        f = problem.Q.factor
        return np.asarray(f.T.astype(np.float64) @ f[:, i].astype(np.float64))
    return problem.Q[:, i].astype(np.float64)


def _flip(problem: QuadraticProblem, x: _Bits, h: npt.NDArray[np.float64], i: int) -> None:
    """Flip x_i in place and bring the local fields h up to date (h_i itself does not change)."""
    sign = 1.0 - 2.0 * x[i]
    own = h[i]
    h += 2.0 * sign * _column(problem, i)
    h[i] = own
    x[i] ^= 1


def _repair_cardinality(problem: CardinalityQP, x: _Bits) -> _Bits:
    excess = problem.counts(x) - problem.k
    h = problem.fields(x)
    while excess.any():
        # candidates: ones in groups with too many, zeros in groups with too few
        e = excess[problem.groups]
        able = ((e > 0) & (x == 1)) | ((e < 0) & (x == 0))
        cost = np.where(able, (1.0 - 2.0 * x) * h, np.inf)
        i = int(np.argmin(cost))
        excess[problem.groups[i]] += 1 - 2 * int(x[i])
        _flip(problem, x, h, i)
    return x


def _repair_budgets(problem: BudgetQP, x: _Bits) -> _Bits:
    # rows in any unit weigh the same, and the MILP's absolute tolerances fit them
    size = np.abs(problem.A).max(axis=1, initial=0.0)
    scale = 2.0 ** -np.round(np.log2(np.where(size > 0, size, 1.0)))
    problem = BudgetQP(
        problem.Q,
        problem.linear,
        problem.offset,
        A=problem.A * scale[:, None],
        upper=problem.upper * scale,
        lower=problem.lower * scale,
    )
    h = problem.fields(x)
    while problem.violation(x) > 0:
        move = _best_flip(problem, x, h)
        if move is None:
            move = _best_exchange(problem, x, h)
        if move is None:
            return _by_milp(problem, x)
        for i in move:
            _flip(problem, x, h, i)
    return x


def _overuse(
    problem: BudgetQP, use: npt.NDArray[np.float64], change: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Total violation for each column of ``use[:, None] + change``; change has shape (m, c)."""
    after = use[:, None] + change
    over = np.maximum(after - problem.upper[:, None], problem.lower[:, None] - after)
    return np.asarray(np.maximum(over, 0.0).sum(axis=0))


def _best_flip(problem: BudgetQP, x: _Bits, h: npt.NDArray[np.float64]) -> tuple[int, ...] | None:
    sign = 1.0 - 2.0 * x
    use = (problem.A @ x).astype(np.float64)
    now = float(_overuse(problem, use, np.zeros((problem.n_rows, 1)))[0])
    gain = now - _overuse(problem, use, problem.A * sign)
    able = gain > _TOLERANCE * now
    if not able.any():
        return None
    cost = sign * h
    # a rise is judged per unit of violation removed; among moves that lower the energy, the lowest
    rate = np.where(cost > 0, cost / np.where(able, gain, 1.0), cost)
    return (int(np.argmin(np.where(able, rate, np.inf))),)


def _best_exchange(
    problem: BudgetQP, x: _Bits, h: npt.NDArray[np.float64]
) -> tuple[int, ...] | None:
    ones, zeros = np.flatnonzero(x == 1), np.flatnonzero(x == 0)
    if not ones.size or not zeros.size:
        return None
    use = (problem.A @ x).astype(np.float64)
    now = float(_overuse(problem, use, np.zeros((problem.n_rows, 1)))[0])
    best, move = np.inf, None
    for i in ones:
        change = problem.A[:, zeros] - problem.A[:, i : i + 1]
        gain = now - _overuse(problem, use, change)
        able = gain > _TOLERANCE * now
        if not able.any():
            continue
        cost = h[zeros] - h[i] - 2.0 * _column(problem, int(i))[zeros]
        rate = np.where(cost > 0, cost / np.where(able, gain, 1.0), cost)
        rate = np.where(able, rate, np.inf)
        j = int(np.argmin(rate))
        if rate[j] < best:
            best, move = float(rate[j]), (int(i), int(zeros[j]))
    return move


def _by_milp(problem: BudgetQP, x: _Bits) -> _Bits:
    """The feasible assignment with the least first-order energy increase over x."""
    delta = problem.flip_deltas(x)
    # every flip costs something, so that variables which need not move stay
    floor = 1e-3 * max(float(np.abs(delta).max(initial=0.0)), 1.0)
    cost = np.maximum(delta, floor) * (1.0 - 2.0 * x)
    result = milp(
        cost,
        constraints=LinearConstraint(problem.A, problem.lower, problem.upper),
        bounds=Bounds(0, 1),
        integrality=np.ones(problem.n),
    )
    if result.status == 2:
        raise InfeasibleProblemError("no assignment meets all budgets; relax one of them")
    if result.x is None:
        raise ProblemError(f"repair found no feasible assignment: {result.message}")
    y: _Bits = np.rint(result.x).astype(np.int8)
    if problem.violation(y) > 0:
        raise ProblemError("repair's MILP answer violates a budget after rounding; scale the rows")
    return y
