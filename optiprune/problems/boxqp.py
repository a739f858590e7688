"""Convex quadratic over a box: the weights of an `MIQP` once its support is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, eigvalsh
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from .errors import ProblemError
from .matrix import FactoredMatrix, Matrix

__all__ = ["RANK", "box_minimum", "require_semidefinite"]

_Vector = npt.NDArray[np.float64]
# directions with an eigenvalue up to this, h scaled to a diagonal of 1, count as null. It bounds
# what any weights can be (|w|^2 <= 2 gain / RANK in that scale), which bounds of supports go by
RANK = 1e-9
# pivots above this, of the same scale, leave no doubt that no eigenvalue comes near RANK
_SURE = 1e-4
_RANGE_TOLERANCE = 1e-6  # part of the gradient outside range(h), relative to it, taken as real


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

    h is scaled to a diagonal of 1. Where no bound is active this is one Cholesky solve, or, where
    an eigenvalue is at most `RANK`, the least-norm minimum over the other eigenvectors. Otherwise a
    primal active-set method (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 16.3,
    with bounds only), which also follows a direction in the null space of h, along which the
    objective is linear, up to a bound.

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
    diagonal = h.diagonal()
    if (diagonal > 0.0).all() and (m > 0.0).all():
        return _positive_minimum(h, b, m, np.sqrt(diagonal))
    w = np.zeros(len(b))
    # weights that h does not see go to their bound, whatever the others do
    unseen = (diagonal <= 0.0) & np.isfinite(m) & ~h.any(axis=1)
    w[unseen] = np.copysign(m[unseen], b[unseen]) * (b[unseen] != 0.0)
    on = np.flatnonzero(~unseen & (m > 0.0))
    if on.size:
        d = diagonal[on]
        largest = float(d.max())
        unit = np.sqrt(np.where(d > 0.0, d, largest if largest > 0.0 else 1.0))
        w[on] = _positive_minimum(h[np.ix_(on, on)], b[on], m[on], unit)
    return w


def _positive_minimum(h: _Vector, b: _Vector, m: _Vector, unit: _Vector) -> _Vector:
    """`box_minimum` for m > 0, solved in weights times ``unit``."""
    u, at = _scaled_minimum(h / unit / unit[:, None], b / unit, m * unit)
    w = np.minimum(np.maximum(u / unit, -m), m)
    return w if at is None else np.where(at, np.copysign(m, u), w)


def _scaled_minimum(
    h: _Vector, b: _Vector, m: _Vector
) -> tuple[_Vector, npt.NDArray[np.bool_] | None]:
    """(`box_minimum` for a diagonal of 1 and m > 0, which weights are held at their bound)."""
    size = len(b)
    step, null = _newton_step(h, -b)
    if null is None and (np.abs(step) <= m).all():
        return step, None
    w = np.clip(step, -m, m)
    at = np.abs(w) >= m  # at a bound, and held there
    least, stale = np.inf, 0
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
        inward = np.where(at, g * np.sign(w), 0.0)
        worst = int(np.argmax(inward))
        scale = np.abs(h[worst]) @ np.abs(w) + abs(b[worst])
        # a pull along directions that count as null may come back to where it was
        value = float(0.5 * (g - b) @ w)
        stale = 0 if value < least else stale + 1
        least = min(least, value)
        if inward[worst] <= 1e-12 * scale or stale > size:
            return w, at
        at[worst] = False
    raise ProblemError("the bounded weights did not converge: is H positive semidefinite?")


def _newton_step(h: _Vector, g: _Vector) -> tuple[_Vector, _Vector | None]:
    """``(p, None)`` with h p = -g, or ``(p, r)`` with r the part of g outside the range of h.

    h has a diagonal of 1 (or 0); what g has along eigenvectors that count as null is left.
    """
    norm = float(np.linalg.norm(g))
    if norm == 0.0:
        return np.zeros(len(g)), None
    factor, failed = dpotrf(h, lower=1)
    # no eigenvalue is below 1 / trace(h^-1)
    if not failed and (
        float(factor.diagonal().min()) ** 2 > _SURE
        or float(np.trace(dpotri(factor, lower=1)[0])) * RANK < 1.0
    ):
        return dpotrs(factor, -g, lower=1)[0], None
    values, vectors = np.linalg.eigh(h)
    keep = values > RANK
    c = vectors.T @ g
    p = -(vectors[:, keep] @ (c[keep] / values[keep]))
    # only an eigenvalue that cannot be told from 0 leaves the objective without a minimum
    none = values <= 16.0 * len(g) * float(np.finfo(np.float64).eps)
    r = vectors[:, none] @ c[none]
    if float(np.linalg.norm(r)) > _RANGE_TOLERANCE * norm:
        return p, r
    return p, None
