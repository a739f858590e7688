"""Constraints as penalties, for samplers that know nothing else: QUBO plus the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP
from .bounds import energy_range, flip_bounds
from .errors import InfeasibleProblemError, ProblemError
from .integer_rows import integer_rows, slack_bits
from .matrix import FactoredMatrix, Matrix, as_number
from .repair import repair

__all__ = ["PenaltyForm", "to_penalty_qubo"]

_Bits = npt.NDArray[np.int8]
_Vector = npt.NDArray[np.float64]
_MARGIN = 0.01  # of the size of the coefficients: far above rounding, far below what blurs energies


@dataclass(frozen=True, slots=True, eq=False)
class _Square:
    """One penalty term ``coefficient * (a'x + bits's - target)**2``."""

    a: _Vector
    bits: _Vector
    target: float
    coefficient: float


@dataclass(frozen=True, slots=True, eq=False)
class PenaltyForm:
    """A QUBO over x and slack bits whose minimisers are the optima of a constrained problem.

    Attributes
    ----------
    problem : the constrained problem, n variables
    qubo : over ``n_extended >= n`` variables: x first, then the slack bits, row by row
    coefficients : (n_terms,) float64, the penalty coefficient of each group or binding budget row;
        at a feasible x with its best slack, the energy of ``qubo`` is the energy of ``problem``
    """

    problem: QuadraticProblem
    qubo: QUBO
    coefficients: _Vector
    _squares: tuple[_Square, ...]

    @property
    def n_extended(self) -> int:
        return self.qubo.n

    @property
    def coefficient(self) -> float:
        """The largest coefficient; 0 without constraints."""
        return float(self.coefficients.max(initial=0.0))

    def extract(self, x_extended: npt.ArrayLike) -> _Bits:
        """The original x (feasible or not) of an assignment of the QUBO."""
        return as_binary(x_extended, self.n_extended)[: self.problem.n].copy()

    def extend(self, x: npt.ArrayLike) -> _Bits:
        """x with the slack bits that make the penalty least (a warm start for the QUBO)."""
        xi = as_binary(x, self.problem.n)
        parts = [xi]
        for s in self._squares:
            # the bits' subset sums are 0 .. sum(bits): the nearest is reached greedily
            rest = min(max(s.target - float(s.a @ xi), 0.0), float(s.bits.sum()))
            bits = np.zeros(len(s.bits), dtype=np.int8)
            for j in np.argsort(-s.bits, kind="stable"):
                if s.bits[j] <= rest:
                    bits[j] = 1
                    rest -= float(s.bits[j])
            parts.append(bits)
        return np.concatenate(parts)

    def repair(self, x: npt.ArrayLike) -> _Bits:
        """A feasible original x from one of length n or ``n_extended`` (see `repair`)."""
        a = np.asarray(x)
        if a.shape == (self.n_extended,):
            a = self.extract(a)
        return repair(self.problem, a)


def to_penalty_qubo(problem: Problem, penalty: float | None = None) -> PenaltyForm:
    """Move the constraints of a CardinalityQP or BudgetQP into the objective.

    CardinalityQP: ``E(x) + sum_g c_g (sum_{i in g} x_i - k_g)**2``.
    BudgetQP: rows are scaled to integers; a row ``L <= a'x <= U`` (L and U cut to what a'x can
    reach) becomes ``c_r (a'x + s - U)**2`` with an integer slack s in 0 .. U - L, written in
    ``ceil(log2(U - L + 1))`` bits. Rows that exclude nothing get no term. A QUBO passes through.

    Parameters
    ----------
    penalty : float > 0, optional
        One coefficient for all terms, taken as it is (minimisers may then be infeasible). Without
        it, coefficients are computed for which **every minimiser of the penalty form is feasible
        and optimal**:

        *Flip bound.* up_i and down_i bound the rise of E when x_i is set or cleared
        (`flip_bounds`). Let x violate a cardinality with d > 0 too many ones in group g, which
        thus holds at least k_g + 1 ones. Clearing one of them lowers its penalty by
        c_g (d**2 - (d-1)**2) >= c_g, no other penalty changes, and at least one of those k_g + 1
        ones has a down_i no larger than the (k_g + 1)-th largest of the group. So c_g above that
        value makes x no minimiser; with too few ones, the (m_g - k_g + 1)-th largest up_i of the
        group's m_g serves in the same way. c_g is the larger of the two plus a margin.
        For budgets the same holds where all rows pull one way (clearing any variable never
        raises an activity that has an upper limit, nor lowers one that has a lower limit; or the
        same with setting): a violated row with integer costs has violation d >= 1, and moving a
        variable of non-zero cost in the right direction lowers the squared violation by 1 at least.
        Sorted by falling down_i, the first prefix whose cost exceeds U ends in the value that c_r
        must exceed, since the ones of x, being too costly, cannot all come before it.
        *Gap bound.* For rows that pull both ways, and wherever it is smaller: an infeasible x has
        energy >= E_low + c_r, so c_r above E(y) - E_low for one feasible y (found by greedy repair)
        and a lower bound E_low on E (`energy_range`) makes x no minimiser.

        A feasible x has penalty 0 at its best slack, so the minimisers among feasible x are the
        optima. Minimisers need one violated row only to be excluded, so each term may use whichever
        bound is smaller.

    Raises
    ------
    ProblemError
        For another problem type, a penalty that is not positive and finite, rows that cannot be
        scaled to integers.
    InfeasibleProblemError
        If the budgets exclude every assignment.
    """
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        hint = " (solve it with a solver that takes MIQP, or fix the weights first)"
        raise ProblemError(
            f"to_penalty_qubo takes QUBO, CardinalityQP and BudgetQP, not "
            f"{type(problem).__name__}{hint}"
        )
    if penalty is not None and not (penalty := as_number("penalty", penalty)) > 0:
        raise ProblemError(f"penalty must be positive, got {penalty!r}")
    if isinstance(problem, QUBO):
        return PenaltyForm(problem, problem, np.zeros(0), ())
    if isinstance(problem, CardinalityQP):
        squares = _cardinality_squares(problem, penalty)
    else:
        squares = _budget_squares(problem, penalty)
    coefficients = np.array([s.coefficient for s in squares])
    return PenaltyForm(problem, _add_squares(problem, squares), coefficients, tuple(squares))


def _margin(up: _Vector, down: _Vector) -> float:
    size = float(np.maximum(np.abs(up), np.abs(down)).max(initial=0.0))
    return _MARGIN * size if size > 0 else 1.0


def _cardinality_squares(problem: CardinalityQP, penalty: float | None) -> list[_Square]:
    squares = []
    bounds = None
    if penalty is None:
        up, down = flip_bounds(problem)
        bounds = up, down, _margin(up, down), _gap(problem)
    none = np.zeros(0)
    for g, k in enumerate(problem.k.tolist()):
        members = np.flatnonzero(problem.groups == g)
        if members.size == 0:
            continue
        if bounds is None:
            c = float(penalty or 0.0)
        else:
            up, down, margin, gap = bounds
            need = 0.0
            if k < members.size:
                need = max(need, float(np.sort(down[members])[::-1][k]))
            if k > 0:
                need = max(need, float(np.sort(up[members])[::-1][members.size - k]))
            c = min(need, gap) + margin
        a = np.zeros(problem.n)
        a[members] = 1.0
        squares.append(_Square(a, none, float(k), c))
    return squares


def _budget_squares(problem: BudgetQP, penalty: float | None) -> list[_Square]:
    rows = integer_rows(problem)
    spans = [(row.a, row.lower, row.upper, row) for row in rows]
    if penalty is None:
        up, down = flip_bounds(problem)
        margin = _margin(up, down)
        gap = _gap(problem) if rows else math.inf
        # a row pulls down if clearing variables can only help it, up if setting them can only help
        pulls_down = all(
            ((a >= 0).all() or u >= a[a > 0].sum()) and ((a <= 0).all() or lo <= a[a < 0].sum())
            for a, lo, u, _ in spans
        )
        pulls_up = all(
            ((a <= 0).all() or u >= a[a > 0].sum()) and ((a >= 0).all() or lo <= a[a < 0].sum())
            for a, lo, u, _ in spans
        )
    squares = []
    for a, lower, upper, _ in spans:
        if penalty is not None:
            c = float(penalty)
        else:
            need = gap
            if pulls_down:
                need = min(need, _prefix_bound(down, a, lower, upper))
            if pulls_up:
                # set y = 1 - x: a'x = sum(a) - a'y, and setting x_i is clearing y_i
                total = int(a.sum())
                need = min(need, _prefix_bound(up, -a, lower - total, upper - total))
            c = max(need, 0.0) + margin
        bits = np.array(slack_bits(upper - lower), dtype=np.float64)
        squares.append(_Square(a.astype(np.float64), bits, float(upper), c))
    return squares


def _prefix_bound(down: _Vector, a: npt.NDArray[np.int64], lower: int, upper: int) -> float:
    """The least c that some clearing of a one beats, whatever the violating assignment.

    For ``a >= 0`` the ones of an assignment above ``upper`` cost more than ``upper``; for
    ``a <= 0`` those of one below ``lower`` cost less than ``lower``.
    """
    cost, limit = (a, upper) if (a >= 0).all() and a.any() else (-a, -lower)
    members = np.flatnonzero(cost > 0)
    order = members[np.argsort(-down[members], kind="stable")]
    crossing = np.flatnonzero(np.cumsum(cost[order]) > limit)
    return float(down[order[crossing[0]]]) if crossing.size else 0.0


def _gap(problem: QuadraticProblem) -> float:
    """``E(y) - E_low`` for a feasible y; inf if greedy repair found none in doubtful cases."""
    start = (problem.diagonal() + problem.linear < 0).astype(np.int8)
    try:
        y = repair(problem, start)
    except InfeasibleProblemError:
        raise
    except ProblemError:
        # no feasible y at hand: the highest energy of all stands in for it
        least, most = energy_range(problem)
        return most - least
    return problem.energy(y) - energy_range(problem)[0]


def _add_squares(problem: QuadraticProblem, squares: list[_Square]) -> QUBO:
    """The QUBO of ``E(x) + sum_r c_r (a_r'x + b_r's_r - t_r)**2``."""
    n = problem.n
    n_slack = sum(len(s.bits) for s in squares)
    size = n + n_slack
    vectors = np.zeros((len(squares), size))
    at = n
    for r, s in enumerate(squares):
        vectors[r, :n] = s.a
        vectors[r, at : at + len(s.bits)] = s.bits
        at += len(s.bits)
    c = np.array([s.coefficient for s in squares])
    t = np.array([s.target for s in squares])
    linear = np.concatenate([problem.linear, np.zeros(n_slack)]) - 2.0 * ((c * t) @ vectors)
    offset = problem.offset + float((c * t * t).sum())
    q: Matrix
    if isinstance(problem.Q, FactoredMatrix) and problem.Q.rank + len(squares) < size:
        # a squared row is rank one: the factor form stays a factor form
        factor = np.zeros((problem.Q.rank, size))
        factor[:, :n] = problem.Q.factor
        diagonal = np.concatenate([problem.Q.diagonal, np.zeros(n_slack)])
        q = FactoredMatrix(np.vstack([factor, np.sqrt(c)[:, None] * vectors]), diagonal)
    else:
        dense = np.zeros((size, size))
        dense[:n, :n] = problem.dense(np.float64)
        dense += (vectors.T * c) @ vectors
        q = dense
    return QUBO(q, linear, offset)
