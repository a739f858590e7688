"""Exchange moves at fixed cardinality: the state that kernels share, and the annealing kernels.

An exchange sets a pruned variable i to 1 and a kept variable j of the same group to 0. With the
fields ``h = a + Jx`` it changes the energy by ``h_i - h_j - J_ij``, and every field by one row of J
less another. That update, 4n bytes a row, is what an accepted move costs; the rest of this file
is about spending little beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from .instance import Instance, compute_fields
from .rng import GUMBEL_BITS, next_u64, uniform
from .vector import FAST, copy, noisy_argmax, noisy_max

__all__ = [
    "ACCEPTED",
    "BEST",
    "BEST_STEP",
    "CLOCK",
    "CURRENT",
    "IN_SWEEP",
    "MARGIN",
    "REFUSED",
    "RESTARTS",
    "RUN_BEST",
    "RUN_STEP",
    "SINCE_REFRESH",
    "STEP",
    "TEMPERATURE",
    "ExchangeState",
    "heat_bath",
    "metropolis",
    "refresh_interval",
    "rounding",
    "swap",
]

# counters, int64; RUN_STEP: step of the last improvement since the last restart; CLOCK: ticks of
# tabu tenures; REFUSED: proposals in a row that did not improve
STEP, ACCEPTED, SINCE_REFRESH, BEST_STEP, IN_SWEEP, RUN_STEP, RESTARTS, CLOCK, REFUSED = range(9)
# floats: energy now, best since ever, temperature, best since the last restart (offset left out);
# MARGIN: what an improvement must exceed, else the rounding of a cycle of moves counts as progress
CURRENT, BEST, TEMPERATURE, RUN_BEST, MARGIN = range(5)


@dataclass(slots=True, eq=False)
class ExchangeState:
    """Where a search at fixed cardinality stands; the kernels change the arrays in place.

    Attributes
    ----------
    h : (n,) fields in the precision of J
    x, best_x : (n,) int8, in the order of the kernels
    mask : (n,) 0 where kept, -inf where pruned, in the precision of J
    pruned, kept : positions that can move, each group's together
    pruned_group, kept_group : group of every slot in those lists (it never changes)
    kept_starts : (n_groups + 1,) slots of each group in ``kept``
    counters, floats : see the index constants of this module
    scratch : (n,) float64
    """

    inst: Instance
    h: npt.NDArray[Any]
    x: npt.NDArray[np.int8]
    mask: npt.NDArray[Any]
    pruned: npt.NDArray[np.int64]
    pruned_group: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    kept_group: npt.NDArray[np.int64]
    kept_starts: npt.NDArray[np.int64]
    best_x: npt.NDArray[np.int8]
    scratch: npt.NDArray[np.float64]
    counters: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(16, np.int64))
    floats: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.array([0.0, np.inf, 0.0, np.inf, 0.0])
    )

    @classmethod
    def at(cls, inst: Instance, x: npt.NDArray[np.int8]) -> ExchangeState:
        """The state at a feasible x (in the order of the kernels), which becomes the incumbent."""
        n = inst.n
        dtype = inst.J.dtype
        sizes = np.diff(inst.starts)
        moves = (inst.k > 0) & (inst.k < sizes)
        groups = np.arange(len(sizes))
        pruned_group = np.repeat(groups, np.where(moves, sizes - inst.k, 0)).astype(np.int64)
        kept_group = np.repeat(groups, np.where(moves, inst.k, 0)).astype(np.int64)
        kept_starts = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(np.where(moves, inst.k, 0), out=kept_starts[1:])
        state = cls(
            inst,
            h=np.zeros(n, dtype),
            x=x.copy(),
            mask=np.zeros(n, dtype),
            pruned=np.zeros(len(pruned_group), np.int64),
            pruned_group=pruned_group,
            kept=np.zeros(len(kept_group), np.int64),
            kept_group=kept_group,
            kept_starts=kept_starts,
            best_x=x.copy(),
            scratch=np.zeros(n),
        )
        state.load(x)
        return state

    def load(self, x: npt.NDArray[np.int8]) -> None:
        """Restart from a feasible x; the incumbent is kept if it is better."""
        self.x[:] = x
        _load(
            self.inst.J,
            self.inst.a,
            self.x,
            self.inst.starts,
            self.inst.k,
            self.h,
            self.mask,
            self.pruned,
            self.kept,
            self.scratch,
            self.floats,
        )
        self.floats[MARGIN] = rounding(self.inst, self.h)
        self.counters[SINCE_REFRESH] = 0
        self.counters[RUN_STEP] = self.counters[STEP]
        self.floats[RUN_BEST] = self.floats[CURRENT]
        if self.floats[CURRENT] < self.floats[BEST]:
            self.floats[BEST] = self.floats[CURRENT]
            self.best_x[:] = self.x
            self.counters[BEST_STEP] = self.counters[STEP]

    @property
    def can_move(self) -> bool:
        """Whether any exchange exists."""
        return len(self.pruned) > 0


def rounding(inst: Instance, h: npt.NDArray[Any]) -> float:
    """What a change of energy must exceed to be told from rounding error of the fields h."""
    top = float(np.abs(h).max(initial=0.0))
    return 4.0 * float(np.finfo(inst.J.dtype).eps) * top


def refresh_interval(n: int) -> int:
    """Accepted moves between two recomputations of the fields."""
    return int(min(100_000, max(10_000, 16 * n)))


@njit(nogil=True, cache=True)
def _load(J, a, x, starts, k, h, mask, pruned, kept, scratch, floats):  # type: ignore[no-untyped-def]
    n = a.shape[0]
    compute_fields(J, a, x, scratch)
    energy = 0.0
    p = 0
    q = 0
    for g in range(starts.shape[0] - 1):
        moves = 0 < k[g] < starts[g + 1] - starts[g]
        for i in range(starts[g], starts[g + 1]):
            if x[i]:
                mask[i] = 0.0
                energy += 0.5 * (scratch[i] + a[i])
                if moves:
                    kept[q] = i
                    q += 1
            else:
                mask[i] = -np.inf
                if moves:
                    pruned[p] = i
                    p += 1
    for i in range(n):
        h[i] = scratch[i]
    floats[0] = energy


@njit(nogil=True, cache=True)
def recompute(J, a, x, h, scratch):  # type: ignore[no-untyped-def]
    """Fields from scratch in float64, stored in h; returns the energy without offset."""
    compute_fields(J, a, x, scratch)
    energy = 0.0
    for i in range(a.shape[0]):
        h[i] = scratch[i]
        if x[i]:
            energy += 0.5 * (scratch[i] + a[i])
    return energy


@njit(nogil=True, cache=True, fastmath=FAST)
def swap(J, h, x, mask, i, j):  # type: ignore[no-untyped-def]
    """Set x_i = 1 and x_j = 0 and update fields and mask."""
    ri = J[i]
    rj = J[j]
    for m in range(h.shape[0]):
        h[m] += ri[m] - rj[m]
    x[i] = 1
    x[j] = 0
    mask[i] = 0.0
    mask[j] = -np.inf


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def heat_bath(  # type: ignore[no-untyped-def]
    J, a, h, x, mask, pruned, pruned_group, starts, gumbel, rng, counters, floats, best_x,
    scratch, steps, sweep, ratio, refresh, target, patience,
):  # fmt: skip
    """Heat-bath exchanges: put a random pruned i among the kept, then let go of one of those.

    The one to go is drawn from the Boltzmann weights of all k + 1 choices (i itself included,
    which leaves things as they were), as the argmax of energy gain plus Gumbel noise: one
    contiguous scan of row i over i's group.

    ``steps`` proposals at most; stops early at an energy <= target, or ``patience`` steps after
    the last incumbent. ``sweep`` proposals share a temperature, then it is multiplied by
    ``ratio``. All progress is in the arrays, so that calls can follow one another at any length.
    """
    movers = np.uint64(pruned.shape[0])
    table = np.uint64((1 << GUMBEL_BITS) - 1)
    n_bits = np.uint64(GUMBEL_BITS)
    low = np.uint64(0xFFFFFFFF)
    step = counters[STEP]
    last = step + steps
    accepted = counters[ACCEPTED]
    since = counters[SINCE_REFRESH]
    in_sweep = counters[IN_SWEEP]
    current = floats[CURRENT]
    best = floats[BEST]
    margin = floats[MARGIN]
    t = floats[TEMPERATURE]
    tf = h.dtype.type(t)
    while step < last:
        if in_sweep == sweep:
            in_sweep = 0
            t *= ratio
            tf = h.dtype.type(t)
        u = next_u64(rng)
        p = np.int64(((u & low) * movers) >> np.uint64(32))
        at = np.int64((u >> np.uint64(32)) & table)
        stay = gumbel[np.int64((u >> (np.uint64(32) + n_bits)) & table)]
        i = pruned[p]
        g = pruned_group[p]
        first = starts[g]
        end = starts[g + 1]
        hs = h[first:end]
        row = J[i, first:end]
        masks = mask[first:end]
        noise = gumbel[at : at + end - first]
        step += 1
        in_sweep += 1
        if not noisy_max(hs, row, masks, tf, noise) > h[i] + tf * stay:
            if step - counters[BEST_STEP] >= patience:
                break
            continue
        # the index only now: most proposals come to nothing when cold
        out = noisy_argmax(hs, row, masks, tf, noise) + first
        current += float(h[i]) - float(h[out]) - float(J[i, out])
        swap(J, h, x, mask, i, out)
        pruned[p] = out
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
                break
        elif step - counters[BEST_STEP] >= patience:
            break
    counters[STEP] = step
    counters[ACCEPTED] = accepted
    counters[SINCE_REFRESH] = since
    counters[IN_SWEEP] = in_sweep
    floats[CURRENT] = current
    floats[BEST] = best
    floats[TEMPERATURE] = t


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def metropolis(  # type: ignore[no-untyped-def]
    J, a, h, x, mask, pruned, pruned_group, kept, kept_starts, rng, counters, floats, best_x,
    scratch, steps, sweep, ratio, refresh, target, patience,
):  # fmt: skip
    """Random pairs, accepted by Metropolis' rule. Arguments as `heat_bath`.

    A proposal reads three numbers and no row: cheap, but nearly all are refused when cold.
    """
    movers = np.uint64(pruned.shape[0])
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
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
        u = next_u64(rng)
        p = np.int64(((u & low) * movers) >> half)
        g = pruned_group[p]
        first = kept_starts[g]
        q = first + np.int64(((u >> half) * np.uint64(kept_starts[g + 1] - first)) >> half)
        i = pruned[p]
        j = kept[q]
        delta = float(h[i]) - float(h[j]) - float(J[i, j])
        step += 1
        in_sweep += 1
        if delta <= 0.0 or (delta < 30.0 * t and uniform(rng) < np.exp(-delta / t)):
            current += delta
            swap(J, h, x, mask, i, j)
            pruned[p] = j
            kept[q] = i
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
