"""The binary quadratic problems: unconstrained, fixed cardinality, linear budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .base import QuadraticProblem, as_binary
from .errors import InfeasibleProblemError, ProblemError
from .matrix import FloatArray, IntArray, Matrix, require_finite

__all__ = ["QUBO", "BudgetQP", "CardinalityQP", "forgiven"]


def forgiven(limit: npt.ArrayLike, moved: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The excess over a row's limit that counts as rounding: 1e-9 of what was summed or compared.

    ``moved`` is ``|A| x``. Nothing absolute: rows mean the same in bytes and in gigabytes.
    """
    size = np.abs(np.asarray(limit, dtype=np.float64))
    return np.asarray(1e-9 * np.maximum(moved, np.where(np.isfinite(size), size, 0.0)))


@dataclass(frozen=True, slots=True, eq=False, init=False)
class QUBO(QuadraticProblem):
    """Quadratic unconstrained binary optimization: min ``x' Q x + linear' x + offset``.

    Parameters
    ----------
    Q : (n, n) array-like, scipy sparse matrix or `FactoredMatrix`
        Symmetrised as ``(Q + Q.T) / 2``, which leaves every energy as it was. Copied, unless it is
        read-only throughout.
    linear : (n,) array-like, optional
    offset : float

    Raises
    ------
    ProblemError
        On a wrong shape or an entry that is not finite.
    """

    Q: Matrix
    linear: FloatArray
    offset: float

    def __init__(self, Q: Any, linear: npt.ArrayLike | None = None, offset: float = 0.0) -> None:
        self._set_form(Q, linear, offset)

    def violation(self, x: npt.ArrayLike) -> float:
        """Always 0: there is no constraint (x itself is still validated)."""
        as_binary(x, self.n)
        return 0.0


