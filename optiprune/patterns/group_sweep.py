"""One row with a pattern: the best members of every group, all other weights re-fitted.

A row's error with support S is ``c - b_S' H_SS^-1 b_S`` once its kept weights are re-fitted. The
row is cut into groups of M neighbours, of which each keeps as many as before. A move chooses the
members of one group anew, exactly: with the M weights W of the group, and R the rest of the
support, what is left is a best-subset problem of M variables,

    H' = H_WW - H_WR H_RR^-1 H_RW,   b' = b_W - H_WR H_RR^-1 b_R,

whose supports are enumerated (6 for 2:4, 70 for 4:8), or exchanged pair by pair where they are too
many. Sweeps over the groups go on until none changes: no group can then be chosen better by itself.

Nearly all of the time goes into ``P = H_SS^-1`` and ``H_OS P`` for the weights O outside, so groups
are taken in blocks of some 64 weights. Inside a block moves act on its own tableau, by the
symmetric sweep operator (Goodnight, "A tutorial on the SWEEP operator", The American Statistician
33(3), 1979); the large matrices then take all the block's moves in one product, and none if none
was made.
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
# rows of a product that are added before they leave the cache
_CHUNK = 48


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
    outside = np.flatnonzero(~mask)
    Z = np.empty((cols, inside.size))
    P = Z[: inside.size]
    P[:] = factor.T
    _mirror(P)
    np.matmul(H[np.ix_(outside, inside)], P, out=Z[inside.size :])
    columns = np.concatenate([inside, outside]).astype(np.int64)
    place = np.empty(cols, dtype=np.int64)
    place[columns] = np.arange(cols)
    change, passes = _sweep_row(
        H, b, Z, inside.size, columns, place, m, sweeps, max(1, _BLOCK // m), most
    )
    return place < inside.size, change, passes


@njit(nogil=True, cache=True)
def _mirror(P):  # type: ignore[no-untyped-def]
    """Copy the upper triangle to the lower."""
    k = P.shape[0]
    for i in range(k):
        for j in range(i):
            P[i, j] = P[j, i]


@njit(nogil=True, cache=True)
def _sweep_row(H, b, Z, k, columns, place, m, sweeps, per_block, most):  # type: ignore[no-untyped-def]
    """Sweeps of one row; ``Z``, ``columns`` and ``place`` are written.

    Rows of Z, (cols, k): P first, then ``H_OS P``, a row for every column outside. ``columns``
    (cols,) holds the column of each row (the first k: of each column of Z too), ``place`` (cols,)
    the row of each column.
    """
    cols = columns.size
    P = Z[:k]
    bs = b[columns[:k]]
    w = np.dot(P, bs)
    before = np.dot(bs, w)
    floor = _ROUNDING * abs(before)
    width = per_block * m
    T = np.empty((width + 1, width + 1))
    inside = np.empty(width, dtype=np.bool_)
    outer = np.empty(width, dtype=np.int64)
    across, V = np.empty((width, k)), np.empty((width, k))
    right, schur = np.empty((2 * width, k)), np.empty(width * width)
    product, factors = np.empty((_CHUNK, k)), np.empty(2 * width * cols)
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
                H, b, Z, k, w, bs, columns, place, first, n, T, inside, outer, across, V, schur
            )
            if o == 0 or o == n:
                continue
            if not _improve_block(
                T, H, first, n, m, inside, floor, most, small, scratch, chosen, trial, best
            ):
                continue
            moved = True
            _take_block(
                H, Z, k, columns, place, first, n, T, inside, outer[:o], across, V, right,
                product, factors,
            )  # fmt: skip
            for i in range(k):
                bs[i] = b[columns[i]]
            np.dot(P, bs, w)
        if not moved:
            break
    return before - np.dot(bs, w), passes


@njit(nogil=True, cache=True)
def _load_block(  # type: ignore[no-untyped-def]
    H, b, Z, k, w, bs, columns, place, first, n, T, inside, outer, across, V, schur
):
    """The tableau of columns ``first .. first + n``; how many of them are outside.

    T holds -P within the support, ``H_OS P`` across, Schur complements outside; its last row the
    weights and the residuals. ``across[:o]`` and ``V[:o]`` are ``H_OS`` and ``H_OS P`` in full.
    """
    o = 0
    for j in range(n):
        inside[j] = place[first + j] < k
        if not inside[j]:
            outer[o] = j
            o += 1
    if o == 0 or o == n:
        return o
    for a in range(o):
        row = H[first + outer[a]]
        V[a] = Z[place[first + outer[a]]]
        for i in range(k):
            across[a, i] = row[columns[i]]
    square = schur[: o * o].reshape((o, o))
    np.dot(across[:o], V[:o].T, square)
    for j in range(n):
        if inside[j]:
            s = place[first + j]
            T[j, n] = w[s]
            T[n, j] = w[s]
            for i in range(j + 1):
                if inside[i]:
                    T[i, j] = -Z[place[first + i], s]
                    T[j, i] = T[i, j]
    for a in range(o):
        j = outer[a]
        r = b[first + j] - np.dot(V[a], bs)
        T[j, n] = r
        T[n, j] = r
        for i in range(n):
            if inside[i]:
                T[i, j] = V[a, place[first + i]]
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
def _take_block(  # type: ignore[no-untyped-def]
    H, Z, k, columns, place, first, n, T, inside, outer, across, V, right, product, factors
):
    """Z for the support that the block has now.

    Let the slots L of P be lost and the columns E gained in their place. Losing adds
    ``-Z_:L P_LL^-1 P_L:``. With ``v = H_ER P`` on what remains, ``p = P_EE`` from the tableau and
    ``s`` the Schur complements of a row with E (``-v'`` for the rows of P itself), gaining adds
    ``-s p v`` and sets the slots L to ``s p``. Both are one product of two thin factors.
    """
    cols = columns.size
    lost = np.empty(n, dtype=np.int64)
    gained = np.empty(n, dtype=np.int64)
    r = 0
    for j in range(n):
        at = place[first + j]
        if at < k and not inside[j]:
            lost[r] = at
            r += 1
    known, v = np.empty((r, k)), np.empty((r, k))
    e = 0
    for a in range(outer.size):
        j = outer[a]
        if inside[j]:
            gained[e] = first + j
            known[e] = across[a]
            v[e] = V[a]
            e += 1
    inverse, corner, block = np.empty((r, r)), np.empty((r, r)), np.empty((r, r))
    gone = np.empty((r, k))
    for i in range(r):
        gone[i] = Z[lost[i]]
        for j in range(r):
            inverse[i, j] = Z[lost[i], lost[j]]
            corner[i, j] = v[i, lost[j]]
            block[i, j] = -T[gained[i] - first, gained[j] - first]
    _invert(inverse)
    first_part, second_part = right[:r], right[r : 2 * r]
    np.dot(inverse, gone, first_part)  # P_LL^-1 P_L:
    v -= np.dot(corner, first_part)
    for i in range(r):
        for j in range(r):
            v[i, lost[j]] = 0.0
    np.dot(block, v, second_part)
    # Schur complements of the rows outside with E, once L is lost
    schur = np.dot(Z[k:], known.T)
    mixed = np.dot(first_part, known.T)
    factor = factors[: 2 * r * cols].reshape((cols, 2 * r))
    for a in range(cols):
        for i in range(r):
            factor[a, i] = -Z[a, lost[i]]
        for i in range(r):
            if a < k:
                factor[a, r + i] = v[i, a]
            else:
                s = H[columns[a], gained[i]] - schur[a - k, i]
                for j in range(r):
                    s -= factor[a, j] * mixed[j, i]
                factor[a, r + i] = -s
    for start in range(0, cols, _CHUNK):
        stop = min(start + _CHUNK, cols)
        np.dot(factor[start:stop], right[: 2 * r], product[: stop - start])
        for a in range(start, stop):
            for c in range(k):
                Z[a, c] += product[a - start, c]
    for a in range(k, cols):
        for j in range(r):
            s = 0.0
            for i in range(r):
                s -= factor[a, r + i] * block[i, j]
            Z[a, lost[j]] = s
    for i in range(r):
        for c in range(k):
            Z[lost[i], c] = -second_part[i, c]
            Z[c, lost[i]] = -second_part[i, c]
    for i in range(r):
        for j in range(r):
            Z[lost[i], lost[j]] = block[i, j]
    rows = np.empty(r, dtype=np.int64)
    for i in range(r):
        rows[i] = place[gained[i]]
        out = columns[lost[i]]
        columns[lost[i]] = gained[i]
        place[gained[i]] = lost[i]
        columns[rows[i]] = out
        place[out] = rows[i]
    for i in range(r):
        for c in range(k):
            known[i, c] = H[columns[rows[i]], columns[c]]
    fresh = np.dot(known, Z[:k])
    for i in range(r):
        Z[rows[i]] = fresh[i]


@njit(nogil=True, cache=True)
def _invert(A):  # type: ignore[no-untyped-def]
    """Invert a symmetric positive definite matrix in place."""
    n = A.shape[0]
    for i in range(n):
        sweep(A, n - 1, i, False)
    for i in range(n):
        for j in range(n):
            A[i, j] = -A[i, j]
