"""Diagonals that make a binary quadratic convex without changing it on binaries.

``x_i^2 = x_i``, so ``a'x + 1/2 x'Jx = (a - d/2)'x + 1/2 x'(J + diag(d))x`` for every d. The smaller
d, the tighter the relaxation; it has to be large enough that ``J + diag(d)`` is positive
semidefinite along the directions that keep the counts. `spectral_diagonal` shifts all of it by one
eigenvalue; `semidefinite_diagonal` takes the best d there is.

Source: Hammer and Rubin, "Some remarks on quadratic programming with 0-1 variables", RIRO 4 (1970);
Billionnet, Elloumi and Plateau, "Improving the performance of standard solvers for quadratic 0-1
programs by a tight convex reformulation: the QCR method", Discrete Applied Mathematics 157 (2009).
The semidefinite programme is solved by the boundary point method of Povh, Rendl and Wiegele,
Computing 78 (2006).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

__all__ = ["Directions", "semidefinite_diagonal", "spectral_diagonal"]

_Array = npt.NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """The subspace of (t, v) with ``sum of v over group g = k_g t``, and its part with t = 0.

    Attributes
    ----------
    homogeneous : (n + 1, n + 1 - n_groups) orthonormal columns; row 0 is t
    tangent : (n, n - n_groups) orthonormal columns: changes that keep every count
    """

    homogeneous: _Array
    tangent: _Array

    @classmethod
    def of(cls, n: int, starts: npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> Directions:
        """For contiguous groups ``starts[g] : starts[g + 1]``; no groups when k is empty."""
        groups = len(k)
        if groups == 0:
            return cls(np.eye(n + 1), np.eye(n))
        rows = np.zeros((groups, n + 1))
        for g in range(groups):
            rows[g, 1 + starts[g] : 1 + starts[g + 1]] = 1.0
            rows[g, 0] = -float(k[g])
        whole = np.linalg.qr(rows.T, mode="complete")[0][:, groups:]
        within = np.linalg.qr(rows[:, 1:].T, mode="complete")[0][:, groups:]
        return cls(np.ascontiguousarray(whole), np.ascontiguousarray(within))

    def make_convex(self, J: _Array, d: _Array) -> _Array:
        """d shifted by one number so that J + diag(d) is just positive semidefinite along here.

        Takes a margin for the rounding of the eigenvalue. O(n^3).
        """
        V = self.tangent
        if V.shape[1] == 0:
            return d
        A = V.T @ (J @ V) + (V.T * d) @ V
        A = 0.5 * (A + A.T)
        least = float(np.linalg.eigvalsh(A)[0])
        return np.asarray(d - least + 16.0 * len(d) * _EPS * float(np.linalg.norm(A)))


def spectral_diagonal(J: _Array, own: _Array, directions: Directions) -> list[_Array]:
    """Diagonals after one eigenvalue each: uniform, and ``own`` (the problem's) shifted."""
    return [directions.make_convex(J, d) for d in (np.zeros(len(own)), np.asarray(own))]


def semidefinite_diagonal(
    J: _Array,
    a: _Array,
    directions: Directions,
    *,
    iterations: int,
    deadline: float = np.inf,
    tolerance: float = 1e-4,
) -> _Array | None:
    """The d whose relaxation bounds best, to some accuracy, made convex; shape (n,).

    Parameters
    ----------
    J : (n, n) couplings, zero diagonal; a : (n,) linear terms; the energy is a'x + 1/2 x'Jx
    iterations : at most; each is one eigenvalue decomposition of order n + 1 - n_groups
    deadline : value of `time.perf_counter` to stop at; None is returned if nothing useful is done
        by then

    Notes
    -----
    ``min <C, Z>  s.t.  diag(X) = x, Z psd`` over ``[[1, x'], [x, X]] = W Z W'`` with W the
    homogeneous directions, which makes X's rows obey the counts. The multipliers of diag(X) = x
    are d, up to sign and a factor 2. An inexact d is still valid: `Directions.make_convex` ends it.
    """
    n = len(a)
    W = directions.homogeneous
    w0, R = W[0], W[1:]
    scale = max(float(np.abs(J).max(initial=0.0)) / 2, float(np.abs(a).max(initial=0.0)) / 2)
    if n == 0 or scale == 0.0:
        return np.zeros(n)
    C = R.T @ (0.5 / scale * J) @ R
    cross = np.outer(w0, R.T @ (0.5 / scale * a))
    C += cross + cross.T

    def apply(Z: _Array) -> _Array:
        RZ = R @ Z
        return np.concatenate([[w0 @ Z @ w0], np.einsum("ij,ij->i", RZ, R) - RZ @ w0])

    def adjoint(y: _Array) -> _Array:
        c = 0.5 * np.outer(w0, R.T @ y[1:])
        return np.asarray((R.T * y[1:]) @ R - c - c.T + y[0] * np.outer(w0, w0))

    normal = _normal_matrix(w0, R)
    try:
        factor = cho_factor(normal + 1e-12 * np.trace(normal) / len(normal) * np.eye(n + 1))
    except LinAlgError:
        return None
    target = np.zeros(n + 1)
    target[0] = 1.0
    size = C.shape[0]
    Z, S = np.zeros((size, size)), np.zeros((size, size))
    sigma = float(np.sqrt(n))
    y = np.zeros(n + 1)
    reference = 1.0 + float(np.linalg.norm(C))
    for step in range(iterations):
        began = time.perf_counter()
        y = cho_solve(factor, apply(C - S) + (target - apply(Z)) / sigma)
        values, vectors = np.linalg.eigh(C - adjoint(y) - Z / sigma)
        split = int(np.searchsorted(values, 0.0, side="right"))
        upper = vectors[:, split:] * np.sqrt(values[split:])
        lower = vectors[:, :split] * np.sqrt(-values[:split])
        S, Z = upper @ upper.T, sigma * (lower @ lower.T)
        if step % 5 == 4:
            primal = float(np.linalg.norm(apply(Z) - target)) / 2.0
            dual = float(np.linalg.norm(adjoint(y) + S - C)) / reference
            if max(primal, dual) < tolerance:
                break
            # the weight of the two residuals against each other
            if primal > 2.0 * dual:
                sigma /= 1.15
            elif dual > 2.0 * primal:
                sigma *= 1.15
        now = time.perf_counter()
        # room for one more like this one, and for the eigenvalues of the end
        if now + 3.0 * (now - began) > deadline:
            if step < 20:
                return None
            break
    return directions.make_convex(J, -2.0 * scale * y[1:])


def _normal_matrix(w0: _Array, R: _Array) -> _Array:
    """Inner products of the constraint matrices ``w0 w0'`` and ``r_i r_i' - sym(w0 r_i')``."""
    n = len(R)
    G, r0, s = R @ R.T, R @ w0, float(w0 @ w0)
    out = np.empty((n + 1, n + 1))
    out[0, 0] = s * s
    out[0, 1:] = out[1:, 0] = r0**2 - s * r0
    out[1:, 1:] = G**2 - G * r0[:, None] - G * r0[None, :] + 0.5 * (s * G + np.outer(r0, r0))
    return out
