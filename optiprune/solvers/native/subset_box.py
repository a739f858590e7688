"""The bound of a node with finite bounds on the weights, where `subset_kernels` has none.

A member that is in has been minimised out there as if it were unbounded. Here it stays, with d = 0:
the dual bound at a point w, over in and free variables, is

    - 1/2 w'(H - D)w - (sum of h_i over those in) - (sum of the ``need`` largest h_i of the free),

with ``h_i = |p_i| M_i`` for those in, ``p = b - (H - D)w``. The point is found by descent along
coordinates for fixed z, within ``|w_i| <= M_i z_i``; the bound is valid wherever it stops.

Source: Atamtürk and Gómez, "Rank-one convexification for sparse regression", arXiv 1901.10334
(2019), on relaxations with bounded weights; Hazimeh, Mazumder and Saab, "Sparse regression at
scale: branch-and-bound rooted in first-order optimization", Mathematical Programming 196 (2022), on
bounds by coordinate descent.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .relax_kernels import smallest
from .vector import FAST

__all__ = ["box_bound"]

_SWEEPS = 60
_CHANGE = 1e-9


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def box_bound(H, b, M, fix, d, free, f, need, z, w, r, share, buffer, cutoff):  # type: ignore[no-untyped-def]
    """The bound of the node that ``fix`` describes; w (n,) is the start, and ends at the point.

    free, z (f,): free variables by place, with the z that they are given. r, share, buffer (n,):
    scratch.
    """
    n = fix.shape[0]
    for i in range(n):
        share[i] = 1.0 if fix[i] == 1 else 0.0
        r[i] = b[i]
    for a in range(f):
        share[free[a]] = z[a]
    for i in range(n):
        most = M[i] * share[i]
        w[i] = min(max(w[i], -most), most)
        if w[i] != 0.0:
            row = H[i]
            for j in range(n):
                r[j] -= w[i] * row[j]
    best = -np.inf
    for sweep in range(_SWEEPS):
        moved = 0.0
        for i in range(n):
            if share[i] > 0.0:
                extra = d[i] * (1.0 / share[i] - 1.0) if fix[i] < 0 else 0.0
                most = M[i] * share[i]
                value = w[i] + (r[i] - extra * w[i]) / (H[i, i] + extra)
                value = min(max(value, -most), most)
                step = value - w[i]
                if step != 0.0:
                    w[i] = value
                    moved = max(moved, abs(step))
                    row = H[i]
                    for j in range(n):
                        r[j] -= step * row[j]
        if sweep % 10 == 9 or moved <= _CHANGE:
            total = 0.0
            count = 0
            for i in range(n):
                if fix[i] == 1:
                    total -= 0.5 * w[i] * (b[i] - r[i]) + abs(r[i]) * M[i]
                elif fix[i] < 0:
                    p = r[i] + d[i] * w[i]
                    total -= 0.5 * w[i] * (b[i] - p)
                    a = abs(p)
                    if a > d[i] * M[i]:
                        h = a * M[i] - 0.5 * d[i] * M[i] * M[i]
                    else:
                        h = 0.5 * p * p / d[i]
                    buffer[count] = -h
                    count += 1
            if need < count and need > 0:
                smallest(buffer, count, need - 1)
            for c in range(min(need, count)):
                total += buffer[c]
            best = max(best, total)
            if best >= cutoff or moved <= _CHANGE:
                break
    return best
