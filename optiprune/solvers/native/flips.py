"""Single-flip moves without constraints: the state, and the kernels of annealing and tabu search.

Flipping x_i changes the energy by ``(1 - 2 x_i) h_i`` and every field by one row of J.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    IN_SWEEP,
    MARGIN,
    REFUSED,
    RESTARTS,
    RUN_BEST,
    RUN_STEP,
    SINCE_REFRESH,
    STEP,
    TEMPERATURE,
    recompute,
    rounding,
)
from .instance import Instance
from .rng import below, uniform
from .vector import BLOCK, FAST, copy, fmax

# ticks after which the clock of tabu tenures starts again
_WRAP = 1 << 30

__all__ = ["FlipState", "flip_descent", "flip_first", "flip_metropolis", "flip_tabu"]


@dataclass(slots=True, eq=False)
class FlipState:
    """Where a search over all assignments stands; the kernels change the arrays in place.

    ``sign`` is 1 - 2x in the precision of J, ``free_at`` the tick of the clock at which a flip
    stops being tabu; the others are as in `ExchangeState`.
    """

    inst: Instance
    h: npt.NDArray[Any]
    x: npt.NDArray[np.int8]
    sign: npt.NDArray[Any]
    best_x: npt.NDArray[np.int8]
    scratch: npt.NDArray[np.float64]
    free_at: npt.NDArray[np.int32]
    counters: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(16, np.int64))
    floats: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.array([0.0, np.inf, 0.0, np.inf, 0.0])
    )

    @classmethod
    def at(cls, inst: Instance, x: npt.NDArray[np.int8]) -> FlipState:
        """The state at x, which becomes the incumbent."""
        n = inst.n
        state = cls(
            inst,
            h=np.zeros(n, inst.J.dtype),
            x=x.copy(),
            sign=np.zeros(n, inst.J.dtype),
            best_x=x.copy(),
            scratch=np.zeros(n),
            free_at=np.zeros(n, np.int32),
        )
        state.load(x)
        return state

    def load(self, x: npt.NDArray[np.int8]) -> None:
        """Restart from x; the incumbent is kept if it is better."""
        self.x[:] = x
        self.sign[:] = 1 - 2 * x
        inst = self.inst
        now = recompute(inst.J, inst.a, self.x, self.h, self.scratch)
        self.floats[CURRENT] = now
        self.floats[RUN_BEST] = now
        self.floats[MARGIN] = rounding(inst, self.h)
        self.counters[SINCE_REFRESH] = 0
        self.counters[RUN_STEP] = self.counters[STEP]
        if now < self.floats[BEST]:
            self.floats[BEST] = now
            self.best_x[:] = x
            self.counters[BEST_STEP] = self.counters[STEP]

    def forget(self) -> None:
        """Make the present assignment the incumbent, whatever was before."""
        self.floats[BEST] = self.floats[CURRENT]
        self.best_x[:] = self.x
        self.counters[BEST_STEP] = self.counters[STEP]

    @property
    def can_move(self) -> bool:
        return self.inst.n > 0


@njit(nogil=True, cache=True, fastmath=FAST)
def flip(J, h, x, sign, i):  # type: ignore[no-untyped-def]
    """Flip x_i and update fields and sign."""
    row = J[i]
    s = sign[i]
    for m in range(h.shape[0]):
        h[m] += s * row[m]
    x[i] = 1 - x[i]
    sign[i] = -s


@njit(nogil=True, cache=True, fastmath=FAST)
def _best_flip(h, sign):  # type: ignore[no-untyped-def]
    """Index of the least ``sign * h``, n >= 1. By blocks: see `vector`."""
    n = h.shape[0]
    top = h.dtype.type(-np.inf)
    where = 0
    for b in range(n // BLOCK):
        m = top
        for c in range(BLOCK):
            m = fmax(m, -sign[b * BLOCK + c] * h[b * BLOCK + c])
        if m > top:
            top = m
            where = b * BLOCK
    m = top
    for j in range(n // BLOCK * BLOCK, n):
        m = fmax(m, -sign[j] * h[j])
    if m > top:
        top = m
        where = n // BLOCK * BLOCK
    for j in range(where, min(where + BLOCK, n)):
        if -sign[j] * h[j] == top:
            return j
    return where


@njit(nogil=True, cache=True, fastmath=FAST)
def _best_free_flip(h, sign, free_at, now):  # type: ignore[no-untyped-def]
    """Index of the least ``sign * h`` with ``free_at <= now``; -1 if there is none."""
    n = h.shape[0]
    tick = np.int32(now)
    none = h.dtype.type(-np.inf)
    top = none
    where = -1
    for b in range(n // BLOCK):
        m = top
        for c in range(BLOCK):
            j = b * BLOCK + c
            m = fmax(m, -sign[j] * h[j] if free_at[j] <= tick else none)
        if m > top:
            top = m
            where = b * BLOCK
    m = top
    for j in range(n // BLOCK * BLOCK, n):
        m = fmax(m, -sign[j] * h[j] if free_at[j] <= tick else none)
    if m > top:
        top = m
        where = n // BLOCK * BLOCK
    if where >= 0:
        for j in range(where, min(where + BLOCK, n)):
            if free_at[j] <= tick and -sign[j] * h[j] == top:
                return j
    return -1


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def flip_metropolis(  # type: ignore[no-untyped-def]
    J, a, h, x, sign, rng, counters, floats, best_x, scratch, steps, ratio, refresh, target,
    patience,
):  # fmt: skip
    """Single flips in order, accepted by Metropolis' rule; every n proposals share a temperature.

    Arguments as `exchange.heat_bath`, with a sweep of n.
    """
    n = h.shape[0]
    step = counters[STEP]
    last = step + steps
    accepted = counters[ACCEPTED]
    since = counters[SINCE_REFRESH]
    i = counters[IN_SWEEP]
    current = floats[CURRENT]
    best = floats[BEST]
    margin = floats[MARGIN]
    t = floats[TEMPERATURE]
    while step < last:
        if i == n:
            i = 0
            t *= ratio
        delta = float(sign[i] * h[i])
        step += 1
        if delta <= 0.0 or (delta < 30.0 * t and uniform(rng) < np.exp(-delta / t)):
            current += delta
            flip(J, h, x, sign, i)
            accepted += 1
            since += 1
            if since >= refresh:
                since = 0
                current = recompute(J, a, x, h, scratch)
            if current < best - margin or (current <= target and target < best):
                best = current
                copy(x, best_x)
                counters[BEST_STEP] = step
                if best <= target:
                    i += 1
                    break
        i += 1
        if step - counters[BEST_STEP] >= patience:
            break
    counters[STEP] = step
    counters[ACCEPTED] = accepted
    counters[SINCE_REFRESH] = since
    counters[IN_SWEEP] = i
    floats[CURRENT] = current
    floats[BEST] = best
    floats[TEMPERATURE] = t


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def flip_descent(  # type: ignore[no-untyped-def]
    J, h, x, sign, counters, floats, best_x, steps, tolerance, target,
):  # fmt: skip
    """Steepest descent: the best flip until none improves by more than ``tolerance``.

    Returns whether it stands in a local optimum.
    """
    current = floats[CURRENT]
    done = False
    for _ in range(steps):
        i = _best_flip(h, sign)
        if not float(sign[i] * h[i]) < -tolerance:
            done = True
            break
        current += float(sign[i] * h[i])
        flip(J, h, x, sign, i)
        counters[STEP] += 1
        counters[ACCEPTED] += 1
        counters[SINCE_REFRESH] += 1
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
def flip_first(  # type: ignore[no-untyped-def]
    J, h, x, sign, counters, floats, best_x, steps, tolerance, target,
):  # fmt: skip
    """First improvement: flips in turn whatever improves by more than ``tolerance``.

    Returns whether a whole round went by without one: a local optimum.
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
        delta = float(sign[i] * h[i])
        if delta < -tolerance:
            current += delta
            flip(J, h, x, sign, i)
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


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def flip_tabu(  # type: ignore[no-untyped-def]
    J, a, h, x, sign, free_at, rng, counters, floats, best_x, scratch, steps, tenure, spread,
    stall, weakest, strongest, refresh, target, patience,
):  # fmt: skip
    """One-flip tabu search: the best flip that is not tabu, or that beats the incumbent.

    A flipped variable is tabu for ``tenure`` plus up to ``spread - 1`` random steps. After
    ``stall`` steps without a better energy in this run, between ``weakest`` and ``strongest``
    random variables of the incumbent are flipped and a new run begins there (iterated tabu
    search; Palubeckis, "Iterated tabu search for the unconstrained binary quadratic optimization
    problem", Informatica 17 (2006)).
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
    if now > _WRAP:
        # free_at is int32, as wide as a float32, so that the scan stays in vector code
        for j in range(n):
            free_at[j] = max(0, free_at[j] - now)
        now = 0
    while step < last:
        if step - counters[RUN_STEP] >= stall:
            for j in range(n):
                x[j] = best_x[j]
                sign[j] = 1 - 2 * x[j]
                free_at[j] = 0
            current = recompute(J, a, x, h, scratch)
            for _ in range(weakest + below(rng, strongest - weakest + 1)):
                j = below(rng, n)
                current += float(sign[j] * h[j])
                flip(J, h, x, sign, j)
                # kept away from its old value until the search has moved on
                free_at[j] = now + tenure + below(rng, spread)
            since = 0
            run_best = current
            counters[RUN_STEP] = step
            counters[RESTARTS] += 1
        i = _best_flip(h, sign)
        if free_at[i] > now and not current + float(sign[i] * h[i]) < best:
            free = _best_free_flip(h, sign, free_at, now)
            i = free if free >= 0 else i
        current += float(sign[i] * h[i])
        flip(J, h, x, sign, i)
        step += 1
        now += 1
        free_at[i] = now + tenure + below(rng, spread)
        since += 1
        if since >= refresh:
            since = 0
            current = recompute(J, a, x, h, scratch)
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
