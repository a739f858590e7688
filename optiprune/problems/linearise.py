"""Products of binaries as linear rows: a MILP in arrays that any MILP solver takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP
from .errors import ProblemError

__all__ = ["LinearModel", "constraint_rows", "linearise"]

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """min ``c'z + offset`` over ``row_lower <= A z <= row_upper``, ``col_lower <= z <= col_upper``.

    z holds the ``n_original`` binaries x first, then continuous helper variables. At the best
    helpers for a given feasible x, the objective is the energy of x.

    Attributes
    ----------
    c : (n_cols,) float64
    offset : float
    A : (n_rows, n_cols) scipy CSR matrix
    row_lower, row_upper, col_lower, col_upper : float64, infinities allowed
    integrality : (n_cols,) int8, 1 for the binaries and 0 for the helpers
    n_original : int
    pairs : (n_helpers, 2) int64, for "fortet" the product (i, j) that each helper stands for; for
        "glover" (i, i): helper i stands for ``x_i * sum_{j > i} 2 Q_ij x_j``
    """

    c: _Vector
    offset: float
    A: sp.csr_matrix
    row_lower: _Vector
    row_upper: _Vector
    col_lower: _Vector
    col_upper: _Vector
    integrality: npt.NDArray[np.int8]
    n_original: int
    pairs: npt.NDArray[np.int64]
    coupling: sp.csr_matrix
    """(n, n) strictly upper triangle of 2Q, what the helpers' values are computed from."""

    @property
    def n_cols(self) -> int:
        return int(self.c.shape[0])

    @property
    def n_rows(self) -> int:
        return int(self.row_lower.shape[0])

    def to_scipy(self) -> dict[str, Any]:
        """Arguments for ``scipy.optimize.milp(**model.to_scipy())``; add ``offset`` to its ``fun``.

        Without rows, ``constraints`` is None.
        """
        rows = LinearConstraint(self.A, self.row_lower, self.row_upper) if self.n_rows else None
        return {
            "c": self.c,
            "constraints": rows,
            "bounds": Bounds(self.col_lower, self.col_upper),
            "integrality": self.integrality,
        }

    def extract(self, z: npt.ArrayLike, tolerance: float = 1e-5) -> npt.NDArray[np.int8]:
        """The binary x of a solution z, shape (n_cols,), rounded.

        Raises `ProblemError` if z has another shape or an x is further than ``tolerance`` from an
        integer (a relaxed or failed solve).
        """
        a = np.asarray(z, dtype=np.float64)
        if a.shape != (self.n_cols,):
            raise ProblemError(f"z must have shape ({self.n_cols},), got {a.shape}")
        x = a[: self.n_original]
        r = np.rint(x)
        off = ~(np.abs(x - r) <= tolerance) | (r < 0) | (r > 1)
        if off.any():
            i = int(np.flatnonzero(off)[0])
            raise ProblemError(f"x[{i}] = {x[i]!r} is not binary within {tolerance:g}")
        return np.asarray(r.astype(np.int8))

    def extend(self, x: npt.ArrayLike) -> _Vector:
        """z for a binary x with its best helpers, shape (n_cols,): a warm start."""
        xf = as_binary(x, self.n_original).astype(np.float64)
        i, j = self.pairs[:, 0], self.pairs[:, 1]
        glover = i == j
        helpers = np.where(glover, xf[i] * (self.coupling @ xf)[i], xf[i] * xf[j])
        return np.concatenate([xf, helpers])


def linearise(
    problem: Problem,
    *,
    method: Literal["fortet", "glover"] = "fortet",
    envelope: Literal["needed", "full"] = "needed",
) -> LinearModel:
    """Write a QUBO, CardinalityQP or BudgetQP as a mixed-integer linear model.

    Parameters
    ----------
    method : "fortet" or "glover"
        "fortet": a helper ``y = x_i x_j`` in [0, 1] for each pair with Q_ij != 0 (Fortet 1960; the
        rows are McCormick's envelope, 1976). "glover": a helper for each variable, standing for
        ``x_i * sum_{j > i} 2 Q_ij x_j`` (Glover 1975): n helpers instead of up to n(n-1)/2, but a
        weaker relaxation. Its bounds on the sum use the cardinalities.
    envelope : "needed" or "full"
        "needed" leaves out the rows that a minimum never presses against: for fortet
        ``y <= x_i, y <= x_j`` where the product costs, ``y >= x_i + x_j - 1`` where it gains. The
        optima are the same; "full" pins the helpers to the products at every binary x.

    Raises
    ------
    ProblemError
        For another problem type or an unknown method or envelope.
    """
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise ProblemError(
            f"linearise takes QUBO, CardinalityQP and BudgetQP, not {type(problem).__name__}: "
            "products of continuous weights have no exact linear form"
        )
    if method not in ("fortet", "glover"):
        raise ProblemError(f"unknown method {method!r}; valid: 'fortet', 'glover'")
    if envelope not in ("needed", "full"):
        raise ProblemError(f"unknown envelope {envelope!r}; valid: 'needed', 'full'")
    coupling = sp.csr_matrix(2.0 * np.triu(problem.dense(np.float64), 1))
    coupling.eliminate_zeros()
    own = problem.diagonal() + problem.linear
    rows, lower, upper = constraint_rows(problem)
    build = _fortet if method == "fortet" else _glover
    part = build(problem, coupling, envelope == "full")
    n, extra = problem.n, len(part.cost)
    A = sp.vstack(
        [sp.hstack([rows, sp.csr_matrix((rows.shape[0], extra))]), part.rows], format="csr"
    )
    return LinearModel(
        c=np.concatenate([own, part.cost]),
        offset=problem.offset,
        A=A,
        row_lower=np.concatenate([lower, part.lower]),
        row_upper=np.concatenate([upper, part.upper]),
        col_lower=np.concatenate([np.zeros(n), part.col_lower]),
        col_upper=np.concatenate([np.ones(n), part.col_upper]),
        integrality=np.concatenate([np.ones(n, dtype=np.int8), np.zeros(extra, dtype=np.int8)]),
        n_original=n,
        pairs=part.pairs,
        coupling=coupling,
    )


