"""Exchange tabu search over the supports of an MIQP, weights re-optimised in every price.

A step prices exchanges from the sweep tableau (see `tableau`): p out and q in changes the energy by
``w_p^2 / (2 P_pp) - (r_q + B_pq w_p / P_pp)^2 / (2 (s_q + B_pq^2 / P_pp))``, exactly, and carries
out the best one by two pivots, O(n^2) like the pricing itself.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .exchange import (
    ACCEPTED,
    BEST,
    BEST_STEP,
    CURRENT,
    MARGIN,
    RESTARTS,
    RUN_BEST,
    RUN_STEP,
    SINCE_REFRESH,
    STEP,
)
from .rng import below
from .tableau import pivot, unpivot
from .vector import BEYOND, FAST, fmax

__all__ = ["support_tabu"]

# runs without a better incumbent after which they begin an exchange further away from it
_PATIENCE = 4
# share of its diagonal entry below which a pivot is too small to build on
_SMALL_PIVOT = 1e-2
# draws for a random exchange that leaves no collinear support
_DRAWS = 8


@njit(nogil=True, cache=True)
def _sweep_all(T, H, b, inside):  # type: ignore[no-untyped-def]
    """T from H and b, swept on ``inside``, without the rounding of many pivots; whether it can."""
    n = inside.shape[0]
    for i in range(n):
        for j in range(n):
            T[i, j] = H[i, j]
        T[i, n] = b[i]
        T[n, i] = b[i]
    T[n, n] = 0.0
    members = inside.copy()
    inside[:] = False
    for i in range(n):
        if members[i]:
            if not T[i, i] > 0.0:
                return False
            pivot(T, i, inside)
            inside[i] = True
    return True


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _best_gain(row, r, s, closed, floor, d, w):  # type: ignore[no-untyped-def]
    """Twice the largest gain of the variables that may enter once the row's has left."""
    top = -np.inf
    for c in range(closed.shape[0]):
        u = row[c] * d
        left = s[c] + row[c] * u
        t = r[c] + w * u
        gain = t * t / left if left > floor[c] else -np.inf
        top = fmax(top, gain + closed[c])
    return top


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _enterer(row, r, s, closed, floor, d, w, top):  # type: ignore[no-untyped-def]
    """The first variable of that gain, up to the rounding of another pass; -1 if there is none."""
    at = BEYOND
    near = top - 1e-12 * abs(top)
    for c in range(np.int32(closed.shape[0])):
        u = row[c] * d
        left = s[c] + row[c] * u
        t = r[c] + w * u
        gain = t * t / left if left > floor[c] else -np.inf
        where = np.int32(c) if gain + closed[c] >= near else BEYOND
        at = where if where < at else at
    return np.int64(at) if at < BEYOND else -1


@njit(nogil=True, cache=True)
def _exchange(T, H, b, inside, p, q):  # type: ignore[no-untyped-def]
    """p out, q in; False where rounding has left nothing to go on with.

    A pivot far below its diagonal entry magnifies rounding: T is then made anew.
    """
    inside[p] = False
    unpivot(T, p, inside)
    pivotal = T[q, q]
    inside[q] = True
    if not pivotal > _SMALL_PIVOT * H[q, q]:
        return _sweep_all(T, H, b, inside)
    inside[q] = False
    pivot(T, q, inside)
    inside[q] = True
    return True


