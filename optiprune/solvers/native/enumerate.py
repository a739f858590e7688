"""Kernels that visit every assignment once, resumable after any number of them.

Unconstrained and budgeted problems walk a Gray code, one flip a step, and recompute their fields
every few thousand steps. Fixed cardinalities and supports descend a tree of decisions in which
every level holds its own partial energy, so that nothing can drift.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from optiprune.problems.boxqp import RANK

__all__ = ["gray_walk", "support_tree", "tree_walk"]

# Gray-code steps between two recomputations
_REFRESH = 1 << 14
# additions and multiplications of a descent after which it returns, for the clock to be looked at:
# about a millisecond, where a single descent to a leaf can take seconds
_WORK = 1 << 20
_EPS = float(np.finfo(np.float64).eps)
# a pivot above this share of its diagonal entry leaves no doubt about the rank (as in `boxqp`)
_SURE = 1e-4


@njit(nogil=True, cache=True)
def _refresh(J, a, AT, x, h, use):  # type: ignore[no-untyped-def]
    """Fields, use and energy from scratch."""
    n = x.shape[0]
    energy = 0.0
    use[:] = 0.0
    for i in range(n):
        v = a[i]
        for j in range(n):
            if x[j]:
                v += J[i, j]
        h[i] = v
        if x[i]:
            energy += 0.5 * (v + a[i])
            for r in range(use.shape[0]):
                use[r] += AT[i, r]
    return energy


@njit(nogil=True, cache=True)
def _feasible(AT, low, high, x):  # type: ignore[no-untyped-def]
    """The rule of `BudgetQP.violation`: excess up to 1e-9 of the row's scale counts as none."""
    for r in range(low.shape[0]):
        use = 0.0
        moved = 0.0
        for i in range(x.shape[0]):
            if x[i]:
                use += AT[i, r]
                moved += abs(AT[i, r])
        # an infinite limit is never exceeded: -inf > inf is False
        if use - high[r] > 1e-9 * max(moved, abs(high[r])):
            return False
        if low[r] - use > 1e-9 * max(moved, abs(low[r])):
            return False
    return True


@njit(nogil=True, cache=True)
def gray_walk(J, a, AT, low, high, slack, x, h, use, best_x, counters, floats, steps, target):  # type: ignore[no-untyped-def]
    """Visit assignments in the order of the reflected Gray code, budgets optional.

    counters: [assignments visited, number of them in all]; floats: [energy, best energy]. A call
    with nothing visited yet begins at x = 0. ``slack`` (m,) is a generous rounding margin of
    ``use``; what passes it is checked again from scratch. Returns how many were visited.
    """
    done = 0
    total = counters[1]
    while done < steps and counters[0] < total:
        t = counters[0]
        if t == 0:
            x[:] = 0
            floats[0] = _refresh(J, a, AT, x, h, use)
        else:
            i = 0
            while not (t >> i) & 1:
                i += 1
            s = 1.0 - 2.0 * x[i]
            floats[0] += s * h[i]
            x[i] = 1 - x[i]
            if t % _REFRESH == 0:
                floats[0] = _refresh(J, a, AT, x, h, use)
            else:
                for j in range(h.shape[0]):
                    h[j] += s * J[i, j]
                for r in range(use.shape[0]):
                    use[r] += s * AT[i, r]
        counters[0] += 1
        done += 1
        if floats[0] < floats[1]:
            fits = True
            for r in range(use.shape[0]):
                if use[r] > high[r] + slack[r] or use[r] < low[r] - slack[r]:
                    fits = False
                    break
            if fits and (use.shape[0] == 0 or _feasible(AT, low, high, x)):
                floats[1] = floats[0]
                best_x[:] = x
                if floats[1] <= target:
                    break
    return done


@njit(nogil=True, cache=True)
def tree_walk(  # type: ignore[no-untyped-def]
    J, a, group, ends, need, x, tried, ones, energy, best_x, counters, floats, steps, target,
):  # fmt: skip
    """Visit every assignment with ``need[g]`` ones in each group (groups are contiguous).

    counters: [depth, ones so far]; depth -1 means finished. ``energy`` (n + 1,) is the energy of
    the decisions above each depth, ``tried`` (n + 1,) how many values a depth has had. floats:
    [unused, best energy]. Returns how many assignments were visited, fewer than ``steps`` when it
    has worked for long.
    """
    n = a.shape[0]
    d = counters[0]
    m = counters[1]
    done = 0
    work = 0
    while d >= 0 and done < steps and work < _WORK:
        work += 1
        if d == n:
            done += 1
            if energy[n] < floats[1]:
                floats[1] = energy[n]
                best_x[:] = x
            d -= 1
            if floats[1] <= target:
                break
            continue
        g = group[d]
        if tried[d] == 0:
            tried[d] = 1
            if ends[g] - d > need[g]:  # enough left to reach the count without this one
                energy[d + 1] = energy[d]
                d += 1
                tried[d] = 0
        elif tried[d] == 1:
            tried[d] = 2
            if need[g] > 0:
                e = energy[d] + a[d]
                work += m
                for q in range(m):
                    e += J[d, ones[q]]
                energy[d + 1] = e
                x[d] = 1
                ones[m] = d
                m += 1
                need[g] -= 1
                d += 1
                tried[d] = 0
        else:
            if x[d]:
                x[d] = 0
                m -= 1
                need[g] += 1
            d -= 1
    counters[0] = d
    counters[1] = m
    return done


