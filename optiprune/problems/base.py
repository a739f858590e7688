"""What every problem can answer, and the quadratic form that the binary ones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import ProblemError
from .matrix import FactoredMatrix, FloatArray, Matrix, as_matrix, as_number, as_vector

__all__ = ["Problem", "QuadraticProblem", "as_binary"]


@runtime_checkable
class Problem(Protocol):
    """A minimisation over binary ``x`` (1 means keep)."""

    @property
    def n(self) -> int:
        """Number of binary variables."""

    def energy(self, x: npt.ArrayLike) -> float:
        """Objective at x, offset included, accumulated in float64."""

    def violation(self, x: npt.ArrayLike) -> float:
        """Total constraint violation at x: 0 if and only if x is feasible."""


def as_binary(x: npt.ArrayLike, n: int) -> npt.NDArray[np.int8]:
    """Validate an assignment: shape (n,), every entry 0 or 1. Raises `ProblemError`."""
    a = np.asarray(x)
    if a.shape != (n,):
        raise ProblemError(f"x must have shape ({n},), got {a.shape}")
    if a.dtype == np.bool_:
        return a.astype(np.int8)
    if a.dtype == np.int8 and n and a.view(np.uint8).max() <= 1:
        return a.copy()
    ok = (a == 0) | (a == 1)
    if not ok.all():
        i = int(np.flatnonzero(~ok)[0])
        raise ProblemError(f"x must hold 0 and 1 only; x[{i}] = {a[i]!r}")
    return a.astype(np.int8)


class QuadraticProblem(ABC):
    """A problem over binary x with ``energy(x) = x' Q x + linear' x + offset``.

    No hidden factor 1/2. Q is symmetric (symmetrised on construction), dense of shape (n, n)
    or a `FactoredMatrix`; linear has shape (n,), float64. Arrays are read-only, and
    copies of what was given: changing the caller's array later does not change the problem. (Only
    an array that is read-only itself, along with all that it is a view of, is shared.)
    """

    __slots__ = ()
    Q: Matrix
    linear: FloatArray
    offset: float

    def _set_form(self, Q: Any, linear: npt.ArrayLike | None, offset: float) -> None:
        """Validate and store the quadratic form (for the constructors of frozen subclasses)."""
        m = as_matrix(Q)
        n = m.n if isinstance(m, FactoredMatrix) else int(m.shape[0])
        c = as_number("offset", offset)
        object.__setattr__(self, "Q", m)
        object.__setattr__(self, "linear", as_vector("linear", linear, n))
        object.__setattr__(self, "offset", c)

    @property
    def n(self) -> int:
        return int(self.linear.shape[0])

    @property
    def is_factored(self) -> bool:
        return isinstance(self.Q, FactoredMatrix)

    def dense(self, dtype: npt.DTypeLike | None = None) -> FloatArray:
        """Q as a dense array, shape (n, n); a copy only where one is needed."""
        if isinstance(self.Q, FactoredMatrix):
            return self.Q.toarray(np.float64 if dtype is None else dtype)
        return self.Q if dtype is None else self.Q.astype(dtype, copy=False)

    def diagonal(self) -> npt.NDArray[np.float64]:
        """Diagonal of Q, float64, shape (n,)."""
        if isinstance(self.Q, FactoredMatrix):
            return self.Q.diag()
        return self.Q.diagonal().astype(np.float64)

    def energy(self, x: npt.ArrayLike) -> float:
        """``x' Q x + linear' x + offset`` at x (shape (n,), 0/1), accumulated in float64."""
        return self._energy(as_binary(x, self.n))

    def _energy(self, x: npt.NDArray[np.int8]) -> float:
        s = np.flatnonzero(x)
        if isinstance(self.Q, FactoredMatrix):
            u = self.Q.factor[:, s].sum(axis=1, dtype=np.float64)
            quad = float(u @ u) + float(self.Q.diagonal[s].sum())
        else:
            quad = float(self.Q[np.ix_(s, s)].sum(dtype=np.float64))
        return quad + float(self.linear[s].sum()) + self.offset

    def energies(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Energies of many assignments, X of shape (m, n) -> shape (m,)."""
        a = np.asarray(X)
        if a.ndim != 2:
            raise ProblemError(f"X must have shape (m, {self.n}), got {a.shape}")
        if a.shape[1] != self.n or not ((a == 0) | (a == 1)).all():
            for i, row in enumerate(a):
                try:
                    as_binary(row, self.n)
                except ProblemError as e:
                    raise ProblemError(f"row {i} of X: {e}") from None
        out = np.empty(len(a))
        rows = max(1, (1 << 22) // max(self.n, 1))  # 32 MiB of float64 at a time
        for at in range(0, len(a), rows):
            v = a[at : at + rows].astype(np.float64)
            if isinstance(self.Q, FactoredMatrix):
                u = v @ self.Q.factor.T.astype(np.float64)
                quad = np.einsum("mr,mr->m", u, u) + v @ self.Q.diagonal
            else:
                quad = np.einsum("mi,mi->m", v @ self.Q.astype(np.float64, copy=False), v)
            out[at : at + rows] = quad + v @ self.linear + self.offset
        return out

    def fields(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Local fields ``h_i = linear_i + Q_ii + 2 sum_{j != i} Q_ij x_j``, shape (n,).

        Setting x_i from 0 to 1 changes the energy by h_i, from 1 to 0 by -h_i.
        """
        xi = as_binary(x, self.n)
        v = xi.astype(np.float64)
        if isinstance(self.Q, FactoredMatrix):
            qx = self.Q.matvec(v)
        else:
            qx = self.Q[:, np.flatnonzero(xi)].sum(axis=1, dtype=np.float64)
        return np.asarray(self.linear + 2.0 * qx + self.diagonal() * (1.0 - 2.0 * v))

    def flip_deltas(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Change of energy for flipping each variable alone, shape (n,)."""
        xi = as_binary(x, self.n)
        return np.asarray((1.0 - 2.0 * xi) * self.fields(xi))

    def exchange_delta(self, x: npt.ArrayLike, out: int, into: int) -> float:
        """Change of energy for setting ``x[out]`` from 1 to 0 and ``x[into]`` from 0 to 1.

        Raises `ProblemError` if ``x[out]`` is not 1 or ``x[into]`` is not 0.
        """
        xi = as_binary(x, self.n)
        if xi[out] != 1 or xi[into] != 0:
            raise ProblemError(
                f"an exchange needs x[{out}] = 1 and x[{into}] = 0, got {xi[out]} and {xi[into]}"
            )
        h = self.fields(xi)
        if isinstance(self.Q, FactoredMatrix):
            f = self.Q.factor
            q = float(np.dot(f[:, out].astype(np.float64), f[:, into].astype(np.float64)))
        else:
            q = float(self.Q[out, into])
        return float(h[into] - h[out] - 2.0 * q)

    @abstractmethod
    def violation(self, x: npt.ArrayLike) -> float:
        """Total constraint violation at x: 0 if and only if x is feasible."""

    def is_feasible(self, x: npt.ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the violation at x is at most ``tolerance`` (in the rows' units).

        The violation forgives rounding by itself, whatever the units.
        """
        return self.violation(x) <= tolerance
