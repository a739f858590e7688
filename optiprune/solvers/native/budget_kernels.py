"""Kernels under linear budgets: flips and exchanges that keep ``lower <= A x <= upper``.

With ``sign = 1 - 2x`` a flip of i changes the energy by ``sign_i h_i`` and an exchange of i and j
(one 0, one 1) by ``sign_i h_i + sign_j h_j - J_ij``. ``use = A x`` is kept beside the fields and
refreshed with them. ``AT`` is A transposed, so that a variable's costs are contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .exchange import (
    ACCEPTED,
    BEST,
    BEST_STEP,
    CURRENT,
    IN_SWEEP,
    MARGIN,
    REFUSED,
    SINCE_REFRESH,
    STEP,
    TEMPERATURE,
    recompute,
)
from .flips import flip
from .rng import below, uniform
from .vector import copy

__all__ = [
    "budget_first",
    "budget_flips",
    "budget_metropolis",
    "budget_repair",
    "budget_sample",
    "budget_use",
]


@njit(nogil=True, cache=True)
def budget_use(AT, x, use):  # type: ignore[no-untyped-def]
    """``use = A x`` from scratch."""
    for r in range(use.shape[0]):
        use[r] = 0.0
    for i in range(AT.shape[0]):
        if x[i]:
            for r in range(AT.shape[1]):
                use[r] += AT[i, r]


@njit(nogil=True, cache=True)
def _fits(AT, use, low, high, si, i, sj, j, sm, m):  # type: ignore[no-untyped-def]
    """Whether every budget holds after flipping i (and j and m, unless sj or sm is 0)."""
    for r in range(use.shape[0]):
        u = use[r] + si * AT[i, r] + sj * AT[j, r] + sm * AT[m, r]
        if u < low[r] or u > high[r]:
            return False
    return True


@njit(nogil=True, cache=True)
def _spend(AT, use, si, i):  # type: ignore[no-untyped-def]
    for r in range(use.shape[0]):
        use[r] += si * AT[i, r]


@njit(nogil=True, cache=True, error_model="numpy")
def budget_metropolis(  # type: ignore[no-untyped-def]
    J, a, AT, low, high, h, x, sign, use, rng, counters, floats, best_x, scratch, steps, sweep,
    ratio, refresh, target, patience,
):  # fmt: skip
    """Random flips of one, two or three variables by Metropolis' rule; infeasible ones refused.

    Three at once, since an equation between unequal costs lets no one or two of them move.

    Arguments as `exchange.heat_bath`.
    """
    n = h.shape[0]
    step = counters[STEP]
    last = step + steps
    accepted = counters[ACCEPTED]
    since = counters[SINCE_REFRESH]
    in_sweep = counters[IN_SWEEP]
    current = floats[CURRENT]
    best = floats[BEST]
    margin = floats[MARGIN]
    t = floats[TEMPERATURE]
    while step < last:
        if in_sweep == sweep:
            in_sweep = 0
            t *= ratio
        step += 1
        in_sweep += 1
        flips = 1 + below(rng, 3)
        i = below(rng, n)
        j = below(rng, n)
        m = below(rng, n)
        si = float(sign[i])
        sj = float(sign[j]) if flips > 1 and j != i else 0.0
        sm = float(sign[m]) if flips > 2 and m != i and m != j else 0.0
        delta = si * float(h[i])
        if sj != 0.0:
            delta += sj * float(h[j]) + si * sj * float(J[i, j])
        if sm != 0.0:
            delta += sm * float(h[m]) + si * sm * float(J[i, m]) + sj * sm * float(J[j, m])
        hot = delta <= 0.0 or (delta < 30.0 * t and uniform(rng) < np.exp(-delta / t))
        if hot and _fits(AT, use, low, high, si, i, sj, j, sm, m):
            current += delta
            flip(J, h, x, sign, i)
            _spend(AT, use, si, i)
            if sj != 0.0:
                flip(J, h, x, sign, j)
                _spend(AT, use, sj, j)
            if sm != 0.0:
                flip(J, h, x, sign, m)
                _spend(AT, use, sm, m)
            accepted += 1
            since += 1
            if since >= refresh:
                since = 0
                current = recompute(J, a, x, h, scratch)
                budget_use(AT, x, use)
            if current < best - margin or (current <= target and target < best):
                best = current
                copy(x, best_x)
                counters[BEST_STEP] = step
                if best <= target:
                    break
        if step - counters[BEST_STEP] >= patience:
            break
    counters[STEP] = step
    counters[ACCEPTED] = accepted
    counters[SINCE_REFRESH] = since
    counters[IN_SWEEP] = in_sweep
    floats[CURRENT] = current
    floats[BEST] = best
    floats[TEMPERATURE] = t


@njit(nogil=True, cache=True, error_model="numpy")
def budget_first(  # type: ignore[no-untyped-def]
    J, AT, low, high, h, x, sign, use, counters, floats, best_x, steps, tolerance, target,
):  # fmt: skip
    """Descent: for each variable in turn its best feasible flip or exchange, if it improves.

    Returns whether a whole round improved nothing by more than ``tolerance``: a local optimum.
    """
    n = h.shape[0]
    current = floats[CURRENT]
    for _ in range(steps):
        if counters[REFUSED] >= n:
            break
        if counters[IN_SWEEP] >= n:
            counters[IN_SWEEP] = 0
        i = counters[IN_SWEEP]
        counters[IN_SWEEP] += 1
        counters[STEP] += 1
        counters[REFUSED] += 1
        si = float(sign[i])
        alone = si * float(h[i])
        gain = -tolerance
        partner = -1
        if alone < gain and _fits(AT, use, low, high, si, i, 0.0, i, 0.0, i):
            gain = alone
            partner = i
        for j in range(n):
            sj = float(sign[j])
            if sj != si:
                delta = alone + sj * float(h[j]) - float(J[i, j])
                if delta < gain and _fits(AT, use, low, high, si, i, sj, j, 0.0, j):
                    gain = delta
                    partner = j
        if partner < 0:
            continue
        current += gain
        flip(J, h, x, sign, i)
        _spend(AT, use, si, i)
        if partner != i:
            sj = float(sign[partner])
            flip(J, h, x, sign, partner)
            _spend(AT, use, sj, partner)
        counters[REFUSED] = 0
        counters[ACCEPTED] += 1
        if current < floats[BEST]:
            floats[BEST] = current
            counters[BEST_STEP] = counters[STEP]
            if current <= target:
                break
    floats[CURRENT] = current
    if current <= floats[BEST]:
        copy(x, best_x)
    return counters[REFUSED] >= n


@njit(nogil=True, cache=True, error_model="numpy")
def budget_flips(  # type: ignore[no-untyped-def]
    J, AT, low, high, h, x, sign, use, counters, floats, best_x, steps, tolerance, target,
):  # fmt: skip
    """Greedy: the best feasible flip until none improves. Arguments as `budget_first`."""
    n = h.shape[0]
    current = floats[CURRENT]
    done = False
    for _ in range(steps):
        gain = -tolerance
        where = -1
        for i in range(n):
            si = float(sign[i])
            delta = si * float(h[i])
            if delta < gain and _fits(AT, use, low, high, si, i, 0.0, i, 0.0, i):
                gain = delta
                where = i
        if where < 0:
            done = True
            break
        si = float(sign[where])
        current += gain
        flip(J, h, x, sign, where)
        _spend(AT, use, si, where)
        counters[STEP] += 1
        counters[ACCEPTED] += 1
        if current < floats[BEST]:
            floats[BEST] = current
            counters[BEST_STEP] = counters[STEP]
            if current <= target:
                break
    floats[CURRENT] = current
    if current <= floats[BEST]:
        copy(x, best_x)
    return done


@njit(nogil=True, cache=True)
def _excess(use, low, high, weight):  # type: ignore[no-untyped-def]
    total = 0.0
    for r in range(use.shape[0]):
        total += weight[r] * max(0.0, use[r] - high[r], low[r] - use[r])
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def budget_repair(  # type: ignore[no-untyped-def]
    J, AT, low, high, weight, h, x, sign, use, free_at, rng, counters, steps,
):  # fmt: skip
    """Flip towards feasibility; returns whether ``low <= use <= high`` was reached.

    Among flips that lower the weighted excess, the one of least energy increase per unit of
    excess; where none does, the flip of least excess, which is then tabu for some random steps.
    """
    n = h.shape[0]
    for _ in range(steps):
        excess = _excess(use, low, high, weight)
        if excess == 0.0:
            return True
        now = counters[STEP]
        counters[STEP] += 1
        price = np.inf
        best = -1
        least = np.inf
        second = -1
        for i in range(n):
            if free_at[i] > now:
                continue
            s = float(sign[i])
            after = 0.0
            for r in range(use.shape[0]):
                u = use[r] + s * AT[i, r]
                after += weight[r] * max(0.0, u - high[r], low[r] - u)
            drop = excess - after
            delta = s * float(h[i])
            if drop > 1e-12 * excess:
                # a flip that also lowers the energy is free; the larger such gain is the better
                p = delta / drop if delta > 0.0 else delta * drop
                if p < price:
                    price = p
                    best = i
            if after < least:
                least = after
                second = i
        if best < 0:
            best = second if second >= 0 else below(rng, n)
            free_at[best] = now + 2 + below(rng, 10)
        s = float(sign[best])
        flip(J, h, x, sign, best)
        _spend(AT, use, s, best)
        if free_at[best] <= now:
            free_at[best] = now + 2 + below(rng, 3)
    return _excess(use, low, high, weight) == 0.0


@njit(nogil=True, cache=True)
def budget_sample(J, AT, low, high, h, sign, use, rng, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the energy changes of random feasible moves; returns how many there are."""
    n = h.shape[0]
    m = 0
    for _ in range(20 * out.shape[0]):
        if m == out.shape[0]:
            break
        i = below(rng, n)
        j = below(rng, n)
        si = float(sign[i])
        sj = float(sign[j]) if j != i and below(rng, 2) else 0.0
        delta = si * float(h[i])
        if sj != 0.0:
            delta += sj * float(h[j]) + si * sj * float(J[i, j])
        if _fits(AT, use, low, high, si, i, sj, j, 0.0, j):
            out[m] = delta
            m += 1
    return m
