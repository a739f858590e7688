"""Branch and bound on the convex relaxation: the tree search itself, resumable at any node.

A node fixes some variables and bounds the rest by `relax_kernels`. It is bounded, its variables are
fixed where the tangent allows no other value, and it is split on one variable: the side nearer to
the relaxed point is followed at once (a dive), the other waits in a heap ordered by bound. When the
heap's memory is full, waiting nodes go to a stack of n entries instead, depth first.

The variable to split on is the one with the best product of expected rises on both sides. What is
expected is learnt (pseudo-costs); a variable without enough history is tried out.

Source: Achterberg, Koch and Martin, "Branching rules revisited", Operations Research Letters 33
(2005), reliability branching.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .relax_kernels import descend, relaxed_fields, set_value, smallest, tangent
from .vector import copy

__all__ = [
    "ACTIVE",
    "BEST",
    "FIXED",
    "HEAP",
    "LAST",
    "MOVED",
    "NODES",
    "PARENT",
    "ROOT",
    "SIDE",
    "SLOTS",
    "STACK",
    "TOLERANCE",
    "explore",
    "open_bound",
    "pop",
    "push",
]

# counters, int64. ACTIVE: whether x, g, fix hold a node; HEAP, STACK: waiting nodes; SLOTS: free
# places; LAST, SIDE: variable and value of the split that led here, or -1; FIXED: by the tangent
NODES, ACTIVE, HEAP, STACK, SLOTS, LAST, SIDE, FIXED = range(8)
# floats. BEST: energy of the incumbent; TOLERANCE: what an answer may be above the optimum; PARENT:
# bound of the node's parent; MOVED: how far the last split moved its variable; ROOT: first bound
BEST, TOLERANCE, PARENT, MOVED, ROOT = range(5)

# a variable is fractional if it is this far from 0 and 1
_FRACTION = 1e-6
# rises are at least this share of the gap, so that products tell zeros apart
_LEAST = 1e-6
# splits of a variable to each side until its pseudo-cost is trusted; trials a node
_RELIABLE = 4
_TRIALS = 4
# rounds of n / 4 steps that a node (a trial) may spend on its relaxation
_ROUNDS = 60
_TRIAL_ROUNDS = 2


@njit(nogil=True, cache=True)
def _bound(  # type: ignore[no-untyped-def]
    M, c, x, g, fix, starts, grouped, need, last_in, first_out, buffer, cutoff, precision, rounds,
):  # fmt: skip
    """Descend until the node is pruned, converged or clearly not to be pruned: (value, bound)."""
    steps = max(8, x.shape[0] // 4)
    value = np.inf
    bound = -np.inf
    for _ in range(rounds):
        done = descend(M, x, g, fix, starts, grouped, steps, precision)
        value, bound = tangent(c, x, g, fix, starts, grouped, need, last_in, first_out, buffer)
        if bound >= cutoff or done < steps or value - bound < 0.1 * (cutoff - value):
            break
    return value, bound


@njit(nogil=True, cache=True)
def _fix_by_gradient(M, x, g, fix, group, starts, grouped, need, last_in, first_out, wanted, slack):  # type: ignore[no-untyped-def]
    """Fix every variable whose other value would cost ``slack`` or more.

    Returns (number fixed, whether the relaxed point moved, whether the node is still feasible).
    """
    n = x.shape[0]
    count = 0
    # decide for all before anything moves: the tangent holds at this point alone
    for m in range(n):
        wanted[m] = -1
        if fix[m] < 0:
            if grouped:
                a = group[m]
                up = g[m] - last_in[a]
                down = first_out[a] - g[m]
            else:
                up = g[m]
                down = -g[m]
            if up > 0.0 and up >= slack:
                wanted[m] = 0
            elif down > 0.0 and down >= slack:
                wanted[m] = 1
    moved = False
    for m in range(n):
        if wanted[m] >= 0:
            count += 1
            value = float(wanted[m])
            if grouped and wanted[m] == 1:
                need[group[m]] -= 1
            if x[m] == value:
                fix[m] = wanted[m]
                continue
            moved = True
            first = starts[group[m]] if grouped else 0
            end = starts[group[m] + 1] if grouped else 0
            if not set_value(M, x, g, fix, m, value, first, end):
                return count, moved, False
    return count, moved, True


@njit(nogil=True, cache=True)
def _round(M, c, x, fix, starts, grouped, need, buffer, y):  # type: ignore[no-untyped-def]
    """Fill y with the nearest feasible assignment; returns its energy (in floating point)."""
    n = x.shape[0]
    if grouped:
        for a in range(starts.shape[0] - 1):
            size = 0
            for m in range(starts[a], starts[a + 1]):
                if fix[m] < 0:
                    buffer[size] = -x[m]
                    size += 1
            k = need[a]
            at = smallest(buffer, size, k - 1) if 0 < k <= size else -np.inf
            above = 0
            for m in range(starts[a], starts[a + 1]):
                above += fix[m] < 0 and -x[m] < at
            ties = k - above
            for m in range(starts[a], starts[a + 1]):
                if fix[m] >= 0:
                    y[m] = fix[m]
                elif k > 0 and -x[m] < at:
                    y[m] = 1
                elif k > 0 and -x[m] == at and ties > 0:
                    y[m] = 1
                    ties -= 1
                else:
                    y[m] = 0
    else:
        for m in range(n):
            y[m] = 1 if x[m] > 0.5 else 0
    energy = 0.0
    for i in range(n):
        if y[i]:
            row = M[i]
            s = 0.0
            for m in range(n):
                s += row[m] * y[m]
            energy += c[i] + 0.5 * s
    return energy


@njit(nogil=True, cache=True)
def _choose(  # type: ignore[no-untyped-def]
    M, c, x, g, fix, group, starts, grouped, need, last_in, first_out, bound, cutoff, precision,
    psum, pcount, score, x2, g2, fix2, need2, buffer,
):  # fmt: skip
    """The variable to split on: (index or -1, value it must take or -1).

    A forced value means that a trial pruned the other side; -2 that it pruned both.
    """
    n = x.shape[0]
    gap = max(cutoff - bound, 0.0)
    least = _LEAST * gap
    for m in range(n):
        score[m] = -1.0
        if fix[m] < 0 and _FRACTION < x[m] < 1.0 - _FRACTION:
            # before there is history: the rise of a move along x_m alone
            own = 0.5 * M[m, m]
            up = (1.0 - x[m]) * (psum[1, m] + own * (1.0 - x[m])) / (pcount[1, m] + 1.0)
            down = x[m] * (psum[0, m] + own * x[m]) / (pcount[0, m] + 1.0)
            score[m] = max(up, least, 1e-300) * max(down, least, 1e-300)
    best = -1.0
    chosen = -1
    trials = 0
    while True:
        m = int(np.argmax(score))
        if score[m] < 0.0:
            break
        if pcount[0, m] >= _RELIABLE and pcount[1, m] >= _RELIABLE:
            if score[m] > best:
                chosen = m
            break
        if trials == _TRIALS:
            break
        trials += 1
        product = 1.0
        dead = 0
        for side in range(2):
            copy(x, x2)
            copy(g, g2)
            copy(fix, fix2)
            for a in range(need.shape[0]):
                need2[a] = need[a]
            first = 0
            end = 0
            if grouped:
                first = starts[group[m]]
                end = starts[group[m] + 1]
                need2[group[m]] -= side
            rise = gap
            if set_value(M, x2, g2, fix2, m, float(side), first, end):
                value, least_there = _bound(
                    M, c, x2, g2, fix2, starts, grouped, need2, last_in, first_out, buffer, cutoff,
                    precision, _TRIAL_ROUNDS,
                )  # fmt: skip
                # the value is near the relaxation's minimum long before the tangent proves it
                rise = min(max(value - bound, 0.0), gap)
                if least_there >= cutoff:
                    dead += 1
                    forced = 1 - side
            else:
                dead += 1
                forced = 1 - side
            psum[side, m] += rise / (1.0 - x[m] if side else x[m])
            pcount[side, m] += 1.0
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


@njit(nogil=True, cache=True)
def push(heap, bounds, counters, slot):  # type: ignore[no-untyped-def]
    """Put a place into the heap of ``counters[HEAP]`` places, ordered by their bounds."""
    p = counters[HEAP]
    counters[HEAP] += 1
    b = bounds[slot]
    while p > 0:
        q = (p - 1) // 2
        if bounds[heap[q]] <= b:
            break
        heap[p] = heap[q]
        p = q
    heap[p] = slot


@njit(nogil=True, cache=True)
def pop(heap, bounds, counters):  # type: ignore[no-untyped-def]
    """Take the place of the least bound out of the heap."""
    slot = heap[0]
    counters[HEAP] -= 1
    size = counters[HEAP]
    last = heap[size]
    p = 0
    while True:
        q = 2 * p + 1
        if q >= size:
            break
        if q + 1 < size and bounds[heap[q + 1]] < bounds[heap[q]]:
            q += 1
        if bounds[heap[q]] >= bounds[last]:
            break
        heap[p] = heap[q]
        p = q
    heap[p] = last
    return slot


@njit(nogil=True, cache=True)
def explore(  # type: ignore[no-untyped-def]
    M, c, group, starts, k, x, g, fix, need, node_x, node_fix, node_bound, heap, places, psum,
    pcount, best_x, work, fix2, need2, ends, counters, floats, passes, target,
):  # fmt: skip
    """Make at most ``passes`` passes over nodes; returns how many (fewer: done, or target met).

    M (n, n), c (n,) the convexified energy; group (n,), starts, k the counts (k empty: none).
    x, g, fix, need: the active node. node_x, node_fix, node_bound: places for waiting nodes, the
    last n + 1 of them a stack; heap, places: indices. psum, pcount (2, n): pseudo-costs.
    work (4, n), fix2, need2, ends (2, n_groups): scratch.
    """
    n = x.shape[0]
    grouped = k.shape[0] > 0
    capacity = heap.shape[0]
    buffer, x2, g2, score = work[0], work[1], work[2], work[3]
    last_in, first_out = ends[0], ends[1]
    done = 0
    while done < passes and floats[BEST] > target:
        if counters[ACTIVE] == 0:
            if counters[STACK] > 0:
                counters[STACK] -= 1
                slot = capacity + counters[STACK]
            elif counters[HEAP] > 0:
                slot = pop(heap, node_bound, counters)
                places[counters[SLOTS]] = slot
                counters[SLOTS] += 1
            else:
                break
            floats[PARENT] = node_bound[slot]
            if floats[PARENT] >= floats[BEST] - floats[TOLERANCE]:
                continue
            copy(node_x[slot], x)
            copy(node_fix[slot], fix)
            relaxed_fields(M, c, x, g)
            counters[NODES] += 1
            counters[ACTIVE] = 1
            counters[LAST] = -1
            if grouped:
                for a in range(k.shape[0]):
                    need[a] = k[a]
                for m in range(n):
                    if fix[m] == 1:
                        need[group[m]] -= 1
        done += 1
        cutoff = floats[BEST] - floats[TOLERANCE]
        precision = 0.25 * floats[TOLERANCE] / n
        _, own = _bound(
            M, c, x, g, fix, starts, grouped, need, last_in, first_out, buffer, cutoff,
            precision, _ROUNDS,
        )  # fmt: skip
        bound = max(own, floats[PARENT])
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
        # a pass that changes something leaves the node active, and the next pass looks again
        energy = _round(M, c, x, fix, starts, grouped, need, buffer, fix2)
        if energy < floats[BEST]:
            floats[BEST] = energy
            copy(fix2, best_x)
            continue
        fixed, moved, feasible = _fix_by_gradient(
            M, x, g, fix, group, starts, grouped, need, last_in, first_out, fix2, cutoff - own
        )
        counters[FIXED] += fixed
        if not feasible:
            counters[ACTIVE] = 0
        if moved:
            continue
        chosen, forced = _choose(
            M, c, x, g, fix, group, starts, grouped, need, last_in, first_out, bound, cutoff,
            precision, psum, pcount, score, x2, g2, fix2, need2, buffer,
        )  # fmt: skip
        if forced == -2:
            counters[ACTIVE] = 0
            continue
        if forced >= 0:
            first = starts[group[chosen]] if grouped else 0
            end = starts[group[chosen] + 1] if grouped else 0
            if grouped:
                need[group[chosen]] -= forced
            if not set_value(M, x, g, fix, chosen, float(forced), first, end):
                counters[ACTIVE] = 0
            continue
        if chosen < 0:
            # an integral point that its own tangent does not prove best: split on what is free
            for m in range(n):
                if fix[m] < 0:
                    chosen = m
                    break
            if chosen < 0:
                counters[ACTIVE] = 0
                continue
        side = 1 if x[chosen] >= 0.5 else 0
        first = starts[group[chosen]] if grouped else 0
        end = starts[group[chosen] + 1] if grouped else 0
        # the other side waits
        copy(x, x2)
        copy(g, g2)
        copy(fix, fix2)
        if set_value(M, x2, g2, fix2, chosen, 1.0 - side, first, end):
            if counters[SLOTS] > 0:
                counters[SLOTS] -= 1
                slot = places[counters[SLOTS]]
                node_bound[slot] = bound
                push(heap, node_bound, counters, slot)
            else:
                slot = capacity + counters[STACK]
                counters[STACK] += 1
                node_bound[slot] = bound
            copy(x2, node_x[slot])
            copy(fix2, node_fix[slot])
        counters[NODES] += 1
        floats[MOVED] = max(abs(side - x[chosen]), _FRACTION)
        counters[LAST] = chosen
        counters[SIDE] = side
        if grouped:
            need[group[chosen]] -= side
        if not set_value(M, x, g, fix, chosen, float(side), first, end):
            counters[ACTIVE] = 0
    return done


@njit(nogil=True, cache=True)
def open_bound(node_bound, heap, counters, floats):  # type: ignore[no-untyped-def]
    """The least bound of all nodes not done with; inf when there are none."""
    least = np.inf
    for p in range(counters[HEAP]):
        least = min(least, node_bound[heap[p]])
    for p in range(counters[STACK]):
        least = min(least, node_bound[heap.shape[0] + p])
    if counters[ACTIVE] == 1:
        least = min(least, floats[PARENT])
    return least
