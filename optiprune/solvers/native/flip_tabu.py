"""One-flip tabu search: one row of J a step, and one pass over the fields.

That pass finds the best gain of all and the best free one of each block at once; which flip it is,
is looked up in one block afterwards. (Adding the row in the same pass was slower from n = 1000 on:
the row comes from memory, and fewer loads are then under way.)
"""

from __future__ import annotations

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
    recompute,
)
from .flips import FlipState, best_flip
from .rng import below
from .vector import BEYOND, FAST, copy, fmax

__all__ = ["FlipTabuList", "flip_tabu"]

# variables whose best flip is kept apart: one reduction for so many
_BLOCK = 128


class FlipTabuList:
    """What `flip_tabu` keeps between calls, for one state and tenures below ``longest``.

    ``gate``: (n,) 0, -inf where tabu; ``free_at``: (n,) the tick at which that ends; ``head``,
    ``after``: for each tick, modulo ``longest``, a linked list of the variables to look at then;
    ``tops``: the best free flip of each block.
    """

    __slots__ = ("after", "free_at", "gate", "head", "longest", "tops")

    def __init__(self, state: FlipState, longest: int) -> None:
        n = state.inst.n
        self.longest = longest
        self.gate = np.zeros(n, state.h.dtype)
        self.free_at: npt.NDArray[np.int64] = np.zeros(n, np.int64)
        self.head: npt.NDArray[np.int64] = np.full(longest, -1, np.int64)
        self.after: npt.NDArray[np.int64] = np.full(n, -1, np.int64)
        self.tops = np.zeros(-(-n // _BLOCK), state.h.dtype)


@njit(nogil=True, cache=True, fastmath=FAST)
def _look(h, sign, gate, tops):  # type: ignore[no-untyped-def]
    """Fill ``tops`` and return the best flip of all, tabu or not, as gains."""
    n = h.shape[0]
    best = h.dtype.type(-np.inf)
    for b in range(n // _BLOCK):
        top = h.dtype.type(-np.inf)
        for c in range(_BLOCK):
            gain = -sign[b * _BLOCK + c] * h[b * _BLOCK + c]
            best = fmax(best, gain)
            top = fmax(top, gain + gate[b * _BLOCK + c])
        tops[b] = top
    if n % _BLOCK:
        top = h.dtype.type(-np.inf)
        for j in range(n // _BLOCK * _BLOCK, n):
            gain = -sign[j] * h[j]
            best = fmax(best, gain)
            top = fmax(top, gain + gate[j])
        tops[n // _BLOCK] = top
    return best


@njit(nogil=True, cache=True, fastmath=FAST)
def _find(h, sign, gate, first, end, top):  # type: ignore[no-untyped-def]
    """The first of a block whose gain is ``top``; -1 if there is none. As `vector.argmax`."""
    at = BEYOND
    for j in range(np.int32(end - first)):
        gain = -sign[first + j] * h[first + j] + gate[first + j]
        where = np.int32(j) if gain == top else BEYOND
        at = where if where < at else at
    return first + np.int64(at) if at < BEYOND else -1


@njit(nogil=True, cache=True, fastmath=FAST)
def _freest(h, sign, gate, tops):  # type: ignore[no-untyped-def]
    """The best flip that is not tabu; -1 if there is none."""
    n = h.shape[0]
    at = -1
    top = h.dtype.type(-np.inf)
    for b in range(tops.shape[0]):
        if tops[b] > top:
            top = tops[b]
            at = b
    if at < 0:
        return -1
    return _find(h, sign, gate, at * _BLOCK, min(n, (at + 1) * _BLOCK), top)


@njit(nogil=True, cache=True)
def _hold(v, tick, free_at, head, after, queued):  # type: ignore[no-untyped-def]
    """Make v tabu until ``tick``; ``queued`` where it is in a list already."""
    free_at[v] = tick
    if not queued:
        at = tick % head.shape[0]
        after[v] = head[at]
        head[at] = v


@njit(nogil=True, cache=True, fastmath=FAST)
def _release(now, h, sign, gate, free_at, head, after, tops):  # type: ignore[no-untyped-def]
    at = now % head.shape[0]
    v = head[at]
    head[at] = -1
    while v >= 0:
        following = after[v]
        if free_at[v] <= now:
            gate[v] = 0.0
            tops[v // _BLOCK] = fmax(tops[v // _BLOCK], -sign[v] * h[v])
        else:
            _hold(v, free_at[v], free_at, head, after, False)
        v = following


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def flip_tabu(  # type: ignore[no-untyped-def]
    J, a, h, x, sign, gate, free_at, head, after, tops, rng, counters, floats, best_x, scratch,
    steps, tenure, spread, stall, weakest, strongest, refresh, target, patience,
):  # fmt: skip
    """One-flip tabu search: the best flip that is not tabu, or that beats the incumbent.

    A flipped variable is tabu for ``tenure`` plus up to ``spread - 1`` random steps. After
    ``stall`` steps without a better energy in this run, between ``weakest`` and ``strongest``
    random variables of the incumbent are flipped and a new run begins there (iterated tabu
    search; Palubeckis, "Iterated tabu search for the unconstrained binary quadratic optimization
    problem", Informatica 17 (2006)). The first call needs ``counters[CLOCK] == 0``.
    """
    n = h.shape[0]
    step = counters[STEP]
    last = step + steps
    since = counters[SINCE_REFRESH]
    current = floats[CURRENT]
    best = floats[BEST]
    margin = floats[MARGIN]
    run_best = floats[RUN_BEST]
    now = counters[CLOCK]
    none = h.dtype.type(-np.inf)
    top = _look(h, sign, gate, tops)
    while step < last:
        if step - counters[RUN_STEP] >= stall:
            for j in range(n):
                x[j] = best_x[j]
                gate[j] = 0.0
                free_at[j] = 0
            for r in range(head.shape[0]):
                head[r] = -1
            for _ in range(weakest + below(rng, strongest - weakest + 1)):
                j = below(rng, n)
                x[j] = 1 - x[j]
                # kept away from its old value until the search has moved on
                queued = gate[j] < 0.0
                until = now + tenure + below(rng, spread)
                if until > now:
                    _hold(j, until, free_at, head, after, queued)
                    gate[j] = none
            for j in range(n):
                sign[j] = 1 - 2 * x[j]
            current = recompute(J, a, x, h, scratch)
            top = _look(h, sign, gate, tops)
            since = 0
            run_best = current
            counters[RUN_STEP] = step
            counters[RESTARTS] += 1
        i = -1
        if current - float(top) < best - margin:
            # aspiration: tabu or not
            i = best_flip(h, sign)
        else:
            i = _freest(h, sign, gate, tops)
            if i < 0:
                i = best_flip(h, sign)
        s = sign[i]
        current += float(s * h[i])
        x[i] = 1 - x[i]
        sign[i] = -s
        step += 1
        now += 1
        queued = gate[i] < 0.0
        until = now + tenure + below(rng, spread)
        if until > now:
            _hold(i, until, free_at, head, after, queued)
            gate[i] = none
        for m in range(n):
            h[m] += s * J[i, m]
        top = _look(h, sign, gate, tops)
        _release(now, h, sign, gate, free_at, head, after, tops)
        since += 1
        if since >= refresh:
            since = 0
            current = recompute(J, a, x, h, scratch)
            top = _look(h, sign, gate, tops)
        if current < run_best - 4.0 * margin:
            run_best = current
            counters[RUN_STEP] = step
        if current < best - margin or (current <= target and target < best):
            best = current
            copy(x, best_x)
            counters[BEST_STEP] = step
            if best <= target:
                break
        if step - counters[BEST_STEP] >= patience:
            break
    counters[CLOCK] = now
    counters[ACCEPTED] += step - counters[STEP]
    counters[STEP] = step
    counters[SINCE_REFRESH] = since
    floats[CURRENT] = current
    floats[BEST] = best
    floats[RUN_BEST] = run_best
