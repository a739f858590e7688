"""The diagonal of the perspective relaxation: interior Newton steps towards the best one.

The bound of `subset_kernels` is concave in d, over the d with ``C - diag(d)`` positive
semidefinite; its slope is ``s_i = (w_i^2 / z_i - w_i^2) / 2`` at the relaxation's minimum. A step
maximises ``s'd + mu (log det(C - diag(d)) + _INWARD sum log d)`` by one Newton
step: with ``S = (C - diag(d))^-1`` its gradient is ``s - mu diag(S) + ...`` and its curvature
``- mu S o S``. Whatever d a step ends at is valid, and stays valid for all nodes below.

Sources: Frangioni and Gentile, "SDP diagonalizations and perspective cuts for a class of
nonseparable MIQP", Operations Research Letters 35 (2007); Dong, Chen and Linderoth,
"Regularization vs. relaxation: a conic optimization perspective of statistical variable selection",
arXiv 1510.06083 (2015), on the d that is best; the log-det barrier is that of any interior point
method for semidefinite programmes (Vandenberghe and Boyd, "Semidefinite programming", SIAM Review
38 (1996)).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .subset_kernels import back_solve, factor, forward_solve
from .vector import FAST

__all__ = ["improve_diagonal", "is_definite"]

_EPS = float(np.finfo(np.float64).eps)
# weight of the barrier that keeps d positive, beside that of the determinant
_INWARD = 0.1
# a step is shortened to a share of itself, at most so often
_SHORTER = 0.6
_TRIES = 8


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def is_definite(C, free, f, d, L):  # type: ignore[no-untyped-def]
    """Whether ``C - diag(d)`` is positive definite beyond rounding; L gets its factor."""
    margin = 4.0 * f * _EPS
    for r in range(f):
        row = C[r]
        target = L[r]
        for q in range(r):
            target[q] = row[q]
        target[r] = row[r] * (1.0 - margin) - margin - d[free[r]]
    return factor(L, f)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _inverse(L, f, R, S):  # type: ignore[no-untyped-def]
    """S = (L L')^-1, lower triangle; R gets L^-1."""
    for i in range(f):
        row = L[i]
        out = R[i]
        for q in range(i):
            out[q] = 0.0
        for j in range(i):
            v = row[j]
            other = R[j]
            for q in range(j + 1):
                out[q] -= v * other[q]
        scale = 1.0 / row[i]
        for q in range(i):
            out[q] *= scale
        out[i] = scale
    for i in range(f):
        target = S[i]
        for q in range(i + 1):
            target[q] = 0.0
    for a in range(f):
        row = R[a]
        for i in range(a + 1):
            v = row[i]
            target = S[i]
            for q in range(i + 1):
                target[q] += v * row[q]


@njit(nogil=True, cache=True, error_model="numpy")
def improve_diagonal(C, free, f, d, w, z, mu, L, R, S, step, trial):  # type: ignore[no-untyped-def]
    """One Newton step for d (n,), on the free variables; whether it moved.

    w, z (f,): the relaxation's minimum. L, R, S (n, n), step and trial (n,): scratch.
    """
    if f == 0 or not mu > 0.0 or not is_definite(C, free, f, d, L):
        return False
    _inverse(L, f, R, S)
    for r in range(f):
        i = free[r]
        slope = 0.5 * w[r] * w[r] * (1.0 / z[r] - 1.0) if z[r] > 0.0 else 0.0
        step[r] = slope - mu * S[r, r] + mu * _INWARD / d[i]
        for q in range(r + 1):
            L[r, q] = mu * S[r, q] * S[r, q]
        L[r, r] += mu * _INWARD / (d[i] * d[i])
    if not factor(L, f):
        return False
    forward_solve(L, f, step)
    back_solve(L, f, step)
    share = 1.0
    for r in range(f):
        d_r = d[free[r]]
        if step[r] < 0.0:
            share = min(share, -0.9 * d_r / step[r])
    for _ in range(_TRIES):
        for r in range(f):
            trial[free[r]] = d[free[r]] + share * step[r]
        if is_definite(C, free, f, trial, L):
            for r in range(f):
                d[free[r]] = trial[free[r]]
            return True
        share *= _SHORTER
    return False
