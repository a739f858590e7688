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
    CLOCK,
    CURRENT,
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

# steps at which a variable becomes free: since ever, and never
_FREE, _NEVER = -1, 2**31 - 1
# runs without a better incumbent after which they begin an exchange further away from it
_PATIENCE = 4


class TabuList:
    """What `exchange_tabu` keeps between calls, for one state.

    ``leave_at``: (stride,) int32, the last step at which a kept variable must stay, never for
    pruned ones; ``enter_at``: (n,) int32, the same for pruned variables. Steps count from
    ``counters[CLOCK]``, which is below 0 before the first call. ``leave``: (stride,) fields of
    the kept variables that may leave, -inf elsewhere.
    """

    __slots__ = ("enter_at", "leave", "leave_at")

    def __init__(self, state: ExchangeState) -> None:
        self.leave = np.empty_like(state.wide_mask)
        self.leave_at: npt.NDArray[np.int32] = np.empty(len(self.leave), np.int32)
        self.enter_at: npt.NDArray[np.int32] = np.empty(state.inst.n, np.int32)
        state.counters[CLOCK] = -1


@njit(nogil=True, cache=True)
def _release(mask, leave_at, enter_at):  # type: ignore[no-untyped-def]
    """Nothing is tabu."""
    for m in range(mask.shape[0]):
        leave_at[m] = _FREE if mask[m] == 0.0 else _NEVER
    for m in range(enter_at.shape[0]):
        enter_at[m] = _FREE


@njit(nogil=True, cache=True)
def _set_clock(leave_at, enter_at, elapsed):  # type: ignore[no-untyped-def]
    """Count steps from now on, ``elapsed`` of them later than before."""
    for m in range(leave_at.shape[0]):
        if leave_at[m] != _NEVER:
            leave_at[m] = max(leave_at[m] - elapsed, np.int64(_FREE))
    for m in range(enter_at.shape[0]):
        enter_at[m] = max(enter_at[m] - elapsed, np.int64(_FREE))


@njit(nogil=True, cache=True, fastmath=FAST)
def _leavers(h, leave_at, now, leave):  # type: ignore[no-untyped-def]
    none = h.dtype.type(-np.inf)
    for m in range(h.shape[0]):
        leave[m] = h[m] if leave_at[m] <= now else none


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
    J, a, h, x, mask, pruned, pruned_group, kept, kept_starts, starts, spans, leave, leave_at,
    enter_at, rng, counters, floats, best_x, scratch, steps, rows, tenure, spread, stall,
    weakest, strongest, settled, refresh, target, patience,
):  # fmt: skip
    """The best exchange of a window of ``rows`` pruned variables with all kept ones, at each step.

    Both variables of an exchange are tabu for ``tenure`` plus up to ``spread - 1`` random steps,
    without aspiration. After ``stall`` steps without a better energy in this run, at least
    ``weakest`` random exchanges of the incumbent begin a new run: one more at most, and another
    one for every `_PATIENCE` runs that have led to none better, up to ``strongest``. With
    ``settled`` > 0 the search comes to its end that many steps after four times those that the
    incumbent took.

    ``h``, ``mask``, ``leave`` and ``leave_at`` are as long as a row of J; ``spans`` are the slices
    of the groups, with the padding in the last. ``steps`` must be below 2**30. Returns whether the
    search came to its end.
    """
    movers = pruned.shape[0]
    begin = counters[STEP]
    step = begin
    last = step + steps
    since = counters[SINCE_REFRESH]
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
    if counters[CLOCK] < 0:
        _release(mask, leave_at, enter_at)
    else:
        _set_clock(leave_at, enter_at, begin - counters[CLOCK])
    counters[CLOCK] = begin
    now = np.int32(0)
    _leavers(h, leave_at, now, leave)
    ended = False
    while step < last:
        if settled > 0 and step >= settled + 4 * counters[BEST_STEP]:
            ended = True
            break
        if step - counters[RUN_STEP] >= stall:
            # the longer without a better incumbent, the further away
            grown = 1 + (step - counters[BEST_STEP]) // (_PATIENCE * stall)
            current = _from_incumbent(
                J, a, h, x, mask, best_x, pruned, pruned_group, kept, kept_starts, starts, rng,
                scratch, weakest + below(rng, min(strongest - weakest, grown) + 1),
            )  # fmt: skip
            _release(mask, leave_at, enter_at)
            _leavers(h, leave_at, now, leave)
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
        # the window wraps around: its two parts
        for end in (min(p + window, movers), p + window - movers):
            # four rows at a time, `sum_max` spelled out: a call costs as much as a short row
            while single and p + 4 <= end:
                i0 = pruned[p]
                i1 = pruned[p + 1]
                i2 = pruned[p + 2]
                i3 = pruned[p + 3]
                m0 = none
                m1 = none
                m2 = none
                m3 = none
                for c in range(leave.shape[0]):
                    v = leave[c]
                    m0 = fmax(m0, v + J[i0, c])
                    m1 = fmax(m1, v + J[i1, c])
                    m2 = fmax(m2, v + J[i2, c])
                    m3 = fmax(m3, v + J[i3, c])
                m0 = m0 - h[i0] if enter_at[i0] <= now else none
                m1 = m1 - h[i1] if enter_at[i1] <= now else none
                m2 = m2 - h[i2] if enter_at[i2] <= now else none
                m3 = m3 - h[i3] if enter_at[i3] <= now else none
                if fmax(fmax(m0, m1), fmax(m2, m3)) > top:
                    for q, gain in enumerate((m0, m1, m2, m3)):
                        if gain > top:
                            top = gain
                            slot = p + q
                p += 4
            while p < end:
                i = pruned[p]
                if enter_at[i] <= now:
                    first = spans[pruned_group[p]]
                    stop = spans[pruned_group[p] + 1]
                    gain = sum_max(leave[first:stop], J[i, first:stop]) - h[i]
                    if gain > top:
                        top = gain
                        slot = p
                p += 1
            p = 0
        step += 1
        now = np.int32(step - begin)
        if slot < 0:
            _leavers(h, leave_at, now, leave)
            continue
        i = pruned[slot]
        first = spans[pruned_group[slot]]
        stop = spans[pruned_group[slot] + 1]
        j = sum_argmax(leave[first:stop], J[i, first:stop]) + first
        current += float(h[i]) - float(h[j]) - float(J[i, j])
        x[i] = 1
        x[j] = 0
        mask[i] = 0.0
        mask[j] = none
        pruned[slot] = j
        counters[ACCEPTED] += 1
        wait = tenure + np.int64((((u >> half) & short) * np.uint64(spread)) >> quarter)
        leave_at[i] = now + wait
        leave_at[j] = _NEVER
        wait = tenure + np.int64(((u >> half >> quarter) * np.uint64(spread)) >> quarter)
        enter_at[j] = now + wait
        for m in range(h.shape[0]):
            new = h[m] + (J[i, m] - J[j, m])
            h[m] = new
            leave[m] = new if leave_at[m] <= now else none
        since += 1
        if since >= refresh:
            since = 0
            current = recompute(J, a, x, h, scratch)
            _leavers(h, leave_at, now, leave)
        if current < run_best - 4.0 * margin:
            run_best = current
            counters[RUN_STEP] = step
        if current < best - margin or (current <= target and target < best):
            # without the rounding that has piled up, by which an old incumbent may look better
            since = 0
            current = recompute(J, a, x, h, scratch)
            _leavers(h, leave_at, now, leave)
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
    floats[CURRENT] = current
    floats[BEST] = best
    floats[RUN_BEST] = run_best
    return ended
