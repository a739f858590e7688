"""One row with a pattern: the best members of every group, all other weights re-fitted.

A row's error with support S is ``c - b_S' H_SS^-1 b_S`` once its kept weights are re-fitted. The
row is cut into groups of M neighbours, of which each keeps as many as before. A move chooses the
members of one group anew, exactly: with the M weights W of the group, and R the rest of the
support, what is left is a best-subset problem of M variables,

    H' = H_WW - H_WR H_RR^-1 H_RW,   b' = b_W - H_WR H_RR^-1 b_R,

whose supports are enumerated (6 for 2:4, 70 for 4:8), or exchanged pair by pair where they are too
many. Sweeps over the groups go on until none changes: no group can then be chosen better by itself.

Nearly all of the time goes into ``P = H_SS^-1``, so groups are taken in blocks of some 64 weights.
What a block needs of P is one matrix product; inside it moves act on the block's own tableau, by
the symmetric sweep operator (Goodnight, "A tutorial on the SWEEP operator", The American
Statistician 33(3), 1979); P then takes all the block's moves at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.linalg.lapack import dpotrf, dpotri

from .group_members import best_members, exchange_members, few, sweep

__all__ = ["sweep_groups"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# weights of a block: the products with P are large enough for BLAS, the tableau stays in L1
_BLOCK = 64
# supports of a group that are enumerated; beyond, exchanges of pairs within it
_MOST = 1000
# gains below this share of the row's energy are rounding
_ROUNDING = 1e-11
_PASSES = 50


def sweep_groups(
    H: Floats, b: Floats, mask: Bools, m: int, sweeps: int, *, most: int = _MOST
) -> tuple[Bools, float, int]:
    """Improve a row's support, group by group.

    Parameters
    ----------
    H : (cols, cols) float64, positive definite on every support (damped)
    b : (cols,) float64
    mask : (cols,) bool, the support now; each group of ``m`` keeps its number
    m : weights of a group, a divisor of cols
    sweeps : passes over all groups, at most; fewer where one changes nothing
    most : supports of a group up to which all are looked at

    Returns
    -------
    mask : (cols,) bool
    change : of the row's error, re-fitted before and after; <= 0
    passes : sweeps done; less than ``sweeps`` says that the last one changed nothing

    A support on which H is singular comes back as it is, with change 0 and no pass.

    Raises
    ------
    ValueError
        ``m`` does not divide the row.
    """
    cols = mask.size
    if m < 1 or cols % m:
        raise ValueError(f"groups of {m} do not divide a row of {cols} weights")
    inside = np.flatnonzero(mask)
    if inside.size in (0, cols) or sweeps < 1:
        return mask.copy(), 0.0, 0
    # the upper triangle of a C-ordered copy is the lower one that LAPACK sees
    factor, info = dpotrf(H[np.ix_(inside, inside)].T, lower=1, overwrite_a=1, clean=0)
    if info == 0:
        factor, info = dpotri(factor, lower=1, overwrite_c=1)
    if info != 0:
        return mask.copy(), 0.0, 0
    P = factor.T
    columns = inside.astype(np.int64)
    slots = np.full(cols, -1, dtype=np.int64)
    slots[inside] = np.arange(inside.size)
    change, passes = _sweep_row(H, b, P, columns, slots, m, sweeps, max(1, _BLOCK // m), most)
    return slots >= 0, change, passes


@njit(nogil=True, cache=True)
def _sweep_row(H, b, P, columns, slots, m, sweeps, per_block, most):  # type: ignore[no-untyped-def]
    """Sweeps of one row; ``P`` (k, k; its upper triangle), ``columns`` and ``slots`` are written.

    ``columns`` (k,) holds the column in each slot of P, ``slots`` (cols,) the slot of each column
    or -1.
    """
    k, cols = columns.size, slots.size
    for i in range(k):
        for j in range(i):
            P[i, j] = P[j, i]
    bs = b[columns]
    w = np.dot(P, bs)
    before = np.dot(bs, w)
    floor = _ROUNDING * abs(before)
    width = per_block * m
    T = np.empty((width + 1, width + 1))
    inside = np.empty(width, dtype=np.bool_)
    outer = np.empty(width, dtype=np.int64)
    across, V = np.empty((width, k)), np.empty((width, k))
    left, right = np.empty((2 * width, k)), np.empty((2 * width, k))
    product, schur = np.empty((k, k)), np.empty(width * width)
    small, scratch = np.empty((m + 1, m + 1)), np.empty((m + 1, m + 1))
    chosen, trial = np.empty(m, dtype=np.bool_), np.empty(m, dtype=np.int64)
    best = np.empty(m, dtype=np.int64)
    passes = 0
    for _ in range(sweeps):
        passes += 1
        moved = False
        for first in range(0, cols, width):
            n = min(width, cols - first)
            o = _load_block(
                H, b, P, w, bs, columns, slots, first, n, T, inside, outer, across, V, schur
            )
            if o == 0 or o == n:
                continue
            if not _improve_block(
                T, H, first, n, m, inside, floor, most, small, scratch, chosen, trial, best
            ):
                continue
            moved = True
            _take_block(P, columns, slots, first, n, T, inside, outer[:o], V, left, right, product)
            for i in range(k):
                bs[i] = b[columns[i]]
            np.dot(P, bs, w)
        if not moved:
            break
    return before - np.dot(bs, w), passes


@njit(nogil=True, cache=True)
def _load_block(H, b, P, w, bs, columns, slots, first, n, T, inside, outer, across, V, schur):  # type: ignore[no-untyped-def]
    """The tableau of columns ``first .. first + n``; how many of them are outside.

    T holds -P within the support, ``H_OS P`` across, Schur complements outside; its last row the
    weights and the residuals. ``V[:o]`` is ``H_OS P`` in full.
    """
    k = columns.size
    o = 0
    for j in range(n):
        inside[j] = slots[first + j] >= 0
        if not inside[j]:
            outer[o] = j
            o += 1
    if o == 0 or o == n:
        return o
    for a in range(o):
        row = H[first + outer[a]]
        for i in range(k):
            across[a, i] = row[columns[i]]
    np.dot(across[:o], P, V[:o])
    square = schur[: o * o].reshape((o, o))
    np.dot(across[:o], V[:o].T, square)
    for j in range(n):
        if inside[j]:
            s = slots[first + j]
            T[j, n] = w[s]
            T[n, j] = w[s]
            for i in range(j + 1):
                if inside[i]:
                    T[i, j] = -P[slots[first + i], s]
                    T[j, i] = T[i, j]
    for a in range(o):
        j = outer[a]
        r = b[first + j] - np.dot(V[a], bs)
        T[j, n] = r
        T[n, j] = r
        for i in range(n):
            if inside[i]:
                T[i, j] = V[a, slots[first + i]]
                T[j, i] = T[i, j]
        for c in range(a + 1):
            i = outer[c]
            T[i, j] = H[first + i, first + j] - square[c, a]
            T[j, i] = T[i, j]
    T[n, n] = 0.0
    return o


@njit(nogil=True, cache=True)
def _improve_block(  # type: ignore[no-untyped-def]
    T, H, first, n, m, inside, floor, most, small, scratch, chosen, trial, best
):
    """Choose groups anew until none changes; T and ``inside`` follow. Whether any did."""
    ever = False
    for _ in range(_PASSES):
        moved = False
        for at in range(0, n, m):
            size = 0
            for i in range(m):
                chosen[i] = inside[at + i]
                size += chosen[i]
            if size == 0 or size == m:
                continue
            for i in range(m):
                for j in range(m):
                    small[i, j] = T[at + i, at + j]
                small[i, m] = T[at + i, n]
                small[m, i] = T[n, at + i]
            small[m, m] = 0.0
            if few(m, size, most):
                better = best_members(
                    small, H, first + at, m, size, chosen, floor, scratch, trial, best
                )
            else:
                better = exchange_members(small, H, first + at, m, chosen, floor)
            if not better:
                continue
            moved = True
            for i in range(m):
                if inside[at + i] and not chosen[i]:
                    sweep(T, n, at + i, True)
            for i in range(m):
                if chosen[i] and not inside[at + i]:
                    sweep(T, n, at + i, False)
                inside[at + i] = chosen[i]
        ever = ever or moved
        if not moved:
            break
    return ever


@njit(nogil=True, cache=True)
def _take_block(P, columns, slots, first, n, T, inside, outer, V, left, right, product):  # type: ignore[no-untyped-def]
    """P for the support that the block has now.

    Losing the slots L takes ``P_:L P_LL^-1 P_L:`` off; gaining the columns E in their place, with
    ``v = H_ER P`` on what remains and ``p = P_EE`` from the tableau, adds ``v' p v`` and borders
    the matrix.
    """
    k = columns.size
    lost = np.empty(n, dtype=np.int64)
    gained = np.empty(n, dtype=np.int64)
    r = 0
    for j in range(n):
        s = slots[first + j]
        if s >= 0 and not inside[j]:
            lost[r] = s
            r += 1
    e = 0
    for a in range(outer.size):
        j = outer[a]
        if inside[j]:
            gained[e] = j
            for i in range(k):
                right[r + e, i] = V[a, i]
            e += 1
    inverse = np.empty((r, r))
    for i in range(r):
        for c in range(k):
            right[i, c] = P[lost[i], c]
        for j in range(r):
            inverse[i, j] = P[lost[i], lost[j]]
    _invert(inverse)
    np.dot(inverse, right[:r], left[:r])
    corner, block = np.empty((r, r)), np.empty((r, r))
    for i in range(r):
        for j in range(r):
            corner[i, j] = right[r + i, lost[j]]
            block[i, j] = -T[gained[i], gained[j]]
    v = right[r : 2 * r]
    np.dot(corner, left[:r], left[r : 2 * r])
    for i in range(r):
        for c in range(k):
            v[i, c] -= left[r + i, c]
            left[i, c] = -left[i, c]
        for j in range(r):
            v[i, lost[j]] = 0.0
    np.dot(block, v, left[r : 2 * r])
    np.dot(left[: 2 * r].T, right[: 2 * r], product)
    for i in range(k):
        for c in range(k):
            P[i, c] += product[i, c]
    for i in range(r):
        for c in range(k):
            P[lost[i], c] = -left[r + i, c]
            P[c, lost[i]] = -left[r + i, c]
    for i in range(r):
        for j in range(r):
            P[lost[i], lost[j]] = block[i, j]
        slots[columns[lost[i]]] = -1
    for i in range(r):
        columns[lost[i]] = first + gained[i]
        slots[first + gained[i]] = lost[i]


@njit(nogil=True, cache=True)
def _invert(A):  # type: ignore[no-untyped-def]
    """Invert a symmetric positive definite matrix in place."""
    n = A.shape[0]
    for i in range(n):
        sweep(A, n - 1, i, False)
    for i in range(n):
        for j in range(n):
            A[i, j] = -A[i, j]
