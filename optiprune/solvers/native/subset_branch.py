"""Branch and bound for best-subset selection: the tree search itself, resumable at any node.

A node has variables that are in, out and free. Those in are minimised out (`enter`), so that its
relaxation (`subset_kernels`) is one of the free variables alone; its diagonal d is improved on the
way down (`subset_diagonal`), since both sides of a split allow a larger one. Order of nodes, fixing
and the choice of the variable to split on are those of `branch_kernels`: best bound first with
dives, pseudo-costs with trials until they are reliable.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .branch_kernels import (
    ACTIVE,
    BEST,
    FIXED,
    HEAP,
    LAST,
    MOVED,
    NODES,
    PARENT,
    ROOT,
    SIDE,
    SLOTS,
    STACK,
    TOLERANCE,
    pop,
    push,
)
from .relax_kernels import smallest
from .subset_box import box_bound
from .subset_diagonal import improve_diagonal
from .subset_kernels import drop_place, enter, factor, forward_solve, relax_subset
from .vector import copy

__all__ = ["ASKED", "BOXED", "FREE", "IMPROVED", "NEED", "PRICE", "TRIED", "search_subsets"]

# counters after those of `branch_kernels`. FREE: free variables of the active node; NEED: how many
# of them may still be in; ASKED: whether the caller must price ``trial_x``; TRIED, IMPROVED: what
# the active node has had: a candidate priced, steps of its diagonal; BOXED: all M are finite
FREE, NEED, ASKED, TRIED, IMPROVED, BOXED = range(8, 14)
# floats after those of `branch_kernels`. CONSTANT: energy of the variables that are in; PRICE: a
# candidate that seems below it is worth the caller's price
CONSTANT, PRICE = 5, 6

_FRACTION = 1e-6
_LEAST = 1e-6
_RELIABLE = 4
_TRIALS = 4
# linear systems that a node (a trial) may spend on its relaxation
_ROUNDS = 12
_TRIAL_ROUNDS = 3
# steps of the diagonal at a node, and the barrier's part of the gap
_STEPS = 1
# with finite M: nodes from one candidate to the next
_BOXED_EVERY = 16
_BARRIER = 0.1


@njit(nogil=True, cache=True, error_model="numpy")
def _take(C, b, free, w, z, h, counters, floats, at):  # type: ignore[no-untyped-def]
    """The free variable at a place becomes in."""
    f = counters[FREE]
    floats[CONSTANT] += enter(C, b, f, at)
    counters[NEED] -= 1
    _leave(C, b, free, w, z, h, counters, at)


@njit(nogil=True, cache=True, error_model="numpy")
def _leave(C, b, free, w, z, h, counters, at):  # type: ignore[no-untyped-def]
    """The place of a variable that is free no longer is closed."""
    f = counters[FREE]
    drop_place(C, b, free, f, at)
    for r in range(at, f - 1):
        w[r] = w[r + 1]
        z[r] = z[r + 1]
        h[r] = h[r + 1]
    counters[FREE] = f - 1
    counters[TRIED] = 0
    counters[IMPROVED] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _rebuild(H, b0, k, fix, node_w, C, b, free, w, z, h, counters, floats):  # type: ignore[no-untyped-def]
    """Lay out the node that ``fix`` describes."""
    n = fix.shape[0]
    f = 0
    for i in range(n):
        if fix[i] != 0:
            free[f] = i
            w[f] = node_w[i]
            z[f] = 1.0
            b[f] = b0[i]
            f += 1
    for r in range(f):
        source = H[free[r]]
        target = C[r]
        for q in range(f):
            target[q] = source[free[q]]
    counters[FREE] = f
    counters[NEED] = k
    counters[TRIED] = 0
    counters[IMPROVED] = 0
    floats[CONSTANT] = 0.0
    for r in range(f - 1, -1, -1):
        if fix[free[r]] == 1:
            _take(C, b, free, w, z, h, counters, floats, r)


@njit(nogil=True, cache=True, error_model="numpy")
def _priced(C, b, f, need, h, z, L, y, buffer, places):  # type: ignore[no-untyped-def]
    """Unbounded energy of the ``need`` best free variables, into ``places``; inf if collinear."""
    for r in range(f):
        buffer[r] = -h[r]
    at = smallest(buffer, f, need - 1)
    s = 0
    for r in range(f):
        if -h[r] < at:
            places[s] = r
            s += 1
    for r in range(f):
        if -h[r] == at and s < need:
            places[s] = r
            s += 1
    for a in range(s):
        row = C[places[a]]
        for q in range(a + 1):
            L[a, q] = row[places[q]]
        y[a] = b[places[a]]
    if not factor(L, s):
        return np.inf
    forward_solve(L, s, y)
    value = 0.0
    for a in range(s):
        value -= 0.5 * y[a] * y[a]
    return value


@njit(nogil=True, cache=True, error_model="numpy")
def _choose(  # type: ignore[no-untyped-def]
    C, b, M, free, f, need, d, w, z, h, constant, bound, cutoff, precision, psum, pcount, score,
    C2, b2, free2, w2, z2, p2, h2, work, state, places, L,
):  # fmt: skip
    """The place to split on: (place or -1, value it must take or -1; -2 for neither)."""
    gap = max(cutoff - bound, 0.0)
    least = _LEAST * gap
    for r in range(f):
        i = free[r]
        score[r] = -1.0
        if _FRACTION < z[r] < 1.0 - _FRACTION:
            # before there is history: what the penalty d w^2 / z alone would change
            own = 0.5 * d[i] * w[r] * w[r] / z[r]
            up = (1.0 - z[r]) * (psum[1, i] + own) / (pcount[1, i] + 1.0)
            down = z[r] * (psum[0, i] + own) / (pcount[0, i] + 1.0)
            score[r] = max(up, least, 1e-300) * max(down, least, 1e-300)
    best = -1.0
    chosen = -1
    trials = 0
    while True:
        m = -1
        top = -1.0
        for r in range(f):
            if score[r] > top:
                top = score[r]
                m = r
        if m < 0 or top < 0.0:
            break
        i = free[m]
        if pcount[0, i] >= _RELIABLE and pcount[1, i] >= _RELIABLE:
            if score[m] > best:
                chosen = m
            break
        if trials == _TRIALS:
            break
        trials += 1
        product = 1.0
        dead = 0
        forced = -1
        for side in range(2):
            for r in range(f):
                copy(C[r, :f], C2[r, :f])
                b2[r] = b[r]
                free2[r] = free[r]
            for r in range(f - 1):
                w2[r] = w[r + (r >= m)]
                z2[r] = z[r + (r >= m)]
            start = constant
            if side == 1:
                start += enter(C2, b2, f, m)
            drop_place(C2, b2, free2, f, m)
            value, lower = relax_subset(
                C2, b2, M, free2, f - 1, need - side, d, w2, z2, p2, h2, work, state, places, L,
                cutoff - start, precision, _TRIAL_ROUNDS,
            )  # fmt: skip
            rise = min(max(value + start - bound, 0.0), gap)
            if lower + start >= cutoff:
                dead += 1
                forced = 1 - side
            psum[side, i] += rise / abs(side - z[m])
            pcount[side, i] += 1.0
            product *= max(rise, least, 1e-300)
        if dead == 2:
            return m, -2
        if dead == 1:
            return m, forced
        score[m] = -1.0
        if product > best:
            best = product
            chosen = m
    return chosen, -1


@njit(nogil=True, cache=True, error_model="numpy")
def search_subsets(  # type: ignore[no-untyped-def]
    H, b0, M, k, fix, d, C, b, free, w, z, p, h, node_w, node_d, node_fix, node_bound, heap, slots,
    psum, pcount, trial_x, boxed, C2, L, R, S, work, wide, whole, counters, floats, passes, target,
):  # fmt: skip
    """Make at most ``passes`` passes over nodes; returns how many.

    Fewer: done, target met, or a candidate ``trial_x`` to be priced (``counters[ASKED]``).
    H (n, n) with a diagonal of 1, b0, M (n,), k: the problem. fix, d (n,): the active node by
    variable; C, b, free, w, z, p, h: the same by place. node_*: places for waiting nodes, the last
    n + 1 of them a stack. boxed (n,): where `box_bound` begins. C2, L, R, S (n, n), work (8, n),
    wide (8, n), whole (3, n): scratch.
    """
    n = b0.shape[0]
    capacity = heap.shape[0]
    state, places, free2 = whole[0], whole[1], whole[2]
    score, b2, w2, z2, p2, h2, step, trial = (
        wide[0], wide[1], wide[2], wide[3], wide[4], wide[5], wide[6], wide[7],
    )  # fmt: skip
    done = 0
    counters[ASKED] = 0
    while done < passes and floats[BEST] > target:
        if counters[ACTIVE] == 0:
            if counters[STACK] > 0:
                counters[STACK] -= 1
                slot = capacity + counters[STACK]
            elif counters[HEAP] > 0:
                slot = pop(heap, node_bound, counters)
                slots[counters[SLOTS]] = slot
                counters[SLOTS] += 1
            else:
                break
            floats[PARENT] = node_bound[slot]
            if floats[PARENT] >= floats[BEST] - floats[TOLERANCE]:
                continue
            copy(node_fix[slot], fix)
            copy(node_d[slot], d)
            _rebuild(H, b0, k, fix, node_w[slot], C, b, free, w, z, h, counters, floats)
            counters[NODES] += 1
            counters[ACTIVE] = 1
            counters[LAST] = -1
        done += 1
        f = counters[FREE]
        need = counters[NEED]
        cutoff = floats[BEST] - floats[TOLERANCE]
        if need == 0 or f <= need:
            # nothing is left to decide: every free variable is in, or none
            if need > 0:
                for r in range(f):
                    fix[free[r]] = 1
                    floats[CONSTANT] += enter(C, b, f, r)
            else:
                for r in range(f):
                    fix[free[r]] = 0
            counters[ACTIVE] = 0
            if floats[CONSTANT] < cutoff and counters[BOXED]:
                floats[CONSTANT] = box_bound(
                    H, b0, M, fix, d, free, 0, 0, z, boxed, b2, w2, z2, cutoff
                )
            if floats[CONSTANT] < cutoff:
                for i in range(n):
                    trial_x[i] = fix[i] == 1
                counters[ASKED] = 1
                break
            continue
        constant = floats[CONSTANT]
        precision = 0.25 * floats[TOLERANCE]
        value, own = relax_subset(
            C, b, M, free, f, need, d, w, z, p, h, work, state, places, L, cutoff - constant,
            max(precision, 0.01 * (cutoff - floats[PARENT])), _ROUNDS,
        )  # fmt: skip
        own += constant
        value += constant
        bound = max(own, floats[PARENT])
        if counters[BOXED] and bound < cutoff:
            inside = box_bound(H, b0, M, fix, d, free, f, need, z, boxed, b2, w2, z2, cutoff)
            bound = max(bound, inside)
        if counters[LAST] >= 0:
            rise = min(max(bound - floats[PARENT], 0.0), max(cutoff - floats[PARENT], 0.0))
            psum[counters[SIDE], counters[LAST]] += rise / floats[MOVED]
            pcount[counters[SIDE], counters[LAST]] += 1.0
            counters[LAST] = -1
        floats[PARENT] = bound
        if floats[ROOT] == -np.inf:
            floats[ROOT] = bound
        if bound >= cutoff:
            counters[ACTIVE] = 0
            continue
        if counters[TRIED] == 0:
            counters[TRIED] = 1
            price = _priced(C, b, f, need, h, z, L, score, b2, places) + constant
            # with bounds, one in a few: the caller's price is dear, and often above this one
            if price < floats[PRICE] and (
                counters[BOXED] == 0 or counters[NODES] % _BOXED_EVERY == 1
            ):
                for i in range(n):
                    trial_x[i] = fix[i] == 1
                for a in range(need):
                    trial_x[free[places[a]]] = 1
                counters[ASKED] = 1
                break
        # a variable whose other value would cost too much is fixed
        for r in range(f):
            b2[r] = -h[r]
        last_in = -smallest(b2, f, need - 1)
        first_out = 0.0
        for r in range(need, f):
            first_out = max(first_out, -b2[r])
        slack = cutoff - own
        changed = False
        count = 0
        for r in range(f - 1, -1, -1):
            if h[r] - first_out >= slack and h[r] > first_out and counters[NEED] > 0:
                fix[free[r]] = 1
                _take(C, b, free, w, z, h, counters, floats, r)
                changed = True
                count += 1
            elif last_in - h[r] >= slack and h[r] < last_in:
                fix[free[r]] = 0
                changed = changed or w[r] != 0.0
                _leave(C, b, free, w, z, h, counters, r)
                count += 1
        counters[FIXED] += count
        if changed or counters[FREE] <= counters[NEED] or counters[NEED] == 0:
            continue
        f = counters[FREE]
        if counters[IMPROVED] < _STEPS:
            counters[IMPROVED] += 1
            mu = _BARRIER * (cutoff - bound) / f
            if improve_diagonal(C, free, f, d, w, z, mu, L, R, S, step, trial):
                counters[TRIED] = 1
                continue
        chosen, forced = _choose(
            C, b, M, free, f, counters[NEED], d, w, z, h, constant, bound, cutoff, precision, psum,
            pcount, score, C2, b2, free2, w2, z2, p2, h2, work, state, places, L,
        )  # fmt: skip
        if forced == -2:
            counters[ACTIVE] = 0
            continue
        if forced >= 0:
            fix[free[chosen]] = forced
            if forced == 1:
                _take(C, b, free, w, z, h, counters, floats, chosen)
            else:
                _leave(C, b, free, w, z, h, counters, chosen)
            continue
        if chosen < 0:
            # a whole point that its own bound does not prove best: split on the heaviest
            chosen = 0
            for r in range(f):
                if z[r] * h[r] > z[chosen] * h[chosen]:
                    chosen = r
        i = free[chosen]
        side = 1 if z[chosen] >= 0.5 else 0
        # the other side waits
        if counters[SLOTS] > 0:
            counters[SLOTS] -= 1
            slot = slots[counters[SLOTS]]
            node_bound[slot] = bound
            push(heap, node_bound, counters, slot)
        else:
            slot = capacity + counters[STACK]
            counters[STACK] += 1
            node_bound[slot] = bound
        copy(fix, node_fix[slot])
        node_fix[slot, i] = 1 - side
        copy(d, node_d[slot])
        for j in range(n):
            node_w[slot, j] = 0.0
        for r in range(f):
            node_w[slot, free[r]] = w[r]
        counters[NODES] += 1
        floats[MOVED] = max(abs(side - z[chosen]), _FRACTION)
        counters[LAST] = i
        counters[SIDE] = side
        fix[i] = side
        if side == 1:
            _take(C, b, free, w, z, h, counters, floats, chosen)
        else:
            _leave(C, b, free, w, z, h, counters, chosen)
    return done
