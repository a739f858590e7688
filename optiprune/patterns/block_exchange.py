"""A band of rows whose weights are kept or pruned in whole blocks, all others re-fitted.

The rows of a band share a support S, so they share ``P = H_SS^-1`` as well, and what a block costs
is a sum over its rows. With the weights w_t (C, rows) of a kept block t, the residuals r_u of a
pruned block u, and ``B_tu = P_tS H_Su``,

    losing t costs       tr(w_t' P_tt^-1 w_t),
    taking u for it      tr(r' s^-1 r) less,   r = r_u + B_tu' P_tt^-1 w_t,
                                               s = H_uu - H_uS B_:u + B_tu' P_tt^-1 B_tu:

the block form of the costs of Optimal Brain Surgeon (Hassibi and Stork 1992; for blocks Frantar and
Alistarh 2022, "Optimal brain compression", arXiv:2208.11580, which removes and never exchanges).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.linalg import LinAlgError, cho_factor, cho_solve

__all__ = ["exchange_blocks"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# blocks of either side that are tried first: the cheapest to lose, the best to gain
_FIRST = 12
_ROUNDING = 1e-10  # of the band's energy
_COLLINEAR = 1e-10


def exchange_blocks(
    H: Floats, b: Floats, kept: Bools, width: int, steps: int
) -> tuple[Bools, float, int]:
    """Exchange a kept block for a pruned one, the best pair first, while the error falls.

    Parameters
    ----------
    H : (cols, cols) float64, positive definite on every support (damped)
    b : (rows, cols) float64, targets of the band's rows
    kept : (cols / width,) bool, the blocks kept now
    width : weights of a block in one row
    steps : exchanges, at most

    Returns
    -------
    kept : (cols / width,) bool, as many blocks as before
    change : of the band's error, re-fitted before and after; <= 0
    done : exchanges made; fewer than ``steps`` says that no exchange lowers the error further

    A band with nothing to exchange, or a support on which H is singular, comes back as it is.

    Raises
    ------
    ValueError
        Blocks of that width do not fill the rows.
    """
    cols = H.shape[0]
    if width < 1 or kept.size * width != cols:
        raise ValueError(f"{kept.size} blocks of {width} do not fill a row of {cols} weights")
    kept = kept.copy()
    if not kept.any() or kept.all():
        return kept, 0.0, 0
    try:
        T = _tableau(H, b, np.repeat(kept, width))
    except LinAlgError:
        return kept, 0.0, 0
    diagonal = H.diagonal().copy()
    inside = np.repeat(kept, width)
    floor = _ROUNDING * float((T[inside, cols:] * b[:, inside].T).sum())
    total = 0.0
    for done in range(steps):
        pair = _best_pair(T, kept, width, diagonal, floor)
        if pair is None:
            return kept, total, done
        leave, enter, change = pair
        for block, back in ((leave, True), (enter, False)):
            _sweep_block(T, block * width, width, back)
            kept[block] = not back
        total += change
    return kept, total, steps


def _tableau(H: Floats, b: Floats, inside: Bools) -> Floats:
    """The swept form, (cols, cols + rows): -P inside, B across, Schur complements outside.

    The columns from ``cols`` on hold weights inside and residuals outside.
    """
    cols = H.shape[0]
    T = np.empty((cols, cols + len(b)))
    s, o = np.flatnonzero(inside), np.flatnonzero(~inside)
    factor = cho_factor(H[np.ix_(s, s)], lower=True, check_finite=False)
    P = cho_solve(factor, np.eye(s.size), check_finite=False)
    B = P @ H[np.ix_(s, o)]
    w = P @ b[:, s].T
    T[np.ix_(s, s)] = -P
    T[np.ix_(s, o)] = B
    T[np.ix_(o, s)] = B.T
    T[np.ix_(o, o)] = H[np.ix_(o, o)] - H[np.ix_(o, s)] @ B
    T[s, cols:] = w
    T[o, cols:] = b[:, o].T - H[np.ix_(o, s)] @ w
    return T


def _sweep_block(T: Floats, at: int, width: int, back: bool) -> None:
    """Sweep ``width`` variables from ``at`` on in, or back out."""
    block = slice(at, at + width)
    inverse = np.linalg.inv(T[block, block])
    row = inverse @ T[block]
    T -= T[:, block].copy() @ row
    sign = -1.0 if back else 1.0
    T[block] = sign * row
    T[:, block] = sign * row[:, : T.shape[0]].T
    T[block, block] = -inverse


def _best_pair(
    T: Floats, kept: Bools, width: int, diagonal: Floats, floor: float
) -> tuple[int, int, float] | None:
    """(leave, enter, change) of the best exchange among the likely ones, else among all."""
    loss, gain = _alone(T, kept, width, diagonal)
    leave = np.flatnonzero(kept)
    leave = leave[np.argsort(loss[leave], kind="stable")]
    enter = np.flatnonzero(~kept)
    enter = enter[np.argsort(-gain[enter], kind="stable")]
    few = _FIRST
    while True:
        a, e, change = _exchanges(T, leave[:few], enter[:few], width, diagonal)
        if change < -floor:
            return int(a), int(e), float(change)
        if few >= max(leave.size, enter.size):
            return None
        few = max(leave.size, enter.size)


@njit(nogil=True, cache=True)
def _factor(A, diagonal, at):  # type: ignore[no-untyped-def]
    """Cholesky factor of A in its lower triangle; False if it is singular."""
    n = A.shape[0]
    for i in range(n):
        for j in range(i + 1):
            v = A[i, j]
            for e in range(j):
                v -= A[i, e] * A[j, e]
            if i == j:
                if v <= _COLLINEAR * diagonal[at + i]:
                    return False
                A[i, i] = np.sqrt(v)
            else:
                A[i, j] = v / A[j, j]
    return True


@njit(nogil=True, cache=True)
def _squares(L, x):  # type: ignore[no-untyped-def]
    """``tr(x' A^-1 x)`` with the factor L of A; x (n, rows) is overwritten."""
    total = 0.0
    n, rows = x.shape
    for i in range(n):
        for e in range(i):
            f = L[i, e]
            for r in range(rows):
                x[i, r] -= f * x[e, r]
        for r in range(rows):
            x[i, r] /= L[i, i]
            total += x[i, r] * x[i, r]
    return total


@njit(nogil=True, cache=True)
def _alone(T, kept, width, diagonal):  # type: ignore[no-untyped-def]
    """What losing each kept block costs and what taking each pruned one gains, (blocks,) each."""
    cols = T.shape[0]
    loss, gain = np.zeros(kept.size), np.zeros(kept.size)
    nothing = np.zeros(cols)
    A = np.empty((width, width))
    x = np.empty((width, T.shape[1] - cols))
    for t in range(kept.size):
        at = t * width
        sign = -1.0 if kept[t] else 1.0
        for i in range(width):
            for j in range(width):
                A[i, j] = sign * T[at + i, at + j]
            x[i] = T[at + i, cols:]
        if _factor(A, nothing if kept[t] else diagonal, at):
            value = _squares(A, x)
        else:
            value = np.inf if kept[t] else 0.0
        if kept[t]:
            loss[t] = value
        else:
            gain[t] = value
    return loss, gain


@njit(nogil=True, cache=True)
def _exchanges(T, leave, enter, width, diagonal):  # type: ignore[no-untyped-def]
    """The best exchange between the blocks given: (leave, enter, change); (-1, -1, inf) if none."""
    cols = T.shape[0]
    rows = T.shape[1] - cols
    nothing = np.zeros(cols)
    P = np.empty((width, width))
    z = np.empty((width, rows))
    B = np.empty((width, width))
    s = np.empty((width, width))
    r = np.empty((width, rows))
    best, first, second = np.inf, -1, -1
    for t in leave:
        at = t * width
        for i in range(width):
            for j in range(width):
                P[i, j] = -T[at + i, at + j]
            z[i] = T[at + i, cols:]
        if not _factor(P, nothing, at):
            continue
        loss = _squares(P, z)  # z = L^-1 w_t from here on
        for u in enter:
            to = u * width
            for i in range(width):  # B = L^-1 B_tu
                for j in range(width):
                    v = T[at + i, to + j]
                    for e in range(i):
                        v -= P[i, e] * B[e, j]
                    B[i, j] = v / P[i, i]
            for i in range(width):
                for j in range(i + 1):
                    v = T[to + i, to + j]
                    for e in range(width):
                        v += B[e, i] * B[e, j]
                    s[i, j] = v
                for c in range(rows):
                    r[i, c] = T[to + i, cols + c]
                for e in range(width):
                    f = B[e, i]
                    for c in range(rows):
                        r[i, c] += f * z[e, c]
            if not _factor(s, diagonal, to):
                continue
            change = loss - _squares(s, r)
            if change < best:
                best = change
                first = t
                second = u
    return first, second, best
