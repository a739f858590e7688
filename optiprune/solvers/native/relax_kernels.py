"""The continuous relaxation that bounds a binary quadratic, at the speed a search tree needs.

With fields ``g = c + Mx`` and M positive semidefinite along every direction that keeps the counts
of the groups, ``f(x) = c'x + 1/2 x'Mx`` is convex on the relaxed set {0 <= x <= 1, counts held}.
Then *any* relaxed point x bounds f from below over the whole set by its tangent,
``f(y) >= f(x) + g'(y - x)``, and the least value of the right-hand side is found by sorting g.
The descent need not converge for the bound to hold; it only makes it better.

Source: tangent bound as in Frank and Wolfe, "An algorithm for quadratic programming", Naval
Research Logistics Quarterly 3 (1956); choice of pairs by second-order gain as in Fan, Chen and Lin,
"Working set selection using second order information for training support vector machines", JMLR 6
(2005).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .vector import FAST

__all__ = ["descend", "relaxed_fields", "set_value", "smallest", "tangent"]

# a smaller curvature along a pair counts as this share of the diagonal: the step is then bounded by
# the box alone
_FLAT = 1e-12


@njit(nogil=True, cache=True, fastmath=FAST)
def relaxed_fields(M, c, x, g):  # type: ignore[no-untyped-def]
    """``g = c + Mx``, shape (n,), for fractional x."""
    n = x.shape[0]
    for m in range(n):
        g[m] = c[m]
    for i in range(n):
        xi = x[i]
        if xi != 0.0:
            row = M[i]
            for m in range(n):
                g[m] += xi * row[m]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _pair_step(M, x, g, fix, first, end, tolerance):  # type: ignore[no-untyped-def]
    """One exchange of mass within a group, exact along its line. False if none gains more."""
    n = x.shape[0]
    least = np.inf
    i = -1
    for m in range(first, end):
        if fix[m] < 0 and x[m] < 1.0 and g[m] < least:
            least = g[m]
            i = m
    if i < 0:
        return False
    row = M[i]
    own = row[i]
    gain = 0.0
    top = -np.inf
    j = -1
    for m in range(first, end):
        if fix[m] < 0 and x[m] > 0.0:
            d = g[m] - least
            top = d if d > top else top
            if d > 0.0:
                q = own + M[m, m] - 2.0 * row[m]
                floor = _FLAT * (own + M[m, m])
                q = q if q > floor else floor
                v = d * d / q if q > 0.0 else np.inf
                if v > gain:
                    gain = v
                    j = m
    if j < 0 or top <= tolerance:
        return False
    other = M[j]
    q = own + other[j] - 2.0 * row[j]
    floor = _FLAT * (own + other[j])
    q = q if q > floor else floor
    room = 1.0 - x[i]
    take = x[j]
    limit = room if room < take else take
    step = (g[j] - least) / q if q > 0.0 else limit
    if step >= limit:
        step = limit
    # exactly at the bounds, so that rounding leaves no crumbs
    x[i] = 1.0 if step == room else x[i] + step
    x[j] = 0.0 if step == take else x[j] - step
    for m in range(n):
        g[m] += step * (row[m] - other[m])
    return True


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _single_step(M, x, g, fix, tolerance):  # type: ignore[no-untyped-def]
    """The coordinate whose exact step gains most, without groups. False if none gains more."""
    n = x.shape[0]
    gain = 0.0
    i = -1
    for m in range(n):
        if fix[m] < 0:
            room = 1.0 - x[m] if g[m] < 0.0 else x[m]
            d = abs(g[m])
            if d > tolerance and room > 0.0:
                q = M[m, m]
                step = d / q if q * room > d else room
                v = step * (d - 0.5 * q * step)
                if v > gain:
                    gain = v
                    i = m
    if i < 0:
        return False
    up = g[i] < 0.0
    room = 1.0 - x[i] if up else x[i]
    d = abs(g[i])
    step = d / M[i, i] if M[i, i] * room > d else room
    if up:
        x[i] = 1.0 if step == room else x[i] + step
    else:
        x[i] = 0.0 if step == room else x[i] - step
        step = -step
    row = M[i]
    for m in range(n):
        g[m] += step * row[m]
    return True


@njit(nogil=True, cache=True)
def descend(M, x, g, fix, starts, grouped, steps, tolerance):  # type: ignore[no-untyped-def]
    """At most ``steps`` exact line steps down f from x, along the free variables (fix < 0).

    Groups take turns; ``grouped`` False means no counts at all. Returns the number of steps; fewer
    than ``steps`` means that no gradient difference above ``tolerance`` is left.
    """
    done = 0
    if not grouped:
        while done < steps and _single_step(M, x, g, fix, tolerance):
            done += 1
        return done
    groups = starts.shape[0] - 1
    idle = 0
    at = 0
    while done < steps and idle < groups:
        if _pair_step(M, x, g, fix, starts[at], starts[at + 1], tolerance):
            done += 1
            idle = 0
        else:
            idle += 1
        at = at + 1 if at + 1 < groups else 0
    return done


@njit(nogil=True, cache=True)
def smallest(values, size, k):  # type: ignore[no-untyped-def]
    """The k-th smallest (from 0) of ``values[:size]``, which is partitioned around it."""
    low = 0
    high = size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                v = values[i]
                values[i] = values[j]
                values[j] = v
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@njit(nogil=True, cache=True)
def tangent(c, x, g, fix, starts, grouped, need, last_in, first_out, buffer):  # type: ignore[no-untyped-def]
    """``(f(x), bound)``: the value at x, and the least value of the tangent there.

    ``need`` (n_groups,): free variables to be 1. Fills ``last_in`` and ``first_out`` (n_groups,):
    the largest gradient among the chosen, the smallest among the others. Making a variable with
    gradient v chosen costs at least ``v - last_in``, dropping one at least ``first_out - v``.
    """
    n = x.shape[0]
    value = 0.0
    change = 0.0
    for m in range(n):
        value += 0.5 * x[m] * (g[m] + c[m])
    if not grouped:
        for m in range(n):
            if fix[m] < 0:
                change += min(g[m], 0.0) - g[m] * x[m]
        return value, value + change
    for a in range(starts.shape[0] - 1):
        size = 0
        for m in range(starts[a], starts[a + 1]):
            if fix[m] < 0:
                buffer[size] = g[m]
                size += 1
                change -= g[m] * x[m]
        k = need[a]
        last_in[a] = -np.inf
        first_out[a] = np.inf
        if 0 < k <= size:
            last_in[a] = smallest(buffer, size, k - 1)
            for m in range(k):
                change += buffer[m]
        if 0 <= k < size:
            for m in range(k, size):
                first_out[a] = min(first_out[a], buffer[m])
    return value, value + change


@njit(nogil=True, cache=True, fastmath=FAST)
def set_value(M, x, g, fix, i, value, first, end):  # type: ignore[no-untyped-def]
    """Fix x_i to 0 or 1 and pass its mass on to its group where the gradient is best.

    ``end <= first`` means no group. False if the group has no room, so the branch is infeasible.
    """
    n = x.shape[0]
    owed = x[i] - value  # what the others must take up
    row = M[i]
    for m in range(n):
        g[m] -= owed * row[m]
    x[i] = value
    fix[i] = np.int8(value)
    if end <= first:
        return True
    # less than this is the rounding of a long descent, and stays
    while abs(owed) > 1e-13 * (end - first):
        best = np.inf
        b = -1
        for m in range(first, end):
            if fix[m] < 0:
                if owed > 0.0:
                    if x[m] < 1.0 and g[m] < best:
                        best = g[m]
                        b = m
                elif x[m] > 0.0 and -g[m] < best:
                    best = -g[m]
                    b = m
        if b < 0:
            return False
        if owed > 0.0:
            room = 1.0 - x[b]
            step = room if room < owed else owed
            x[b] = 1.0 if step == room else x[b] + step
        else:
            room = x[b]
            step = -(room if room < -owed else -owed)
            x[b] = 0.0 if -step == room else x[b] + step
        owed -= step
        other = M[b]
        for m in range(n):
            g[m] += step * other[m]
    return True