@dataclass(frozen=True, slots=True, eq=False, init=False)
class CardinalityQP(QuadraticProblem):
    """Binary quadratic with ``sum x = k``, or one such equation per group.

    Parameters
    ----------
    Q, linear, offset
        As in `QUBO`.
    k : int, or (n_groups,) int array-like
        How many variables are 1: in all, or in each group.
    groups : (n,) int array-like, optional
        Group of each variable, 0 .. n_groups - 1. N:M sparsity is groups of M with k = N;
        per-row budgets are one group a row. Stored as zeros when absent.

    Raises
    ------
    ProblemError
        On a wrong shape or type.
    InfeasibleProblemError
        If some k is negative or larger than its group.
    """

    Q: Matrix
    linear: FloatArray
    offset: float
    k: IntArray
    groups: IntArray

    def __init__(
        self,
        Q: Any,
        linear: npt.ArrayLike | None = None,
        offset: float = 0.0,
        *,
        k: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
    ) -> None:
        self._set_form(Q, linear, offset)
        n = self.n
        ks = np.atleast_1d(_integers("k", k))
        if ks.ndim != 1:
            raise ProblemError(f"k must be an integer or have shape (n_groups,), got {ks.shape}")
        if groups is None:
            if ks.shape != (1,):
                raise ProblemError(f"k has {ks.shape[0]} entries; give groups (n,) with them")
            g = np.zeros(n, dtype=np.int64)
        else:
            g = _integers("groups", groups)
            if g.shape != (n,):
                raise ProblemError(f"groups must have shape ({n},), got {g.shape}")
            if n and (g.min() < 0 or g.max() >= ks.shape[0]):
                raise ProblemError(
                    f"groups run from {g.min()} to {g.max()}, but k has {ks.shape[0]} entries"
                )
        sizes = np.bincount(g, minlength=ks.shape[0])
        bad = np.flatnonzero((ks < 0) | (ks > sizes))
        if bad.size:
            i = int(bad[0])
            raise InfeasibleProblemError(
                f"group {i} holds {sizes[i]} variables, so k[{i}] = {ks[i]} cannot be met; "
                f"use a k between 0 and {sizes[i]}"
            )
        ks.flags.writeable = False
        g.flags.writeable = False
        object.__setattr__(self, "k", ks)
        object.__setattr__(self, "groups", g)

    @property
    def n_groups(self) -> int:
        return int(self.k.shape[0])

    def counts(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Ones per group, shape (n_groups,)."""
        xi = as_binary(x, self.n)
        return np.bincount(self.groups[xi == 1], minlength=self.n_groups).astype(np.int64)

    def violation(self, x: npt.ArrayLike) -> float:
        """``sum_g |ones in g - k_g|``."""
        return float(np.abs(self.counts(x) - self.k).sum())


@dataclass(frozen=True, slots=True, eq=False, init=False)
class BudgetQP(QuadraticProblem):
    """Binary quadratic under linear budgets ``lower <= A x <= upper`` (knapsack rows).

    Parameters
    ----------
    Q, linear, offset
        As in `QUBO`.
    A : (m, n) array-like or scipy sparse matrix; (n,) for a single row
        Cost of keeping each variable, one row a budget (parameters, FLOPs, bytes ...).
    upper : (m,) array-like; a number for a single row
        ``inf`` where a row has no upper limit.
    lower : (m,) array-like, optional
        ``-inf`` (the default) where a row has no lower limit; equal to upper for an equation.

    Raises
    ------
    ProblemError
        On a wrong shape, a NaN, or an infinite entry of A.
    InfeasibleProblemError
        If a row cannot be met by any x, taken alone.
    """

    Q: Matrix
    linear: FloatArray
    offset: float
    A: FloatArray
    upper: FloatArray
    lower: FloatArray

    def __init__(
        self,
        Q: Any,
        linear: npt.ArrayLike | None = None,
        offset: float = 0.0,
        *,
        A: Any,
        upper: npt.ArrayLike,
        lower: npt.ArrayLike | None = None,
    ) -> None:
        self._set_form(Q, linear, offset)
        try:
            dense = A.toarray() if sp.issparse(A) else A
            a = np.atleast_2d(np.array(dense, dtype=np.float64))
            up = np.atleast_1d(np.array(upper, dtype=np.float64))
            m = a.shape[0]
            lo = np.full(m, -np.inf) if lower is None else np.array(lower, dtype=np.float64)
            lo = np.atleast_1d(lo)
        except (TypeError, ValueError) as e:
            raise ProblemError(f"A, upper and lower must be numbers: {e}") from None
        if a.ndim != 2 or a.shape[1] != self.n:
            raise ProblemError(f"A must have shape (m, {self.n}), got {a.shape}")
        require_finite("A", a)
        for name, v in (("upper", up), ("lower", lo)):
            if v.shape != (m,):
                raise ProblemError(f"{name} must have shape ({m},), got {v.shape}")
            if np.isnan(v).any():
                i = int(np.flatnonzero(np.isnan(v))[0])
                raise ProblemError(f"{name} holds NaN at index {i}")
        with np.errstate(over="ignore"):
            least = np.minimum(a, 0.0).sum(axis=1)
            most = np.maximum(a, 0.0).sum(axis=1)
            huge = np.flatnonzero(~np.isfinite(most - least))
        if huge.size:
            raise ProblemError(f"the entries of A in row {huge[0]} add up to no finite number")
        too_much = least - up > forgiven(up, -least)
        too_little = lo - most > forgiven(lo, most)
        bad = np.flatnonzero((lo > up) | too_much | too_little)
        if bad.size:
            i = int(bad[0])
            raise InfeasibleProblemError(
                f"budget row {i} cannot be met: A x ranges over [{least[i]:g}, {most[i]:g}], "
                f"asked for [{lo[i]:g}, {up[i]:g}]"
            )
        for name, v in (("A", a), ("upper", up), ("lower", lo)):
            v.flags.writeable = False
            object.__setattr__(self, name, v)

    @property
    def n_rows(self) -> int:
        return int(self.A.shape[0])

    def violation(self, x: npt.ArrayLike) -> float:
        """``sum_r max(A_r x - upper_r, lower_r - A_r x, 0)``, rounding error set to 0.

        Rounding error is an excess of at most 1e-9 of the row's summands at x (``|A_r| x``) or of
        the limit. A row in other units gives the same answer in those units.
        """
        xi = as_binary(x, self.n).astype(np.float64)
        use, moved = self.A @ xi, np.abs(self.A) @ xi
        above, below = use - self.upper, self.lower - use
        above = np.where(above <= forgiven(self.upper, moved), 0.0, above)
        below = np.where(below <= forgiven(self.lower, moved), 0.0, below)
        return float(np.maximum(above, below).sum())


def _integers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """A fresh int64 copy; floats are accepted when they are whole numbers below 2**53."""
    try:
        a = np.asarray(values)
    except (TypeError, ValueError) as e:
        raise ProblemError(f"{name} is not an array of integers: {e}") from None
    if a.dtype.kind not in "iuf" and a.size:
        raise ProblemError(f"{name} must hold integers, got {a!r}")
    if a.dtype.kind in "uf" and not ((a == np.floor(a)) & (np.abs(a) < 2.0**53)).all():
        raise ProblemError(f"{name} must hold whole numbers below 2**53, got {a!r}")
    return np.array(a, dtype=np.int64)
