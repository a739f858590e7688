"""The best members of one group of a pattern: kernels over its small tableau.

The tableau, (m + 1, m + 1), is that of `optiprune.patterns.group_sweep`: -P within the support, B
across, Schur complements outside; row and column m hold the weights and the residuals.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["best_members", "exchange_members", "few", "sweep"]

# a Schur complement below this share of its diagonal entry is rounding: such a support is left out
_COLLINEAR = 1e-10
# exchanges of a group, in units of its weights: rounding must not go round in circles
_EXCHANGES = 50


@njit(nogil=True, cache=True)
def sweep(T, n, i, back):  # type: ignore[no-untyped-def]
    """Sweep variable i of the leading ``n + 1`` rows in, or back out."""
    d = T[i, i]
    pivot = T[i]
    for a in range(n + 1):
        if a != i:
            f = T[a, i] / d
            row = T[a]
            for c in range(n + 1):
                row[c] -= f * pivot[c]
    sign = -1.0 if back else 1.0
    for a in range(n + 1):
        v = sign * pivot[a] / d
        pivot[a] = v
        T[a, i] = v
    pivot[i] = -1.0 / d


@njit(nogil=True, cache=True)
def few(m, size, most):  # type: ignore[no-untyped-def]
    """Whether C(m, size) is at most ``most``."""
    count = 1
    for i in range(min(size, m - size)):
        count = count * (m - i) // (i + 1)
        if count > most:
            return False
    return True


@njit(nogil=True, cache=True)
def best_members(small, H, at, m, size, chosen, floor, L, trial, best):  # type: ignore[no-untyped-def]
    """All supports of a group; ``chosen`` becomes the best if it gains more than ``floor``.

    Supports come in lexicographic order and share the rows of their Cholesky factors as far as
    they agree: row d of ``L`` holds factor row and, last, the forward solution z; a support's gain
    is the sum of the squares of z.
    """
    for i in range(m):
        if chosen[i]:
            sweep(small, m, i, True)
    now = -1.0
    highest = -1.0
    for d in range(size):
        trial[d] = d
    done = 0  # rows of L that hold for this support
    while True:
        ok = True
        for d in range(done, size):
            i = trial[d]
            for c in range(d):
                v = small[i, trial[c]]
                for e in range(c):
                    v -= L[d, e] * L[c, e]
                L[d, c] = v / L[c, c]
            pivot = small[i, i]
            z = small[m, i]
            for e in range(d):
                pivot -= L[d, e] * L[d, e]
                z -= L[d, e] * L[e, m]
            if pivot <= _COLLINEAR * H[at + i, at + i]:
                ok = False
                for e in range(d + 1, size):  # the next support changes this member or one before
                    trial[e] = m - size + e
                break
            L[d, d] = np.sqrt(pivot)
            L[d, m] = z / L[d, d]
        if ok:
            gain = 0.0
            same = True
            for d in range(size):
                gain += L[d, m] * L[d, m]
                same = same and chosen[trial[d]]
            if same:
                now = gain
            if gain > highest:
                highest = gain
                for d in range(size):
                    best[d] = trial[d]
        d = size - 1
        while d >= 0 and trial[d] == m - size + d:
            d -= 1
        if d < 0:
            break
        trial[d] += 1
        for e in range(d + 1, size):
            trial[e] = trial[e - 1] + 1
        done = d
    if now < 0.0 or highest <= now + floor:
        return False
    chosen[:] = False
    for d in range(size):
        chosen[best[d]] = True
    return True


@njit(nogil=True, cache=True)
def exchange_members(small, H, at, m, chosen, floor):  # type: ignore[no-untyped-def]
    """The best exchange of two members of a group, again and again; whether there was one."""
    ever = False
    for _ in range(_EXCHANGES * m):
        least = -floor
        leave = -1
        enter = -1
        for i in range(m):
            if not chosen[i]:
                continue
            p = -small[i, i]
            w = small[i, m]
            for j in range(m):
                if chosen[j]:
                    continue
                s = small[j, j] + small[i, j] * small[i, j] / p
                if s <= _COLLINEAR * H[at + j, at + j]:
                    continue
                r = small[j, m] + small[i, j] * w / p
                change = w * w / p - r * r / s
                if change < least:
                    least = change
                    leave = i
                    enter = j
        if leave < 0:
            break
        sweep(small, m, leave, True)
        sweep(small, m, enter, False)
        chosen[leave] = False
        chosen[enter] = True
        ever = True
    return ever
