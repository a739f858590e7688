"""Perspective relaxation of best-subset selection: dual bounds by semismooth Newton steps.

A node of the tree is ``constant + min 1/2 w'Cw - b'w`` over weights of which at most ``need`` are
not zero; members that are in already have been minimised out, which leaves a Schur complement C.
For any diagonal d >= 0 with ``C - diag(d)`` positive semidefinite, ``w_i^2 = w_i^2 / z_i`` on
binaries gives the convex relaxation

    min 1/2 w'(C - D)w - b'w + 1/2 sum d_i w_i^2 / z_i,   sum z <= need, 0 <= z <= 1.

Its dual bound at any point w, with ``p = b - (C - D)w``, is the tangent of the first part plus the
exact minimum of the second:

    - 1/2 w'(C - D)w - (sum of the ``need`` largest h_i),   h_i = max over |v| <= M_i of
                                                                  p_i v - d_i v^2 / 2,

which is ``p_i^2 / (2 d_i)`` unless the bound M is active. It is valid wherever w is. With
theta^2 / 2 the price of a unit of z, ``y = sqrt(d) w`` and ``v = p / sqrt(d)``, a minimum has every
variable in one of three states: out (y = 0, |v| <= theta), fractional (|v| = theta,
z = |y| / theta) and whole (v = y, |y| >= theta); given the states, w and theta solve one
linear system.

Sources: Frangioni and Gentile, "Perspective cuts for a class of convex 0-1 mixed integer programs",
Mathematical Programming 106 (2006); Pilanci, Wainwright and El Ghaoui, "Sparse learning via Boolean
relaxations", Mathematical Programming 151 (2015), the reverse Huber penalty; Bertsimas, Pauphilet
and Van Parys, "Sparse regression: scalable algorithms and empirical performance", Statistical
Science 35 (2020), the dual; Furnival and Wilson, "Regressions by leaps and bounds", Technometrics
16 (1974), which is d = 0; Hintermüller, Ito and Kunisch, "The primal-dual active set strategy as a
semismooth Newton method", SIAM Journal on Optimization 13 (2002).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .relax_kernels import smallest
from .vector import FAST

__all__ = ["back_solve", "drop_place", "enter", "factor", "forward_solve", "gains", "relax_subset"]

# a pivot (its diagonal entry was 1, eigenvalues are 64 eps and more) that only rounding can make
_LOST = 4.0 * float(np.finfo(np.float64).eps)
# halvings that place the threshold between the states
_HALVINGS = 50
# share of z that is spread evenly before w is minimised for it
_SPREAD = 0.02


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def factor(L, s):  # type: ignore[no-untyped-def]
    """Cholesky factor of the leading s rows, lower triangle, in place; False if not definite."""
    for i in range(s):
        row = L[i]
        for j in range(i):
            other = L[j]
            v = row[j]
            for q in range(j):
                v -= row[q] * other[q]
            row[j] = v / other[j]
        v = row[i]
        for q in range(i):
            v -= row[q] * row[q]
        if not v > 0.0:
            return False
        row[i] = np.sqrt(v)
    return True


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def forward_solve(L, s, y):  # type: ignore[no-untyped-def]
    """``y <- L^-1 y``."""
    for i in range(s):
        row = L[i]
        v = y[i]
        for q in range(i):
            v -= row[q] * y[q]
        y[i] = v / row[i]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def back_solve(L, s, y):  # type: ignore[no-untyped-def]
    """``y <- L^-T y``."""
    for i in range(s - 1, -1, -1):
        row = L[i]
        v = y[i] / row[i]
        y[i] = v
        for q in range(i):
            y[q] -= row[q] * v


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def enter(C, b, f, at):  # type: ignore[no-untyped-def]
    """Minimise out the variable at place ``at``, which is left there: its energy (<= 0).

    The diagonal was 1 before anything was minimised out. -inf if rounding has eaten the pivot: then
    no bound comes from this node.
    """
    pivot = C[at, at]
    rest = b[at]
    change = 0.0
    if pivot > _LOST:
        change = -0.5 * rest * rest / pivot
        col = C[at]
        for r in range(f):
            if r != at:
                u = col[r] / pivot
                if u != 0.0:
                    row = C[r]
                    for q in range(f):
                        if q != at:
                            row[q] -= u * col[q]
                    b[r] -= u * rest
    else:
        change = -np.inf
    return change


@njit(nogil=True, cache=True, error_model="numpy")
def drop_place(C, b, free, f, at):  # type: ignore[no-untyped-def]
    """Close the gap at place ``at``: rows, columns and entries behind it move up."""
    for r in range(at, f - 1):
        for q in range(f):
            C[r, q] = C[r + 1, q]
        b[r] = b[r + 1]
        free[r] = free[r + 1]
    for r in range(f - 1):
        row = C[r]
        for q in range(at, f - 1):
            row[q] = row[q + 1]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def gains(C, b, M, free, f, d, w, p, h, buffer, need):  # type: ignore[no-untyped-def]
    """Fill p and h (f,) at w (f,); the dual bound there, without the constant."""
    change = 0.0
    for r in range(f):
        row = C[r]
        v = 0.0
        for q in range(f):
            v += row[q] * w[q]
        dr = d[free[r]]
        v = b[r] - v + dr * w[r]
        p[r] = v
        change -= 0.5 * w[r] * (b[r] - v)
        most = M[free[r]]
        a = abs(v)
        if a > dr * most:
            h[r] = a * most - 0.5 * dr * most * most
        else:
            h[r] = 0.5 * v * v / dr
        buffer[r] = -h[r]
    if need >= f:
        for r in range(f):
            change -= h[r]
    elif need > 0:
        smallest(buffer, f, need - 1)
        for r in range(need):
            change += buffer[r]
    return change


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _threshold(t, f, need, shift):  # type: ignore[no-untyped-def]
    """theta with ``sum clip(t / theta - shift, 0, 1) = need``; 0 if too few t are positive."""
    top = 0.0
    count = 0
    total = 0.0
    for r in range(f):
        top = max(top, t[r])
        total += t[r]
        count += t[r] > 0.0
    if count <= need:
        return 0.0
    low = 0.0
    high = top if shift > 0.0 else total / need
    for _ in range(_HALVINGS):
        theta = 0.5 * (low + high)
        u = 1.0 / theta
        total = 0.0
        for r in range(f):
            total += min(max(t[r] * u - shift, 0.0), 1.0)
        if total > need:
            low = theta
        else:
            high = theta
        if high - low <= 1e-15 * high:
            break
    return high


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _value(b, free, f, d, w, p, need, y, z):  # type: ignore[no-untyped-def]
    """Value of the relaxation at w (p belongs to it); fills y = sqrt(d) |w| and the best z."""
    value = 0.0
    for r in range(f):
        y[r] = np.sqrt(d[free[r]]) * abs(w[r])
        value -= 0.5 * w[r] * (b[r] + p[r])
    theta = _threshold(y, f, need, 0.0)
    for r in range(f):
        if y[r] >= theta:
            z[r] = 1.0 if y[r] > 0.0 else 0.0
            value += 0.5 * y[r] * y[r]
        else:
            z[r] = y[r] / theta
            value += 0.5 * theta * y[r]
    return value


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _newton(C, b, free, f, need, d, w, p, t, state, places, L, rhs, col, out):  # type: ignore[no-untyped-def]
    """The minimum for the states that w suggests, in ``out``; whether they changed and it exists.

    Returns -1 if the states are those of the last call (w is the minimum), 0 on failure, else 1.
    """
    for r in range(f):
        root = np.sqrt(d[free[r]])
        t[r] = abs(root * w[r] + p[r] / root)
    theta = _threshold(t, f, need, 1.0)
    same = True
    whole = 0
    s = 0
    fractional = 0
    for r in range(f):
        kind = 0
        if t[r] > theta:
            kind = 1 if t[r] < 2.0 * theta else 2
        same = same and kind == state[r]
        state[r] = kind
        if kind > 0:
            places[s] = r
            s += 1
        whole += kind == 2
        fractional += kind == 1
    if same:
        return -1
    for a in range(s):
        r = places[a]
        row = C[r]
        target = L[a]
        for q in range(a + 1):
            target[q] = row[places[q]]
        rhs[a] = b[r]
        col[a] = 0.0
        if state[r] == 1:
            i = free[r]
            target[a] -= d[i]
            col[a] = np.sqrt(d[i])
            if w[r] * d[i] + p[r] < 0.0:
                col[a] = -col[a]
    if not factor(L, s):
        return 0
    forward_solve(L, s, rhs)
    if fractional > 0:
        forward_solve(L, s, col)
        top = 0.0
        bottom = float(need - whole)
        for a in range(s):
            top += col[a] * rhs[a]
            bottom += col[a] * col[a]
        for a in range(s):
            rhs[a] -= top / bottom * col[a]
    back_solve(L, s, rhs)
    for r in range(f):
        out[r] = 0.0
    for a in range(s):
        out[places[a]] = rhs[a]
    return 1


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _reweigh(C, b, free, f, need, d, z, spread, L, out):  # type: ignore[no-untyped-def]
    """The best w for fixed z, moved a little off its zeros, in ``out``; whether it exists."""
    for r in range(f):
        row = C[r]
        target = L[r]
        for q in range(r + 1):
            target[q] = row[q]
        share = (1.0 - spread) * z[r] + spread * need / f
        i = free[r]
        target[r] += d[i] / share - d[i]
        out[r] = b[r]
    if not factor(L, f):
        return False
    forward_solve(L, f, out)
    back_solve(L, f, out)
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def relax_subset(  # type: ignore[no-untyped-def]
    C, b, M, free, f, need, d, w, z, p, h, work, state, places, L, cutoff, precision, rounds,
):  # fmt: skip
    """Minimise the relaxation by at most ``rounds`` linear systems: (value, best dual bound).

    Both leave out the constant. w (f,) is the start; w and z end at the least value found, p and h
    at the best bound. Ends early once the bound reaches ``cutoff`` or is within ``precision`` of
    the value. work (8, n), state and places (n,), L (n, n): scratch.

    A Newton step is taken if it lowers the value; if it does not, w is minimised for fixed z.
    """
    if need == 0 or f == 0:
        return 0.0, 0.0
    now, p_now, h_now, buffer = work[0], work[1], work[2], work[3]
    t, rhs, col, p_at = work[4], work[5], work[6], work[7]
    for r in range(f):
        now[r] = w[r]
        state[r] = -1
    best = -np.inf
    least = np.inf
    newton = True
    spread = _SPREAD
    for step in range(rounds + 1):
        bound = gains(C, b, M, free, f, d, now, p_now, h_now, buffer, need)
        if bound > best:
            best = bound
            for r in range(f):
                p[r] = p_now[r]
                h[r] = h_now[r]
        value = _value(b, free, f, d, now, p_now, need, t, rhs)
        if value < least:
            least = value
            for r in range(f):
                w[r] = now[r]
                z[r] = rhs[r]
                p_at[r] = p_now[r]
        elif newton:
            newton = False
        else:
            newton = True
            spread *= 0.05
            if spread < 1e-6:
                break
        if best >= cutoff or least - best <= precision or step == rounds:
            break
        if newton:
            done = _newton(C, b, free, f, need, d, w, p_at, t, state, places, L, rhs, col, now)
            if done < 0:
                break
            newton = done > 0
        if not newton:
            if not _reweigh(C, b, free, f, need, d, z, spread, L, now):
                break
            newton = step % 3 == 2
    return least, best