def constraint_rows(problem: QuadraticProblem) -> tuple[sp.csr_matrix, _Vector, _Vector]:
    """``(A, lower, upper)`` of a problem's own linear constraints, A a CSR matrix (m, n).

    A QUBO has m = 0; a CardinalityQP one row a group, with lower = upper = k; a BudgetQP its rows.
    """
    n = problem.n
    if isinstance(problem, CardinalityQP):
        ones = (np.ones(n), (problem.groups, np.arange(n)))
        k = problem.k.astype(np.float64)
        return sp.csr_matrix(ones, shape=(problem.n_groups, n)), k, k.copy()
    if isinstance(problem, BudgetQP):
        lower, upper = problem.lower, problem.upper
        return (
            sp.csr_matrix(problem.A.astype(np.float64)),
            lower.astype(np.float64),
            upper.astype(np.float64),
        )
    if isinstance(problem, QUBO):
        return sp.csr_matrix((0, n)), np.zeros(0), np.zeros(0)
    raise ProblemError(f"constraints of a {type(problem).__name__} are not known")


@dataclass(frozen=True, slots=True, eq=False)
class _Helpers:
    """The helper columns and the rows that tie them to x (rows span x and the helpers)."""

    cost: _Vector
    col_lower: _Vector
    col_upper: _Vector
    rows: sp.csr_matrix
    lower: _Vector
    upper: _Vector
    pairs: npt.NDArray[np.int64]


def _fortet(problem: QuadraticProblem, coupling: sp.csr_matrix, full: bool) -> _Helpers:
    n = problem.n
    coo = coupling.tocoo()
    i, j = coo.row.astype(np.int64), coo.col.astype(np.int64)
    q = np.asarray(coo.data, dtype=np.float64)
    p = len(q)
    y = n + np.arange(p)
    low = np.arange(p) if full else np.flatnonzero(q < 0)  # y <= x_i and y <= x_j
    high = np.arange(p) if full else np.flatnonzero(q > 0)  # y >= x_i + x_j - 1
    r1, r2 = np.arange(len(low)), len(low) + np.arange(len(low))
    r3 = 2 * len(low) + np.arange(len(high))
    row = np.concatenate([r1, r1, r2, r2, r3, r3, r3])
    col = np.concatenate([y[low], i[low], y[low], j[low], i[high], j[high], y[high]])
    one, two = np.ones(len(low)), np.ones(len(high))
    data = np.concatenate([one, -one, one, -one, two, two, -two])
    m = 2 * len(low) + len(high)
    upper = np.concatenate([np.zeros(2 * len(low)), np.ones(len(high))])
    return _Helpers(
        cost=q,
        col_lower=np.zeros(p),
        col_upper=np.ones(p),
        rows=sp.csr_matrix((data, (row, col)), shape=(m, n + p)),
        lower=np.full(m, -np.inf),
        upper=upper,
        pairs=np.stack([i, j], axis=1),
    )


def _glover(problem: QuadraticProblem, coupling: sp.csr_matrix, full: bool) -> _Helpers:
    n = problem.n
    low, high = _partial_sum_bounds(problem, coupling)
    used = np.flatnonzero(np.diff(coupling.indptr))  # variables with a product to stand for
    p = len(used)
    lo, hi = low[used], high[used]
    sums = sp.hstack([coupling[used], sp.csr_matrix((p, p))], format="csr")
    unit = sp.csr_matrix((np.ones(p), (np.arange(p), used)), shape=(p, n + p))
    z = sp.csr_matrix((np.ones(p), (np.arange(p), n + np.arange(p))), shape=(p, n + p))
    # z >= lo x_i and z >= g - hi (1 - x_i)
    rows = [sp.diags(lo) @ unit - z, sums + sp.diags(hi) @ unit - z]
    upper = [np.zeros(p), hi]
    if full:  # z <= hi x_i and z <= g - lo (1 - x_i)
        rows += [z - sp.diags(hi) @ unit, z - sums - sp.diags(lo) @ unit]
        upper += [np.zeros(p), -lo]
    m = p * len(rows)
    return _Helpers(
        cost=np.ones(p),
        col_lower=np.minimum(lo, 0.0),
        col_upper=np.maximum(hi, 0.0),
        rows=sp.vstack(rows, format="csr") if p else sp.csr_matrix((0, n)),
        lower=np.full(m, -np.inf),
        upper=np.concatenate(upper),
        pairs=np.stack([used, used], axis=1).astype(np.int64),
    )


def _partial_sum_bounds(
    problem: QuadraticProblem, coupling: sp.csr_matrix
) -> tuple[_Vector, _Vector]:
    """Least and most of ``g_i = sum_{j > i} 2 Q_ij x_j`` over feasible x, shape (n,) each."""
    n = problem.n
    dense = coupling.toarray()
    low, high = np.zeros(n), np.zeros(n)
    if not isinstance(problem, CardinalityQP):
        return np.minimum(dense, 0.0).sum(axis=1), np.maximum(dense, 0.0).sum(axis=1)
    for g, k in enumerate(problem.k.tolist()):
        # exactly k of the group are 1, so the k least and the k largest entries bound its part
        part = np.sort(dense[:, problem.groups == g], axis=1)
        if k:
            low += part[:, :k].sum(axis=1)
            high += part[:, part.shape[1] - k :].sum(axis=1)
    return low, high
