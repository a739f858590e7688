"""The best exchange of all pairs, found without looking at all pairs; descents.

``delta(i, j) = h_i - h_j - J_ij`` is bounded below by ``h_i - max_j h_j - max_j J_ij``. The row
maxima of J never change, so the bound of every row costs O(n) a step; only the rows whose bound
beats the best pair so far are scanned, usually a handful. The pair found is the exact best one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from .exchange import ACCEPTED, BEST, BEST_STEP, CURRENT, IN_SWEEP, REFUSED, STEP, swap
from .instance import Instance
from .vector import FAST, copy, noisy_argmax, noisy_max, sum_argmax, sum_max, vmax

__all__ = ["PairWorkspace", "exchange_descent", "exchange_first", "row_maxima"]


def row_maxima(J: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Largest coupling of each variable within its group, shape (n,), in the precision of J."""
    out = np.zeros(int(starts[-1]), J.dtype)
    _row_maxima(J, starts, out)
    return out


@njit(nogil=True, cache=True, fastmath=FAST)
def _row_maxima(J, starts, out):  # type: ignore[no-untyped-def]
    for g in range(starts.shape[0] - 1):
        for i in range(starts[g], starts[g + 1]):
            out[i] = vmax(J[i, starts[g] : starts[g + 1]])


@njit(nogil=True, cache=True, fastmath=FAST)
def _best_pair(  # type: ignore[no-untyped-def]
    J, h, leave, tops, maxima, pruned, pruned_group, starts, free_at, step, limit,
):  # fmt: skip
    """The best exchange below ``limit``: (delta, slot in pruned, j), or slot -1 without one.

    ``leave``: h_j of the kept j that may leave, -inf elsewhere; ``tops``: its maximum a group.
    Only i with ``free_at[i] <= step`` may enter.
    """
    low = h.dtype.type(limit)
    slot = -1
    # the row of the lowest bound first: it often holds the best pair, and then prunes the others
    lead = -1
    least = h.dtype.type(np.inf)
    for p in range(pruned.shape[0]):
        i = pruned[p]
        if free_at[i] <= step:
            bound = h[i] - tops[pruned_group[p]] - maxima[i]
            if bound < least:
                least = bound
                lead = p
    if lead < 0 or not least < low:
        return 0.0, -1, -1
    for c in range(-1, pruned.shape[0]):
        p = lead if c < 0 else c
        i = pruned[p]
        if free_at[i] > step or c == lead:
            continue
        g = pruned_group[p]
        if not h[i] - tops[g] - maxima[i] < low:
            continue
        delta = h[i] - sum_max(leave[starts[g] : starts[g + 1]], J[i, starts[g] : starts[g + 1]])
        if delta < low:
            low = delta
            slot = p
    if slot < 0:
        return 0.0, -1, -1
    i = pruned[slot]
    first = starts[pruned_group[slot]]
    end = starts[pruned_group[slot] + 1]
    out = sum_argmax(leave[first:end], J[i, first:end]) + first
    return float(h[i]) - float(h[out]) - float(J[i, out]), slot, out


@njit(nogil=True, cache=True, fastmath=FAST)
def _leavers(h, mask, starts, free_at, step, leave, tops):  # type: ignore[no-untyped-def]
    """Fill ``leave`` and ``tops`` for `_best_pair`; tabu variables stay put."""
    for j in range(h.shape[0]):
        leave[j] = (h[j] + mask[j]) if free_at[j] <= step else h.dtype.type(-np.inf)
    for g in range(tops.shape[0]):
        tops[g] = vmax(leave[starts[g] : starts[g + 1]])


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def exchange_descent(  # type: ignore[no-untyped-def]
    J, h, x, mask, pruned, pruned_group, starts, maxima, free_at, leave, tops, counters, floats,
    best_x, steps, tolerance, target,
):  # fmt: skip
    """Steepest descent: the best exchange until none improves by more than ``tolerance``.

    ``free_at`` must be all zero. The list of kept variables is not kept up to date. Returns
    whether it stands in a local optimum.
    """
    current = floats[CURRENT]
    done = False
    for _ in range(steps):
        _leavers(h, mask, starts, free_at, 0, leave, tops)
        delta, slot, j = _best_pair(
            J, h, leave, tops, maxima, pruned, pruned_group, starts, free_at, 0, -tolerance
        )
        if slot < 0 or not delta < -tolerance:
            done = True
            break
        current += delta
        swap(J, h, x, mask, pruned[slot], j)
        pruned[slot] = j
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


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def exchange_first(  # type: ignore[no-untyped-def]
    J, h, x, mask, pruned, pruned_group, starts, counters, floats, best_x, steps, tolerance,
    target,
):  # fmt: skip
    """First improvement: lets pruned variables in, in turn, against the best kept one to go.

    Returns whether a whole round improved nothing by more than ``tolerance``: a local optimum.
    The list of kept variables is not kept up to date.
    """
    movers = pruned.shape[0]
    current = floats[CURRENT]
    for _ in range(steps):
        if counters[REFUSED] >= movers:
            break
        if counters[IN_SWEEP] >= movers:
            counters[IN_SWEEP] = 0
        p = counters[IN_SWEEP]
        counters[IN_SWEEP] += 1
        counters[STEP] += 1
        counters[REFUSED] += 1
        i = pruned[p]
        first = starts[pruned_group[p]]
        end = starts[pruned_group[p] + 1]
        hs = h[first:end]
        masks = mask[first:end]
        row = J[i, first:end]
        none = h.dtype.type(0.0)
        top = float(noisy_max(hs, row, masks, none, row))
        if not float(h[i]) - top < -tolerance:
            continue
        j = noisy_argmax(hs, row, masks, none, row) + first
        current += float(h[i]) - float(h[j]) - float(row[j - first])
        swap(J, h, x, mask, i, j)
        pruned[p] = j
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
    return counters[REFUSED] >= movers


class PairWorkspace:
    """Buffers of `exchange_descent` for one instance."""

    __slots__ = ("free_at", "leave", "maxima", "tops")

    def __init__(self, inst: Instance) -> None:
        self.maxima = row_maxima(inst.J, inst.starts)
        self.free_at = np.zeros(inst.n, np.int64)
        self.leave = np.zeros(inst.n, inst.J.dtype)
        self.tops = np.zeros(len(inst.starts) - 1, inst.J.dtype)