@njit(nogil=True, cache=True)
def _perturb(T, H, b, inside, best_x, floor, rng, exchanges):  # type: ignore[no-untyped-def]
    """To the incumbent, and some random exchanges away from it; whether that could be done."""
    n = inside.shape[0]
    for i in range(n):
        if inside[i] and not best_x[i]:
            inside[i] = False
            unpivot(T, i, inside)
    for i in range(n):
        if best_x[i] and not inside[i]:
            if not T[i, i] > 0.0:
                for j in range(n):
                    inside[j] = best_x[j] != 0
                if not _sweep_all(T, H, b, inside):
                    return False
                break
            pivot(T, i, inside)
            inside[i] = True
    for _ in range(exchanges):
        for _ in range(_DRAWS):
            p = below(rng, n)
            while not inside[p]:
                p = below(rng, n)
            q = below(rng, n)
            while inside[q]:
                q = below(rng, n)
            if T[q, q] + T[p, q] * T[p, q] / T[p, p] > floor[q]:
                if not _exchange(T, H, b, inside, p, q):
                    return False
                break
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def support_tabu(  # type: ignore[no-untyped-def]
    T, H, b, floor, inside, until, best_x, rng, counters, floats, vectors, steps, rows, tenure,
    spread, stall, weakest, strongest, settled, refresh, target,
):  # fmt: skip
    """The best exchange of the ``rows`` cheapest members with all others, at each step.

    Both variables of an exchange stay for ``tenure`` plus up to ``spread - 1`` random steps. The
    rest is as in `exchange_tabu`: runs of ``stall`` steps, ``settled``, ``target``.

    T : (n + 1, n + 1), swept on ``inside``, all of whose members are independent
    floor : (n,) least Schur complement of a variable that enters: far above the rounding of a
        tableau whose members' were no smaller
    until : (n,) int64, the last step at which a variable must stay
    vectors : (4, n) work space

    Returns whether the search came to its end; rounding that leaves no usable tableau is one.
    """
    n = inside.shape[0]
    s, closed, price, cost = vectors[0], vectors[1], vectors[2], vectors[3]
    step = counters[STEP]
    last = step + steps
    while step < last:
        if settled > 0 and step >= settled + 4 * counters[BEST_STEP]:
            counters[STEP] = step
            return True
        if step - counters[RUN_STEP] >= stall:
            grown = 1 + (step - counters[BEST_STEP]) // (_PATIENCE * stall)
            strength = weakest + below(rng, min(strongest - weakest, grown) + 1)
            if not _perturb(T, H, b, inside, best_x, floor, rng, strength):
                counters[STEP] = step
                return True
            until[:] = -1
            counters[RUN_STEP] = step
            counters[RESTARTS] += 1
            floats[RUN_BEST] = 0.5 * T[n, n]
            floats[CURRENT] = floats[RUN_BEST]
        members = 0
        for c in range(n):
            s[c] = T[c, c]
            stays = until[c] >= step
            closed[c] = -np.inf if inside[c] or stays else 0.0
            if inside[c] and not stays:
                cost[c] = T[c, n] * T[c, n] / T[c, c]
                price[members] = cost[c]
                members += 1
            else:
                cost[c] = np.inf
        limit = np.inf
        if members > rows:
            limit = np.partition(price[:members], rows - 1)[rows - 1]
        least, out, top = np.inf, -1, 0.0
        for p in range(n):
            if cost[p] <= limit and cost[p] < np.inf:
                d = 1.0 / T[p, p]
                gain = _best_gain(T[p, :n], T[n, :n], s, closed, floor, d, T[p, n])
                if cost[p] - gain < least:
                    least, out, top = cost[p] - gain, p, gain
        step += 1
        if out < 0:
            continue
        d = 1.0 / T[out, out]
        into = _enterer(T[out, :n], T[n, :n], s, closed, floor, d, T[out, n], top)
        if into < 0:
            continue
        sound = _exchange(T, H, b, inside, out, into)
        counters[ACCEPTED] += 1
        counters[SINCE_REFRESH] += 1
        if sound and counters[SINCE_REFRESH] >= refresh:
            sound = _sweep_all(T, H, b, inside)
            counters[SINCE_REFRESH] = 0
        if not sound:
            counters[STEP] = step
            return True
        until[out] = step + tenure - 1 + below(rng, spread)
        until[into] = step + tenure - 1 + below(rng, spread)
        energy = 0.5 * T[n, n]
        floats[CURRENT] = energy
        if energy < floats[RUN_BEST] - floats[MARGIN]:
            floats[RUN_BEST] = energy
            counters[RUN_STEP] = step
        if energy < floats[BEST] - floats[MARGIN] or (energy <= target and target < floats[BEST]):
            floats[BEST] = energy
            counters[BEST_STEP] = step
            for c in range(n):
                best_x[c] = 1 if inside[c] else 0
            if energy <= target:
                break
    counters[STEP] = step
    return False
