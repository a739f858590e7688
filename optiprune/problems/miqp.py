"""Support and weights together: the mixed-integer quadratic of best-subset selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import lsq_linear

from .base import as_binary
from .errors import InfeasibleProblemError, ProblemError
from .matrix import FactoredMatrix, FloatArray, Matrix, as_matrix, as_vector

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
        On a wrong shape, an entry that is not finite, a negative M.
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
        bound = np.array(np.broadcast_to(np.asarray(M, dtype=np.float64), (n,)))
        if np.isnan(bound).any() or (bound < 0).any():
            raise ProblemError("M must be non-negative (inf for no bound)")
        if int(k) != k:
            raise ProblemError(f"k must be an integer, got {k!r}")
        if not 0 <= k <= n:
            raise InfeasibleProblemError(f"k = {k} cannot be met with n = {n} variables")
        if not np.isfinite(offset):
            raise ProblemError(f"offset must be finite, got {offset!r}")
        bound.flags.writeable = False
        object.__setattr__(self, "H", h)
        object.__setattr__(self, "b", as_vector("b", b, n))
        object.__setattr__(self, "k", int(k))
        object.__setattr__(self, "M", bound)
        object.__setattr__(self, "offset", float(offset))

    @property
    def n(self) -> int:
        return int(self.b.shape[0])

    def dense(self) -> FloatArray:
        """H as a dense float64 array, shape (n, n)."""
        h = self.H
        return h.toarray() if isinstance(h, FactoredMatrix) else h.astype(np.float64, copy=False)

    def weights(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The best weights on the support x, shape (n,), zero off the support.

        A Cholesky solve; where H is singular on the support, the minimum-norm least-squares
        weights; where a bound M is active, a bounded least-squares solve (scipy `lsq_linear`).

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
        bs, ms = self.b[s], self.M[s]
        try:
            ws = cho_solve(cho_factor(hs, lower=True), bs)
            if not np.isfinite(ws).all():
                raise LinAlgError
            # a barely positive pivot can hide a singular matrix: the residual tells
            if np.linalg.norm(hs @ ws - bs) > 1e-6 * (1.0 + np.linalg.norm(bs)):
                raise LinAlgError
        except LinAlgError:
            ws = np.linalg.lstsq(hs, bs, rcond=1e-12)[0]
            miss = np.linalg.norm(hs @ ws - bs)
            if miss > 1e-6 * (1.0 + np.linalg.norm(bs)) and not np.isfinite(ms).all():
                raise ProblemError(
                    "H is singular on this support and b is outside its range: the energy is "
                    "unbounded below. Add a ridge to H or give a finite M"
                ) from None
        if (np.abs(ws) > ms).any():
            ws = _bounded_minimum(hs, bs, ms)
        w[s] = ws
        return w

    def energy_of(self, w: npt.ArrayLike) -> float:
        """``1/2 w'Hw - b'w + offset`` for given weights, shape (n,)."""
        v = np.asarray(w, dtype=np.float64)
        if v.shape != (self.n,):
            raise ProblemError(f"w must have shape ({self.n},), got {v.shape}")
        h = self.H
        hv = h.matvec(v) if isinstance(h, FactoredMatrix) else h @ v
        return float(0.5 * (v @ hv) - self.b @ v + self.offset)

    def energy(self, x: npt.ArrayLike) -> float:
        """The least energy over the weights on the support x."""
        return self.energy_of(self.weights(x))

    def violation(self, x: npt.ArrayLike) -> float:
        """``|sum x - k|``."""
        return float(abs(int(as_binary(x, self.n).sum()) - self.k))

    def is_feasible(self, x: npt.ArrayLike, tolerance: float = 1e-9) -> bool:
        return self.violation(x) <= tolerance


def _bounded_minimum(
    h: npt.NDArray[Any], b: npt.NDArray[Any], m: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """argmin 1/2 w'hw - b'w over |w| <= m, by bounded least squares on a square root of h."""
    values, vectors = np.linalg.eigh(h)
    keep = values > 1e-12 * max(float(values[-1]), 1e-300)
    root = np.sqrt(values[keep])
    a = root[:, None] * vectors[:, keep].T
    target = (vectors[:, keep].T @ b) / root
    free = m > 0
    w = np.zeros(len(b))
    # b outside the range of h is a linear term that least squares cannot see: one tiny row adds it
    rest = b - vectors[:, keep] @ (vectors[:, keep].T @ b)
    norm = float(np.linalg.norm(rest))
    if norm > 1e-9 * (1.0 + float(np.linalg.norm(b))):
        eps = 1e-6
        a = np.vstack([a, eps * rest / norm])
        target = np.append(target, norm / eps)
    if free.any():
        res = lsq_linear(a[:, free], target, bounds=(-m[free], m[free]), method="bvls")
        w[free] = np.clip(res.x, -m[free], m[free])
    return w