@njit(nogil=True, cache=True)
def _slack(H, M, k, ridge):  # type: ignore[no-untyped-def]
    """(stretch, shift): no support's true energy is below ``stretch * energy - shift``.

    ``energy`` has at most the ridge on H; true weights w gain ``RANK / 2`` times their squares, in
    units of a diagonal of 1, unless a bound M stops them, and then they are within M.
    """
    bounded = False
    largest = 0.0
    for i in range(M.shape[0]):
        if M[i] > 0.0 and H[i, i] > 0.0:
            bounded = bounded or M[i] < np.inf
            largest = max(largest, H[i, i] * M[i] * M[i])
    if bounded:
        return 1.0, ridge * k * largest
    return 1.0 / max(1.0 - 2.0 * ridge / RANK, 0.1), 0.0


@njit(nogil=True, cache=True)
def support_tree(  # type: ignore[no-untyped-def]
    H, b, M, k, x, tried, rows, L, z, w, size, rank, energy, best_x, counters, floats, steps,
    target,
):  # fmt: skip
    """Visit every support of size k, with a Cholesky factor that grows and shrinks by a row.

    ``size[d]`` and ``rank[d]`` count the members and the pivots above depth d. Small pivots get a
    ridge of the size of rounding, so that ``energy`` is below that of `MIQP.energy`, by no more
    than `_slack`, where that leaves directions out. counters: [depth, flag]; flag 1: the leaf in x
    must be evaluated by the caller, since its energy, a lower bound, beats the best and a bound M
    is active there or its rank is in doubt. floats: [unused, best]. Returns how many supports were
    visited, fewer than ``steps`` when it has worked for long.
    """
    n = b.shape[0]
    ridge = 16.0 * (k + 1) * _EPS
    stretch, shift = _slack(H, M, k, ridge)
    d = counters[0]
    done = 0
    work = 0
    counters[1] = 0
    while d >= 0 and done < steps and work < _WORK:
        work += 1
        if d == n:
            done += 1
            d -= 1
            if energy[n] < floats[1] or stretch * energy[n] - shift < floats[1]:
                r = rank[n]
                inside = energy[n] > -np.inf
                for p in range(r):
                    if L[p, p] * L[p, p] < _SURE * H[rows[p], rows[p]]:
                        inside = False
                if inside and energy[n] >= floats[1]:
                    continue
                if inside:
                    # back substitution for the weights, to see whether a bound is active
                    work += r * r
                    w[:r] = z[:r]
                    for p in range(r - 1, -1, -1):
                        w[p] /= L[p, p]
                        for q in range(p):
                            w[q] -= L[p, q] * w[p]
                        if abs(w[p]) > M[rows[p]]:
                            inside = False
                if not inside:
                    counters[1] = 1
                    break
                floats[1] = energy[n]
                best_x[:] = x
                if floats[1] <= target:
                    break
            continue
        if tried[d] == 0:
            tried[d] = 1
            if size[d] + n - d > k:
                energy[d + 1] = energy[d]
                size[d + 1] = size[d]
                rank[d + 1] = rank[d]
                d += 1
                tried[d] = 0
        elif tried[d] == 1:
            tried[d] = 2
            if size[d] < k:
                r = rank[d]
                work += r * r
                pivot = H[d, d]
                rest = b[d]
                unseen = pivot <= 0.0
                for p in range(r):
                    v = H[d, rows[p]]
                    unseen = unseen and v == 0.0
                    for q in range(p):
                        v -= L[r, q] * L[p, q]
                    v /= L[p, p]
                    L[r, p] = v
                    pivot -= v * v
                    rest -= v * z[p]
                x[d] = 1
                size[d + 1] = size[d] + 1
                rank[d + 1] = r
                if pivot < _SURE * H[d, d]:
                    pivot += ridge * H[d, d]
                if pivot > 0.25 * ridge * H[d, d]:
                    L[r, r] = np.sqrt(pivot)
                    z[r] = rest / L[r, r]
                    rows[r] = d
                    rank[d + 1] = r + 1
                    energy[d + 1] = energy[d] - 0.5 * z[r] * z[r]
                elif unseen and (b[d] == 0.0 or M[d] < np.inf):
                    energy[d + 1] = energy[d] - (abs(b[d]) * M[d] if b[d] != 0.0 else 0.0)
                else:
                    # nothing is known of this one: only the caller can tell
                    energy[d + 1] = -np.inf
                d += 1
                tried[d] = 0
        else:
            x[d] = 0
            d -= 1
    counters[0] = d
    return done
