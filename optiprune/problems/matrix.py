"""Symmetric matrices, stored dense or as a factor plus a diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .errors import ProblemError

__all__ = [
    "FactoredMatrix",
    "FloatArray",
    "IntArray",
    "Matrix",
    "as_matrix",
    "as_number",
    "as_vector",
    "frozen",
]

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class FactoredMatrix:
    """The symmetric matrix ``factor.T @ factor + diag(diagonal)``, never formed unless asked.

    Parameters
    ----------
    factor : float array, shape (r, n)
        One row a sample: for a Fisher matrix, per-sample gradients over ``sqrt(N)``.
    diagonal : float array, shape (n,), optional
        Added to the diagonal; zero when absent.

    The arrays are copied, unless they are read-only throughout.

    Raises
    ------
    ProblemError
        If a shape is wrong or an entry is not finite.
    """

    factor: FloatArray
    diagonal: FloatArray

    def __init__(self, factor: npt.ArrayLike, diagonal: npt.ArrayLike | None = None) -> None:
        f = _as_floats("factor", factor)
        if f.ndim != 2:
            raise ProblemError(f"factor must have shape (r, n), got {f.shape}")
        require_finite("factor", f)
        d = as_vector("diagonal", diagonal, f.shape[1])
        object.__setattr__(self, "factor", frozen(f))
        object.__setattr__(self, "diagonal", d)

    @property
    def n(self) -> int:
        return int(self.factor.shape[1])

    @property
    def rank(self) -> int:
        """Rows of the factor (an upper bound on the rank of the factor part)."""
        return int(self.factor.shape[0])

    def diag(self) -> npt.NDArray[np.float64]:
        """The diagonal of the whole matrix, float64, shape (n,)."""
        f = self.factor
        return np.asarray(np.einsum("ri,ri->i", f, f, dtype=np.float64) + self.diagonal)

    def toarray(self, dtype: npt.DTypeLike = np.float64) -> FloatArray:
        """The dense matrix, shape (n, n)."""
        f = self.factor.astype(dtype, copy=False)
        out = f.T @ f
        out[np.diag_indices(self.n)] += self.diagonal.astype(dtype, copy=False)
        return np.asarray(out)

    def matvec(self, v: FloatArray) -> npt.NDArray[np.float64]:
        f = self.factor.astype(np.float64, copy=False)
        return np.asarray(f.T @ (f @ v) + self.diagonal * v)

    def restrict(self, index: IntArray) -> FactoredMatrix:
        """The principal submatrix on ``index``."""
        return FactoredMatrix(self.factor[:, index], self.diagonal[index])

    def scale(self, s: FloatArray) -> FactoredMatrix:
        """``diag(s) @ self @ diag(s)``."""
        return FactoredMatrix(self.factor * s, self.diagonal * s * s)


Matrix: TypeAlias = FloatArray | FactoredMatrix


def frozen(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself, refusing writes from now on: for one that nobody else can reach."""
    a.flags.writeable = False
    return a


def as_number(name: str, value: Any) -> float:
    """A finite float. Raises `ProblemError` for anything else, strings of digits included."""
    try:
        if isinstance(value, str | bytes | np.bool_ | bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ProblemError(f"{name} must be a number, got {value!r}") from None
    if not np.isfinite(number):
        raise ProblemError(f"{name} must be finite, got {value!r}")
    return number


def require_finite(name: str, a: FloatArray) -> None:
    finite = np.isfinite(a)
    if not finite.all():
        where = np.argwhere(~finite)[0]
        raise ProblemError(
            f"{name} holds {a[tuple(where)]} at index {tuple(int(i) for i in where)} "
            f"({int((~finite).sum())} non-finite entries in all); clean the data first"
        )


def as_vector(name: str, v: npt.ArrayLike | None, n: int) -> npt.NDArray[np.float64]:
    """A finite, read-only float64 vector of length n; zeros for None."""
    if v is None:
        out = np.zeros(n)
    else:
        try:
            out = np.array(v, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise ProblemError(f"{name} is not a vector of numbers: {e}") from None
    if out.shape != (n,):
        raise ProblemError(f"{name} must have shape ({n},), got {out.shape}")
    require_finite(name, out)
    out.flags.writeable = False
    return out


def as_matrix(Q: Any) -> Matrix:
    """Validate a square matrix and symmetrise it: ``(Q + Q.T) / 2``.

    Accepts a dense array-like, a scipy sparse matrix (made dense) or a `FactoredMatrix`.
    float32 storage is kept; everything else becomes float64. The result is read-only and shares
    memory with Q only if nobody can write to that.
    """
    if isinstance(Q, FactoredMatrix):
        return Q
    if sp.issparse(Q):
        Q = frozen(Q.toarray())
    a = _as_floats("Q", Q)
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ProblemError(f"Q must be square, got shape {a.shape}")
    require_finite("Q", a)
    if not np.array_equal(a, a.T):
        a = a / 2 + a.T / 2  # halves first: the sum of two large entries may overflow
    return frozen(a)


def _as_floats(name: str, values: Any) -> FloatArray:
    """float32 and float64 stay what they are, other numbers become float64; copied where the
    caller, or anyone, could still write to the array."""
    try:
        a = np.asarray(values)
        if np.iscomplexobj(a):
            raise ProblemError(f"{name} is complex; a real matrix is needed")
        if a.dtype not in (np.float32, np.float64):
            return a.astype(np.float64)
        return a if _is_constant(a) else a.copy()
    except (TypeError, ValueError) as e:
        if isinstance(e, ProblemError):
            raise
        raise ProblemError(f"{name} is not a matrix of numbers: {e}") from None


def _is_constant(a: Any) -> bool:
    """Whether the array and all that it is a view of refuse writes."""
    while isinstance(a, np.ndarray):
        if a.flags.writeable:
            return False
        a = a.base
    # other owners of memory (a bytes object, a file) may change it, bytes excepted
    return a is None or isinstance(a, bytes)
