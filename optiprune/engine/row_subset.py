"""One output row of a layer as a best-subset problem: which weights to keep when re-fitted.

With support S the row's error after the refit is ``min_w w'Hw - 2 b'w + const`` over w on S. A
batch takes some weights of S and some outside; all others of S are re-fitted whatever the batch
decides, which leaves a problem of the batch's own size: with R = S without the batch W,

    H' = H_WW - H_WR H_RR^-1 H_RW,   b' = b_W - H_WR H_RR^-1 b_R,   supports of size |S & W|.

All of it comes from the factor of H_SS (Hassibi and Stork 1992 for the costs of single weights:
losing p costs ``w_p^2 / [H_SS^-1]_pp``, taking q gains its squared residual over its Schur
complement).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky
from scipy.linalg.lapack import dtrtri

from optiprune.problems import MIQP

__all__ = ["SubsetBatch", "subset_batch"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# a Schur complement below this share of its diagonal entry is rounding: the weight gains nothing
_COLLINEAR = 1e-9
# weights outside the support that are priced exactly, in units of the batch
_PRICED = 2


@dataclass(frozen=True, slots=True, eq=False)
class SubsetBatch:
    """A batch of a row: ``index`` (n,) int64 ascending, the problem over it, the support now.

    ``problem.energy(x)`` is the change of the row's error, re-fitted before and after;
    ``problem.energy(x0) = 0``.
    """

    index: npt.NDArray[np.int64]
    problem: MIQP
    x0: npt.NDArray[np.int8]


def subset_batch(H: Floats, b: Floats, mask: Bools, size: int) -> SubsetBatch | None:
    """The weights of a row that are cheapest to lose, and those that gain most, half each.

    Parameters
    ----------
    H : (cols, cols) float64, positive semidefinite; damp it so that it is definite on the support
    b : (cols,) float64
    mask : (cols,) bool
    size : weights in the batch, at most

    Returns None where there is nothing to exchange, or H is singular on the support.
    """
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    if len(inside) == 0 or len(outside) == 0:
        return None
    try:
        factor = cholesky(H[np.ix_(inside, inside)], lower=True, check_finite=False)
    except LinAlgError:
        return None
    root, _ = dtrtri(factor, lower=1)
    w = root.T @ (root @ b[inside])
    lose = w * w / np.einsum("ij,ij->j", root, root)
    residual = b[outside] - H[np.ix_(outside, inside)] @ w
    # a Schur complement is no larger than the diagonal entry: price those that gain most by it
    live = H.diagonal()[outside]
    least = np.divide(residual * residual, live, out=np.zeros_like(residual), where=live > 0)
    priced = np.sort(_first(-least, _PRICED * size))
    outside, residual = outside[priced], residual[priced]
    cross = root @ H[np.ix_(inside, outside)]
    schur = H.diagonal()[outside] - np.einsum("ij,ij->j", cross, cross)
    apart = schur > _COLLINEAR * H.diagonal()[outside]
    gain = np.where(apart, residual * residual / np.where(apart, schur, 1.0), 0.0)

    leave = np.sort(_first(lose, size // 2))
    enter = np.sort(_first(-gain, size - len(leave)))
    # P_CC of those that may leave, and what remains of them and of the others without them
    out = root[:, leave]
    block = cho_factor(out.T @ out, lower=True, check_finite=False)
    base = cho_solve(block, np.eye(len(leave)), check_finite=False)
    coupling = out.T @ cross[:, enter]
    n, m = len(leave), len(leave) + len(enter)
    small, linear = np.empty((m, m)), np.empty(m)
    small[:n, :n] = base
    small[:n, n:] = base @ coupling
    small[n:, :n] = small[:n, n:].T
    rest = H[np.ix_(outside[enter], outside[enter])] - cross[:, enter].T @ cross[:, enter]
    small[n:, n:] = rest + coupling.T @ small[:n, n:]
    linear[:n] = base @ w[leave]
    linear[n:] = residual[enter] + coupling.T @ linear[:n]
    index = np.concatenate([inside[leave], outside[enter]])
    order = np.argsort(index)
    x0 = (order < n).astype(np.int8)
    # what those that may leave contribute now
    now = float(linear[:n] @ w[leave])
    small = small[np.ix_(order, order)]
    problem = MIQP(small + small.T, 2.0 * linear[order], k=n, offset=now)
    return SubsetBatch(index[order], problem, x0)


def _first(cost: Floats, count: int) -> npt.NDArray[np.intp]:
    """Positions of the least costs; ties go to the lower position."""
    return np.argsort(cost, kind="stable")[:count]
