"""Convex quadratic over a box: the weights of an `MIQP` once its support is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, eigvalsh

from .errors import ProblemError
from .matrix import FactoredMatrix, Matrix

__all__ = ["box_minimum", "require_semidefinite"]

_Vector = npt.NDArray[np.float64]
_RANGE_TOLERANCE = 1e-7  # part of the gradient outside range(h), relative to it, taken as real


def require_semidefinite(h: Matrix) -> None:
    """Raise `ProblemError` if h has a negative eigenvalue that rounding does not explain.

    That is, one below -1e-9 of the largest; for float32 entries, whose rounding alone moves
    eigenvalues further, below -n eps.
    """
    if isinstance(h, FactoredMatrix):
        if (h.diagonal >= 0).all():
            return
        h = h.toarray()
    n = len(h)
    if n == 0:
        return
    tolerance = max(1e-9, n * float(np.finfo(h.dtype).eps))
    shifted = np.array(h, dtype=np.float64)
    # the largest eigenvalue is at least the largest diagonal entry
    shifted[np.diag_indices(n)] += tolerance * max(float(h.diagonal().max(initial=0.0)), 1e-300)
    try:
        cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        values = eigvalsh(h.astype(np.float64), check_finite=False)
        if values[0] < -tolerance * np.abs(values).max():
            raise ProblemError(
                f"H is not positive semidefinite: its eigenvalues run from {values[0]:.4g} to "
                f"{values[-1]:.4g}. Add a ridge of at least {-values[0]:.4g} to its diagonal"
            ) from None


def box_minimum(h: _Vector, b: _Vector, m: _Vector) -> _Vector:
    """argmin ``1/2 w'hw - b'w`` over ``|w| <= m``, for positive semidefinite h.

    Where no bound is active this is one Cholesky solve (minimum-norm least squares where h is
    singular and b in its range); otherwise a primal active-set method (Nocedal and Wright,
    Numerical Optimization, 2nd ed., algorithm 16.3, with bounds only), which also follows a
    direction in the null space of h, along which the objective is linear, up to a bound.

    Parameters
    ----------
    h : (s, s) float64, symmetric positive semidefinite
    b : (s,) float64
    m : (s,) float64, >= 0, inf for no bound

    Raises
    ------
    ProblemError
        If the objective is unbounded below (h singular, b outside its range, no bound in the
        way), or if h is so far from positive semidefinite that the method does not end.
    """
    size = len(b)
    if size == 0:
        return np.zeros(0)
    step, null = _newton_step(h, -b)
    if null is None and (np.abs(step) <= m).all():
        return step
    w = np.clip(step, -m, m)
    at = np.abs(w) >= m  # at a bound, and held there
    for _ in range(100 + 20 * size):
        g = h @ w - b
        free = np.flatnonzero(~at)
        moved = False
        if free.size:
            step, null = _newton_step(h[np.ix_(free, free)], g[free])
            direction = step if null is None else -null
            # the longest step within the box; a full Newton step where nothing is in the way
            with np.errstate(divide="ignore", invalid="ignore"):
                room = (m[free] - np.sign(direction) * w[free]) / np.abs(direction)
            room[direction == 0] = np.inf
            first = int(np.argmin(room))
            if null is not None and not np.isfinite(room[first]):
                raise ProblemError(
                    "H is singular on this support and b is outside its range: the energy is "
                    "unbounded below. Add a ridge to H or give a finite M"
                )
            blocked = null is not None or room[first] < 1.0
            w[free] += (room[first] if blocked else 1.0) * direction
            if blocked:
                i = free[first]
                w[i] = np.copysign(m[i], direction[first])
                at[i] = True
                moved = True
        if moved:
            continue
        # stationary on the free variables: release the bound that pulls inwards the most
        g = h @ w - b
        inward = np.where(at & (m > 0), g * np.sign(w), 0.0)
        worst = int(np.argmax(inward))
        scale = np.abs(h[worst]) @ np.abs(w) + abs(b[worst])
        if inward[worst] <= 1e-12 * scale:
            return w
        at[worst] = False
    raise ProblemError("the bounded weights did not converge: is H positive semidefinite?")


def _newton_step(h: _Vector, g: _Vector) -> tuple[_Vector, _Vector | None]:
    """``(p, None)`` with h p = -g, or ``(p, r)`` with r the part of g outside the range of h."""
    norm = float(np.linalg.norm(g))
    if norm == 0.0:
        return np.zeros(len(g)), None
    try:
        p = cho_solve(cho_factor(h, lower=True), -g)
        # a barely positive pivot can hide a singular matrix: the residual tells
        if np.isfinite(p).all() and float(np.linalg.norm(h @ p + g)) <= 1e-9 * norm:
            return p, None
    except LinAlgError:
        pass
    values, vectors = np.linalg.eigh(h)
    keep = values > 1e-12 * max(float(np.abs(values).max()), 1e-300)
    c = vectors.T @ g
    p = -(vectors[:, keep] @ (c[keep] / values[keep]))
    r = vectors[:, ~keep] @ c[~keep]
    if float(np.linalg.norm(r)) > _RANGE_TOLERANCE * norm:
        return p, r
    return p, None
