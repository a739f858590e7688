"""Single-flip moves without constraints: the state, the descents and annealing.

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
    CURRENT,
    IN_SWEEP,
    MARGIN,
    REFUSED,
    RUN_BEST,
    RUN_STEP,
    SINCE_REFRESH,
    STEP,
    TEMPERATURE,
    recompute,
    rounding,
)
from .instance import Instance
from .rng import accepts
from .vector import BEYOND, FAST, copy, fmax

__all__ = ["FlipState", "best_flip", "flip_descent", "flip_first", "flip_metropolis"]


@dataclass(slots=True, eq=False)
class FlipState:
    """Where a search over all assignments stands; the kernels change the arrays in place.

    ``sign`` is 1 - 2x in the precision of J, ``free_at`` the tick until which a flip is tabu while
    budgets are repaired; the others are as in `ExchangeState`.
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
    s = sign[i]
    for m in range(h.shape[0]):
        h[m] += s * J[i, m]
    x[i] = 1 - x[i]
    sign[i] = -s


@njit(nogil=True, cache=True, fastmath=FAST)
def best_flip(h, sign):  # type: ignore[no-untyped-def]
    """Index of the least ``sign * h``, n >= 1; found as `vector.argmax` does."""
    top = h.dtype.type(-np.inf)
    for j in range(h.shape[0]):
        top = fmax(top, -sign[j] * h[j])
    at = BEYOND
    for j in range(np.int32(h.shape[0])):
        where = np.int32(j) if -sign[j] * h[j] == top else BEYOND
        at = where if where < at else at
    return np.int64(at)


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
    beta = 1.0 / t
    while step < last:
        if i == n:
            i = 0
            t *= ratio
            beta = 1.0 / t
        delta = float(sign[i] * h[i])
        step += 1
        if accepts(delta, beta, rng):
            current += delta
            # `flip`, spelled out: a call costs as much as a short row
            s = sign[i]
            for m in range(n):
                h[m] += s * J[i, m]
            x[i] = 1 - x[i]
            sign[i] = -s
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
        i = best_flip(h, sign)
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
