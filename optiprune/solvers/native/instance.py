"""A problem laid out for the kernels: padded couplings, linear terms, contiguous groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from optiprune.problems import CardinalityQP, FactoredMatrix, ProblemError, QuadraticProblem
from optiprune.solvers.base import Watch
from optiprune.solvers.errors import SolverOptionError

from .vector import FAST, fmax

__all__ = [
    "SMALL",
    "Instance",
    "OutOfTime",
    "Precision",
    "aligned",
    "build_instance",
    "check_precision",
    "energy_of",
    "fill",
    "require_sums",
]

Precision: TypeAlias = Literal["auto", "float32", "float64"]

# integers up to 2**24 are exact in float32, and so are their sums below that
_EXACT = float(1 << 24)
# far enough below the largest numbers for the sums inside kernels
_MOST32, _MOST64 = 1e37, 1e300
# up to here float64 costs about the same, and optima that differ by 1e-7 are told apart
SMALL = 128
# rows converted between two looks at the clock
_ROWS = 256


class OutOfTime(Exception):
    """The time limit passed while the couplings were being laid out."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """``energy(x) = a'x + 1/2 x'Jx + offset`` over variables sorted by group.

    Attributes
    ----------
    n : number of variables
    J : (n, stride) float32 or float64; 2 * offdiagonal(Q), zero diagonal, rows padded with zeros
        to a multiple of 32 and aligned to 64 bytes
    a : (n,) float64, linear terms plus the diagonal of Q
    offset : float
    order : (n,) int64, ``order[p]`` is the problem's variable at position p; None for identity
    starts : (n_groups + 1,) int64, group g is the positions ``starts[g] : starts[g + 1]``
    k : (n_groups,) int64 ones per group; empty for problems without cardinality
    """

    n: int
    J: npt.NDArray[Any]
    a: npt.NDArray[np.float64]
    offset: float
    order: npt.NDArray[np.int64] | None
    starts: npt.NDArray[np.int64]
    k: npt.NDArray[np.int64]

    def inward(self, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """An assignment of the problem in the order of the kernels (always a fresh array)."""
        return x.copy() if self.order is None else x[self.order]

    def outward(self, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """An assignment of the kernels in the problem's order (always a fresh array)."""
        if self.order is None:
            return x.copy()
        out = np.empty_like(x)
        out[self.order] = x
        return out

    def fields(self, x: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
        """``h = a + Jx`` accumulated in float64, shape (n,)."""
        h = np.empty(self.n)
        compute_fields(self.J, self.a, x, h)
        return h

    def energy(self, x: npt.NDArray[np.int8]) -> float:
        """Energy at x (in the order of the kernels), offset included, in float64."""
        return float(energy_of(self.J, self.a, x, np.empty(self.n))) + self.offset


def check_precision(precision: str) -> None:
    if precision not in ("auto", "float32", "float64"):
        raise SolverOptionError(
            f"precision must be 'auto', 'float32' or 'float64', got {precision!r}"
        )


def aligned(rows: int, columns: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised (rows, columns) array whose data begin on a 64-byte boundary."""
    dt = np.dtype(dtype)
    size = rows * columns * dt.itemsize
    raw = np.empty(size + 64, dtype=np.uint8)
    skip = -raw.__array_interface__["data"][0] % 64
    return raw[skip : skip + size].view(dt).reshape(rows, columns)


def build_instance(
    problem: QuadraticProblem, precision: str = "auto", watch: Watch | None = None
) -> Instance:
    """Lay out a problem for the kernels.

    Raises
    ------
    OutOfTime
        If the time limit of ``watch`` passes first (the conversion is O(n^2)).
    SolverOptionError, ProblemError
        If coefficients are so large that sums overflow, see `require_sums`.
    """
    n = problem.n
    a = np.array(problem.linear + problem.diagonal())
    order: npt.NDArray[np.int64] | None = None
    starts = np.array([0, n], dtype=np.int64)
    k = np.zeros(0, dtype=np.int64)
    if isinstance(problem, CardinalityQP):
        k = problem.k.astype(np.int64)
        if problem.n_groups != 1:
            g = problem.groups
            starts = np.zeros(problem.n_groups + 1, dtype=np.int64)
            np.cumsum(np.bincount(g, minlength=problem.n_groups), out=starts[1:])
            if (g[1:] < g[:-1]).any():
                order = np.argsort(g, kind="stable").astype(np.int64)
                a = a[order]
    stride = max(32, -(-n // 32) * 32)
    if isinstance(problem.Q, FactoredMatrix):
        J = _couplings_from_factor(problem.Q, order, stride, precision, a, watch)
    else:
        J = _couplings_from_dense(problem.Q, order, stride, precision, a, watch)
    require_sums(float(_largest(J)), a, J.dtype)
    return Instance(n, J, a, problem.offset, order, starts, k)


def require_sums(coupling: float, a: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> None:
    """Raise unless fields and energies stay finite: kernels compare them and must not meet a NaN.

    Parameters
    ----------
    coupling : the largest in magnitude; inf where it overflowed in ``dtype``
    a : (..., n) linear terms
    dtype : of the kernels' fields

    Raises
    ------
    SolverOptionError
        If fields overflow in float32.
    ProblemError
        If energies overflow in float64.
    """
    n = max(1, a.shape[-1])
    field = n * coupling + float(np.abs(a).max(initial=0.0))
    if np.dtype(dtype) == np.float32:
        if not field < _MOST32:
            raise SolverOptionError(
                f"precision = 'float32' overflows: fields of up to {field:.3g} are possible; use "
                "precision = 'float64' or 'auto'"
            )
    elif not n * field < _MOST64:
        raise ProblemError(
            f"energies overflow: the {n} fields may be as large as {field:.3g}; divide all "
            "coefficients by a common factor"
        )


def _couplings_from_dense(
    Q: npt.NDArray[Any],
    order: npt.NDArray[np.int64] | None,
    stride: int,
    precision: str,
    a: npt.NDArray[np.float64],
    watch: Watch | None,
) -> npt.NDArray[Any]:
    n = Q.shape[0]
    # symmetric, so that the transpose of a column-major Q is Q with contiguous rows
    q = Q if Q.flags.c_contiguous else (Q.T if Q.T.flags.c_contiguous else Q.copy())
    q = q.view()
    q.flags.writeable = False  # one signature for the kernels
    dtype: np.dtype[Any] = np.dtype(np.float64)
    if precision == "float32":
        dtype = np.dtype(np.float32)
    elif precision == "auto" and n > SMALL:
        totals = np.zeros(5)
        for r in range(0, n, _ROWS):
            _survey(q, r, min(n, r + _ROWS), totals)
            _check(watch)
        dtype = _choose(totals, a, n)
    J = aligned(n, stride, dtype)
    if order is None:
        for r in range(0, n, _ROWS):
            fill(q, J, r, min(n, r + _ROWS))
            _check(watch)
    else:
        for r in range(0, n, _ROWS):
            _fill_permuted(q, order, J, r, min(n, r + _ROWS))
            _check(watch)
    return J


def _couplings_from_factor(
    Q: FactoredMatrix,
    order: npt.NDArray[np.int64] | None,
    stride: int,
    precision: str,
    a: npt.NDArray[np.float64],
    watch: Watch | None,
) -> npt.NDArray[Any]:
    n = Q.n
    small = precision == "auto" and n <= SMALL
    dtype = np.dtype(np.float64 if precision == "float64" or small else np.float32)
    f = Q.factor if order is None else Q.factor[:, order]
    f = f.astype(dtype, copy=False)
    J = aligned(n, stride, dtype)
    if watch is None or not np.isfinite(watch.limits.time_s):
        J[:, :n] = f.T @ f  # a symmetric rank-k update, half the work of the blocks below
    else:
        for r in range(0, n, _ROWS):
            np.matmul(f[:, r : r + _ROWS].T, f, out=J[r : r + _ROWS, :n])
            _check(watch)
    J[:, n:] = 0
    J *= 2
    J[np.arange(n), np.arange(n)] = 0
    if precision == "auto" and not small:
        totals = np.zeros(5)
        for r in range(0, n, _ROWS):
            _survey(J[:, :n], r, min(n, r + _ROWS), totals)
            _check(watch)
        totals[1:4] *= 0.5  # the survey doubles what it is given
        totals[4] *= 0.25
        if _choose(totals, a, n) == np.float64:
            return _couplings_from_factor(Q, order, stride, "float64", a, watch)
    return J


def _check(watch: Watch | None) -> None:
    if watch is not None and watch.elapsed >= watch.limits.time_s:
        raise OutOfTime


def _choose(totals: npt.NDArray[np.float64], a: npt.NDArray[np.float64], n: int) -> np.dtype[Any]:
    """float32 unless its rounding would be felt.

    ``totals``: fractional entries, largest row sum of |J|, largest |J|, sum of J, sum of J^2.
    Integers stay exact below 2**24. Otherwise the rounding of a field, 2**-24 times its largest
    partial sum, must be small against the spread of the couplings that the search tells apart (a
    large penalty coefficient, the same in every coupling, is what breaks that).
    """
    fractional, row, top, total, squares = totals
    largest = row + float(np.abs(a).max(initial=0.0))
    if largest == 0.0:
        return np.dtype(np.float32)
    if not fractional and bool((a == np.floor(a)).all()):
        return np.dtype(np.float32 if largest < _EXACT else np.float64)
    if not 1e-28 < top < 1e28 or not largest < 1e30:
        return np.dtype(np.float64)
    pairs = max(1, n * (n - 1))
    spread = np.sqrt(max(0.0, squares / pairs - (total / pairs) ** 2))
    if spread <= 1e-6 * top:
        spread = float(a.std())
    return np.dtype(np.float32 if largest / _EXACT <= 1e-2 * spread else np.float64)


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _survey(Q, first, last, totals):  # type: ignore[no-untyped-def]
    """Accumulate what `_choose` looks at over rows first .. last - 1 of J = 2 offdiagonal(Q)."""
    n = Q.shape[1]
    for i in range(first, last):
        row = 0.0
        top = 0.0
        total = 0.0
        squares = 0.0
        fractional = 0
        for j in range(n):
            v = 2.0 * float(Q[i, j])
            w = abs(v)
            row += w
            top = max(top, w)
            total += v
            squares += v * v
            fractional += v != np.floor(v)
        d = 2.0 * float(Q[i, i])
        row -= abs(d)
        total -= d
        squares -= d * d
        fractional -= d != np.floor(d)
        totals[0] += fractional
        totals[1] = max(totals[1], row)
        totals[2] = max(totals[2], top)
        totals[3] += total
        totals[4] += squares


@njit(nogil=True, cache=True, fastmath=FAST)
def _largest(J):  # type: ignore[no-untyped-def]
    """The largest coupling in magnitude."""
    top = J.dtype.type(0.0)
    for i in range(J.shape[0]):
        row = J[i]
        for j in range(J.shape[1]):
            top = fmax(top, abs(row[j]))
    return top


@njit(nogil=True, cache=True)
def fill(Q, J, first, last):  # type: ignore[no-untyped-def]
    """Rows first .. last - 1 of J = 2 offdiagonal(Q), padding included."""
    n = Q.shape[0]
    for i in range(first, last):
        for j in range(n):
            J[i, j] = 2.0 * Q[i, j]
        for j in range(n, J.shape[1]):
            J[i, j] = 0.0
        J[i, i] = 0.0


@njit(nogil=True, cache=True)
def _fill_permuted(Q, order, J, first, last):  # type: ignore[no-untyped-def]
    n = Q.shape[0]
    for i in range(first, last):
        row = Q[order[i]]
        for j in range(n):
            J[i, j] = 2.0 * row[order[j]]
        for j in range(n, J.shape[1]):
            J[i, j] = 0.0
        J[i, i] = 0.0


@njit(nogil=True, cache=True)
def compute_fields(J, a, x, out):  # type: ignore[no-untyped-def]
    """``out = a + Jx`` in float64: one contiguous row for every variable that is 1."""
    n = a.shape[0]
    for j in range(n):
        out[j] = a[j]
    for i in range(n):
        if x[i]:
            for j in range(n):
                out[j] += J[i, j]


@njit(nogil=True, cache=True)
def energy_of(J, a, x, scratch):  # type: ignore[no-untyped-def]
    """Energy at x, offset left out, in float64; the fields are left in ``scratch``."""
    compute_fields(J, a, x, scratch)
    energy = 0.0
    for i in range(a.shape[0]):
        if x[i]:
            energy += 0.5 * (scratch[i] + a[i])
    return energy
