"""Exchange tabu search on a moving window of the neighbourhood.

Looking at all pairs costs k(n - k) a step, and bounds on whole rows prune next to nothing on real
layers (measured: 121 of 128 rows stayed). A window of the pruned variables, at another place in
every step, is scanned instead: more steps in the same time, and the chance in it keeps the search
from cycling, so that tenures can be a few steps short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from .exchange import (
    ACCEPTED,
    BEST,
    BEST_STEP,
    CURRENT,
    HELD,
    MARGIN,
    RESTARTS,
    RUN_BEST,
    RUN_STEP,
    SINCE_REFRESH,
    STEP,
    ExchangeState,
    recompute,
)
from .rng import below, next_u64
from .vector import FAST, copy, fmax, sum_argmax, sum_max

__all__ = ["TabuList", "exchange_tabu"]


class TabuList:
    """What `exchange_tabu` keeps between calls, for one state.

    ``leave``, ``gate``: (stride,) fields and 0 of the kept variables that may leave, -inf
    elsewhere; ``held``: (n,) whether a variable is tabu; ``names``, ``until``: the tabu ones and
    the steps at which they are released.
    """

    __slots__ = ("gate", "held", "leave", "names", "until")

    def __init__(self, state: ExchangeState) -> None:
        n = state.inst.n
        self.gate = np.empty_like(state.wide_mask)
        self.leave = np.empty_like(state.wide_mask)
        self.held = np.zeros(n, np.int8)
        self.names: npt.NDArray[np.int64] = np.zeros(n + 2, np.int64)
        self.until: npt.NDArray[np.int64] = np.zeros(n + 2, np.int64)


@njit(nogil=True, cache=True, fastmath=FAST)
def _leavers(h, gate, leave):  # type: ignore[no-untyped-def]
    for m in range(h.shape[0]):
        leave[m] = h[m] + gate[m]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _from_incumbent(  # type: ignore[no-untyped-def]
    J, a, h, x, mask, best_x, pruned, pruned_group, kept, kept_starts, starts, rng, scratch,
    exchanges,
):  # fmt: skip
    """Load the incumbent and carry out random exchanges; the energy."""
    p = 0
    q = 0
    for g in range(starts.shape[0] - 1):
        if kept_starts[g + 1] == kept_starts[g]:
            continue
        for i in range(starts[g], starts[g + 1]):
            x[i] = best_x[i]
            if x[i]:
                kept[q] = i
                q += 1
            else:
                pruned[p] = i
                p += 1
    for _ in range(exchanges):
        p = below(rng, pruned.shape[0])
        g = pruned_group[p]
        q = kept_starts[g] + below(rng, kept_starts[g + 1] - kept_starts[g])
        i = pruned[p]
        j = kept[q]
        x[i] = 1
        x[j] = 0
        pruned[p] = j
        kept[q] = i
    for i in range(a.shape[0]):
        mask[i] = 0.0 if x[i] else -np.inf
    return recompute(J, a, x, h, scratch)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def exchange_tabu(  # type: ignore[no-untyped-def]
    J, a, h, x, mask, pruned, pruned_group, kept, kept_starts, starts, spans, gate, leave, held,
    names, until, rng, counters, floats, best_x, scratch, steps, rows, tenure, spread, stall,
    weakest, strongest, settled, refresh, target, patience,
):  # fmt: skip
    """The best exchange of a window of ``rows`` pruned variables with all kept ones, at each step.

    Both variables of an exchange are tabu for ``tenure`` plus up to ``spread - 1`` random steps,
    without aspiration. After ``stall`` steps without a better energy in this run, ``weakest`` to
    ``strongest`` random exchanges of the incumbent begin a new run. With ``settled`` > 0 the
    search comes to its end that many steps after four times those that the incumbent took.

    ``h``, ``mask``, ``gate`` and ``leave`` are as long as a row of J; ``spans`` are the slices of
    the groups, with the padding in the last. Returns whether the search came to its end.
    """
    movers = pruned.shape[0]
    n = a.shape[0]
    step = counters[STEP]
    last = step + steps
    since = counters[SINCE_REFRESH]
    tabu = counters[HELD]
    current = floats[CURRENT]
    best = floats[BEST]
    margin = floats[MARGIN]
    run_best = floats[RUN_BEST]
    low = np.uint64(0xFFFFFFFF)
    short = np.uint64(0xFFFF)
    half = np.uint64(32)
    quarter = np.uint64(16)
    window = min(rows, movers)
    single = spans.shape[0] == 2
    none = h.dtype.type(-np.inf)
    copy(mask, gate)
    for r in range(tabu):
        gate[names[r]] = none
    _leavers(h, gate, leave)
    ended = False
    while step < last:
        if settled > 0 and step >= settled + 4 * counters[BEST_STEP]:
            ended = True
            break
        if step - counters[RUN_STEP] >= stall:
            current = _from_incumbent(
                J, a, h, x, mask, best_x, pruned, pruned_group, kept, kept_starts, starts, rng,
                scratch, weakest + below(rng, strongest - weakest + 1),
            )  # fmt: skip
            tabu = 0
            for i in range(n):
                held[i] = 0
            copy(mask, gate)
            _leavers(h, gate, leave)
            since = 0
            run_best = current
            counters[RUN_STEP] = step
            counters[RESTARTS] += 1
            if current < best - margin or (current <= target and target < best):
                best = current
                copy(x, best_x)
                counters[BEST_STEP] = step
                if best <= target:
                    break
        u = next_u64(rng)
        p: Any = np.int64(((u & low) * np.uint64(movers)) >> half)
        slot = -1
        top = none
        for _ in range(window):
            i = pruned[p]
            if not held[i]:
                if single:
                    # `sum_max`, spelled out: the call costs as much as a short row
                    most = none
                    for c in range(leave.shape[0]):
                        most = fmax(most, leave[c] + J[i, c])
                    gain = most - h[i]
                else:
                    first = spans[pruned_group[p]]
                    end = spans[pruned_group[p] + 1]
                    gain = sum_max(leave[first:end], J[i, first:end]) - h[i]
                if gain > top:
                    top = gain
                    slot = p
            p += 1
            if p == movers:
                p = 0
        step += 1
        r = 0
        while r < tabu:
            if until[r] <= step:
                v = names[r]
                held[v] = 0
                gate[v] = mask[v]
                leave[v] = h[v] + mask[v]
                tabu -= 1
                names[r] = names[tabu]
                until[r] = until[tabu]
            else:
                r += 1
        if slot < 0:
            continue
        i = pruned[slot]
        first = spans[pruned_group[slot]]
        end = spans[pruned_group[slot] + 1]
        # those released just now may leave as well: at least as good as what the scan saw
        j = sum_argmax(leave[first:end], J[i, first:end]) + first
        current += float(h[i]) - float(h[j]) - float(J[i, j])
        x[i] = 1
        x[j] = 0
        mask[i] = 0.0
        mask[j] = none
        gate[j] = none
        pruned[slot] = j
        counters[ACCEPTED] += 1
        for v, bits in ((i, (u >> half) & short), (j, (u >> half) >> quarter)):
            free = step + tenure + np.int64((bits * np.uint64(spread)) >> quarter)
            if free > step:
                names[tabu] = v
                until[tabu] = free
                tabu += 1
                held[v] = 1
                gate[v] = none
            else:
                gate[v] = mask[v]
        for m in range(h.shape[0]):
            new = h[m] + (J[i, m] - J[j, m])
            h[m] = new
            leave[m] = new + gate[m]
        since += 1
        if since >= refresh:
            since = 0
            current = recompute(J, a, x, h, scratch)
            _leavers(h, gate, leave)
        if current < run_best - 4.0 * margin:
            run_best = current
            counters[RUN_STEP] = step
        if current < best - margin or (current <= target and target < best):
            # without the rounding that has piled up, by which an old incumbent may look better
            since = 0
            current = recompute(J, a, x, h, scratch)
            _leavers(h, gate, leave)
            if current < best - margin or (current <= target and target < best):
                best = current
                copy(x, best_x)
                counters[BEST_STEP] = step
                if best <= target:
                    break
        if step - counters[BEST_STEP] >= patience:
            break
    filled = 0
    for g in range(starts.shape[0] - 1):
        if kept_starts[g + 1] > kept_starts[g]:
            for i in range(starts[g], starts[g + 1]):
                if x[i]:
                    kept[filled] = i
                    filled += 1
    counters[STEP] = step
    counters[SINCE_REFRESH] = since
    counters[HELD] = tabu
    floats[CURRENT] = current
    floats[BEST] = best
    floats[RUN_BEST] = run_best
    return ended
