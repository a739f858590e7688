"""Smaller problems from larger ones: some variables fixed, the rest still to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP, forgiven
from .errors import ProblemError
from .matrix import FactoredMatrix, IntArray, Matrix
from .miqp import MIQP

__all__ = ["Reduced", "fix_variables", "restrict"]


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A problem over the free variables of a larger one.

    Attributes
    ----------
    problem : of the same type as the original; its energies are those of the original at
        ``expand(x_small)``, offset included
    free : (n_small,) int64, original index of each variable of ``problem``
    base : (n,) int8, the fixed values (0 at free positions)
    """

    problem: Problem
    free: npt.NDArray[np.int64]
    base: npt.NDArray[np.int8]

    def expand(self, x_small: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """The full assignment, shape (n,), for one of the small problem."""
        x = self.base.copy()
        x[self.free] = as_binary(x_small, len(self.free))
        return x

    def shrink(self, x: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """The free part of a full assignment (a warm start for the small problem).

        Raises `ProblemError` if x differs from a fixed value.
        """
        full = as_binary(x, len(self.base))
        small = full[self.free]
        differs = np.flatnonzero(self.expand(small) != full)
        if differs.size:
            i = int(differs[0])
            raise ProblemError(f"x[{i}] = {full[i]}, but it is fixed to {self.base[i]}")
        return small


def fix_variables(problem: Problem, values: Mapping[int, int]) -> Reduced:
    """Fix ``x[i] = value`` for every item of ``values``; the others keep their order.

    QUBO, CardinalityQP (the group's k shrinks), BudgetQP (the limits shift) and MIQP (to 0 only:
    a weight in the support keeps its freedom, which a smaller MIQP cannot say).

    Raises
    ------
    ProblemError
        On an index out of range, a value other than 0 and 1, or an MIQP variable fixed to 1.
    InfeasibleProblemError
        If the fixed values leave a constraint that cannot be met.
    """
    n = problem.n
    base = np.zeros(n, dtype=np.int8)
    fixed = np.zeros(n, dtype=bool)
    for i, value in values.items():
        if isinstance(i, bool) or not isinstance(i, int | np.integer) or not 0 <= i < n:
            raise ProblemError(f"variable {i!r} does not exist; indices run from 0 to {n - 1}")
        if value not in (0, 1):
            raise ProblemError(f"variable {i} can be fixed to 0 or 1, not {value!r}")
        base[i] = value
        fixed[i] = True
    return _reduce(problem, np.flatnonzero(~fixed), base)


def restrict(problem: Problem, index: npt.ArrayLike, x: npt.ArrayLike) -> Reduced:
    """Only the batch ``index`` is free; every other variable stays as it is in x.

    Parameters
    ----------
    index : (b,) distinct integers, in the order that the small problem shall have
    x : (n,) 0/1 assignment

    Raises
    ------
    ProblemError
        On a bad index or x, or for an MIQP whose x is 1 outside the batch.
    InfeasibleProblemError
        If no choice within the batch can meet a constraint.
    """
    n = problem.n
    free = np.asarray(index)
    if free.ndim != 1 or (free.size and free.dtype.kind not in "iu"):
        raise ProblemError(f"index must be a vector of integers, got {free!r}")
    free = free.astype(np.int64)
    if free.size and (free.min() < 0 or free.max() >= n):
        raise ProblemError(f"index runs from {free.min()} to {free.max()}, but n = {n}")
    if np.bincount(free, minlength=1).max() > 1:
        raise ProblemError(f"index names variable {int(np.bincount(free).argmax())} more than once")
    base = as_binary(x, n)
    base[free] = 0
    return _reduce(problem, free, base)


def _reduce(problem: Problem, free: npt.NDArray[np.int64], base: npt.NDArray[np.int8]) -> Reduced:
    ones = np.flatnonzero(base)
    small: Problem
    if isinstance(problem, MIQP):
        if ones.size:
            raise ProblemError(
                f"MIQP variable {int(ones[0])} would be fixed to 1: its weight stays free, so the "
                "rest is no smaller MIQP. Keep it free, or fix to 0 only"
            )
        h = problem.H.restrict(free) if isinstance(problem.H, FactoredMatrix) else None
        small = MIQP(
            problem.H[np.ix_(free, free)] if h is None else h,  # type: ignore[index]
            problem.b[free],
            k=problem.k,
            M=problem.M[free],
            offset=problem.offset,
        )
    elif isinstance(problem, QuadraticProblem):
        q, linear, offset = _reduced_form(problem, free, ones, base)
        if isinstance(problem, QUBO):
            small = QUBO(q, linear, offset)
        elif isinstance(problem, CardinalityQP):
            taken = np.bincount(problem.groups[ones], minlength=problem.n_groups)
            small = CardinalityQP(
                q, linear, offset, k=problem.k - taken, groups=problem.groups[free]
            )
        elif isinstance(problem, BudgetQP):
            lower, upper = _reduced_limits(problem, ones)
            small = BudgetQP(q, linear, offset, A=problem.A[:, free], upper=upper, lower=lower)
        else:
            raise _unknown(problem)
    else:
        raise _unknown(problem)
    return Reduced(small, free, base)


def _reduced_form(
    problem: QuadraticProblem, free: IntArray, ones: IntArray, base: npt.NDArray[np.int8]
) -> tuple[Matrix, npt.NDArray[Any], float]:
    """Q, linear and offset over the free variables, the others at ``base``."""
    q = problem.Q
    if isinstance(q, FactoredMatrix):
        u = q.factor[:, ones].sum(axis=1, dtype=np.float64)
        sub: Matrix = q.restrict(free)
        cross = u @ q.factor[:, free]
    else:
        sub = q[np.ix_(free, free)]
        cross = q[np.ix_(free, ones)].sum(axis=1, dtype=np.float64)
    return sub, problem.linear[free] + 2.0 * cross, problem.energy(base)


def _reduced_limits(
    problem: BudgetQP, ones: IntArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the fixed ones leave of each row's limits.

    ``0.3 - 0.1 - 0.2`` is not 0: the small row, with small numbers, forgives less than the large
    one did, so limits that may carry rounding are widened by a thousandth of what that forgave.
    """
    taken = problem.A[:, ones]
    used, moved = taken.sum(axis=1), np.abs(taken).sum(axis=1)
    limits = []
    for limit, outwards in ((problem.lower, -1.0), (problem.upper, 1.0)):
        both = np.column_stack([taken, np.where(np.isfinite(limit), limit, 0.0)])
        fine = both * 2.0**20  # integers and short binary fractions are summed exactly
        exact = (fine == np.rint(fine)).all(axis=1) & (np.abs(fine).sum(axis=1) < 2.0**52)
        slack = np.where(exact, 0.0, 1e-3 * forgiven(limit, moved))
        limits.append(limit - used + outwards * slack)
    return limits[0], limits[1]


def _unknown(problem: Problem) -> ProblemError:
    return ProblemError(
        f"cannot fix variables of a {type(problem).__name__}; "
        "known: QUBO, CardinalityQP, BudgetQP, MIQP"
    )
