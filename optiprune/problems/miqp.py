"""Support and weights together: the mixed-integer quadratic of best-subset selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import as_binary
from .boxqp import box_minimum, require_semidefinite
from .errors import InfeasibleProblemError, ProblemError
from .matrix import FactoredMatrix, FloatArray, Matrix, as_matrix, as_number, as_vector, frozen

__all__ = ["MIQP"]


@dataclass(frozen=True, slots=True, eq=False, init=False)
class MIQP:
    """min over w, x of ``1/2 w'Hw - b'w + offset`` with ``-M x <= w <= M x`` and ``sum x = k``.

    The 1/2 is written out because H is a Hessian here. A binary x selects the support, w are the
    continuous weights on it. ``energy(x)`` is the minimum over w (the profile energy), so that an
    MIQP is also a `Problem` over x alone.

    Parameters
    ----------
    H : (n, n) positive semidefinite array-like or `FactoredMatrix`
        Copied, unless it is read-only throughout.
    b : (n,) array-like
    k : int
        Size of the support.
    M : float or (n,) array-like
        Bound on the magnitude of each weight. `inf` means no bound (then x gates w directly and
        only solvers that work on supports apply; branch-and-cut back ends need a finite M).
    offset : float

    Raises
    ------
    ProblemError
        On a wrong shape, an entry that is not finite, a negative M, or an H with a negative
        eigenvalue beyond rounding (then the weights of a support may be a saddle point).
    InfeasibleProblemError
        If k is negative or larger than n.
    """

    H: Matrix
    b: FloatArray
    k: int
    M: FloatArray
    offset: float

    def __init__(
        self,
        H: Any,
        b: npt.ArrayLike,
        *,
        k: int,
        M: npt.ArrayLike = np.inf,
        offset: float = 0.0,
    ) -> None:
        h = as_matrix(H)
        n = h.n if isinstance(h, FactoredMatrix) else int(h.shape[0])
        try:
            bound = np.array(np.broadcast_to(np.asarray(M, dtype=np.float64), (n,)))
        except (TypeError, ValueError):
            raise ProblemError(f"M must be a number or have shape ({n},), got {M!r}") from None
        if np.isnan(bound).any() or (bound < 0).any():
            raise ProblemError("M must be non-negative (inf for no bound)")
        size = as_number("k", k)
        if not size.is_integer():
            raise ProblemError(f"k must be an integer, got {k!r}")
        if not 0 <= size <= n:
            raise InfeasibleProblemError(f"k = {k} cannot be met with n = {n} variables")
        require_semidefinite(h)
        object.__setattr__(self, "H", h)
        object.__setattr__(self, "b", as_vector("b", b, n))
        object.__setattr__(self, "k", int(size))
        object.__setattr__(self, "M", frozen(bound))
        object.__setattr__(self, "offset", as_number("offset", offset))

    @property
    def n(self) -> int:
        return int(self.b.shape[0])

    def dense(self) -> FloatArray:
        """H as a dense float64 array, shape (n, n)."""
        h = self.H
        return h.toarray() if isinstance(h, FactoredMatrix) else h.astype(np.float64, copy=False)

    def weights(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The best weights on the support x, shape (n,), zero off the support.

        A Cholesky solve. Directions that H on the support, scaled to a diagonal of 1, gives a
        curvature of at most `boxqp.RANK` are not used, as if it were 0: of nearly collinear
        weights the least-norm combination, in that scale, since what a small difference of large
        weights gains is rounding. Where a bound M is active, an active-set method (`boxqp`).

        Raises
        ------
        ProblemError
            If the energy is unbounded below on this support (H singular, b outside its range, M
            infinite).
        """
        s = np.flatnonzero(as_binary(x, self.n))
        w = np.zeros(self.n)
        if s.size == 0:
            return w
        h = self.H
        hs = h.restrict(s).toarray() if isinstance(h, FactoredMatrix) else h[np.ix_(s, s)]
        hs = hs.astype(np.float64, copy=False)
        w[s] = box_minimum(
            np.ascontiguousarray(hs), self.b[s].astype(np.float64), self.M[s].astype(np.float64)
        )
        return w

    def energy_of(self, w: npt.ArrayLike) -> float:
        """``1/2 w'Hw - b'w + offset`` for given weights, shape (n,)."""
        v = np.asarray(w, dtype=np.float64)
        if v.shape != (self.n,):
            raise ProblemError(f"w must have shape ({self.n},), got {v.shape}")
        if not np.isfinite(v).all():
            raise ProblemError("w holds a value that is not finite")
        h = self.H
        hv = h.matvec(v) if isinstance(h, FactoredMatrix) else h @ v
        return float(0.5 * (v @ hv) - self.b @ v + self.offset)

    def energy(self, x: npt.ArrayLike) -> float:
        """The energy of `weights`: the least on the support x, but for directions without use."""
        return self.energy_of(self.weights(x))

    def violation(self, x: npt.ArrayLike) -> float:
        """``|sum x - k|``."""
        return float(abs(int(as_binary(x, self.n).sum()) - self.k))

    def is_feasible(self, x: npt.ArrayLike, tolerance: float = 0.0) -> bool:
        return self.violation(x) <= tolerance
