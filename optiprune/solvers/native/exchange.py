"""Exchange moves at fixed cardinality: the state that kernels share, and the annealing kernels.

An exchange sets a pruned variable i to 1 and a kept variable j of the same group to 0. With the
fields ``h = a + Jx`` it changes the energy by ``h_i - h_j - J_ij``, and every field by one row of J
less another. That update, 4n bytes a row, is what an accepted move costs; the rest of this file
is about spending little beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from .instance import Instance, aligned, energy_of
from .rng import GUMBEL_BITS, accepts, next_u64
from .vector import FAST, copy, fmax, noisy_argmax

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
    "assign_slots",
    "heat_bath",
    "load",
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

_EPS32, _EPS64 = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)


@dataclass(slots=True, eq=False)
class ExchangeState:
    """Where a search at fixed cardinality stands; the kernels change the arrays in place.

    Attributes
    ----------
    h : (n,) fields in the precision of J
    x, best_x : (n,) int8, in the order of the kernels
    mask : (n,) 0 where kept, -inf where pruned, in the precision of J
    wide, wide_mask : (stride,) h and mask with the padding of a row of J, 0 and -inf there
    pruned, kept : positions that can move, each group's together
    pruned_group : group of every slot in ``pruned`` (it never changes)
    kept_starts : (n_groups + 1,) slots of each group in ``kept``
    spans : (n_groups + 1,) as ``inst.starts``, with the padding in the last group
    counters, floats : see the index constants of this module
    scratch : (n,) float64
    """

    inst: Instance
    h: npt.NDArray[Any]
    x: npt.NDArray[np.int8]
    mask: npt.NDArray[Any]
    wide: npt.NDArray[Any]
    wide_mask: npt.NDArray[Any]
    pruned: npt.NDArray[np.int64]
    pruned_group: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    kept_starts: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64]
    best_x: npt.NDArray[np.int8]
    scratch: npt.NDArray[np.float64]
    counters: npt.NDArray[np.int64]
    floats: npt.NDArray[np.float64]

    @classmethod
    def at(cls, inst: Instance, x: npt.NDArray[np.int8]) -> ExchangeState:
        """The state at a feasible x (in the order of the kernels), which becomes the incumbent."""
        n, width = inst.n, inst.J.shape[1]
        if len(inst.k) == 1:
            kept = int(inst.k[0])
            pruned = n - kept if kept else 0
            kept = kept if pruned else 0
        else:
            sizes = np.diff(inst.starts)
            moves = (inst.k > 0) & (inst.k < sizes)
            kept = int(inst.k[moves].sum())
            pruned = int(sizes[moves].sum()) - kept
        wide, wide_mask = aligned(2, width, inst.J.dtype)
        slots = np.empty(2 * pruned + kept, np.int64)
        state = cls(
            inst,
            h=wide[:n],
            x=np.empty(n, np.int8),
            mask=wide_mask[:n],
            wide=wide,
            wide_mask=wide_mask,
            pruned=slots[:pruned],
            pruned_group=slots[pruned : 2 * pruned],
            kept=slots[2 * pruned :],
            kept_starts=np.empty(len(inst.starts), np.int64),
            spans=inst.starts.copy(),
            best_x=np.empty(n, np.int8),
            scratch=np.empty(n),
            counters=np.zeros(16, np.int64),
            floats=np.array([0.0, np.inf, 0.0, np.inf, 0.0]),
        )
        state.spans[-1] = width
        wide[n:] = 0.0
        wide_mask[n:] = -np.inf
        assign_slots(inst.starts, inst.k, state.pruned_group, state.kept_starts)
        state.load(x)
        return state

    def load(self, x: npt.NDArray[np.int8]) -> None:
        """Restart from a feasible x; the incumbent is kept if it is better."""
        inst = self.inst
        load(
            inst.J, inst.a, x, inst.starts, inst.k, self.h, self.x, self.mask, self.pruned,
            self.kept, self.best_x, self.scratch, self.counters, self.floats,
            4.0 * (_EPS32 if inst.J.itemsize == 4 else _EPS64),
        )  # fmt: skip

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
def assign_slots(starts, k, pruned_group, kept_starts):  # type: ignore[no-untyped-def]
    """Fill ``pruned_group`` and ``kept_starts`` of `ExchangeState`."""
    p = 0
    kept_starts[0] = 0
    for g in range(k.shape[0]):
        size = starts[g + 1] - starts[g]
        moves = 0 < k[g] < size
        kept_starts[g + 1] = kept_starts[g] + (k[g] if moves else 0)
        if moves:
            for _ in range(size - k[g]):
                pruned_group[p] = g
                p += 1


@njit(nogil=True, cache=True)
def load(  # type: ignore[no-untyped-def]
    J, a, start, starts, k, h, x, mask, pruned, kept, best_x, scratch, counters, floats, rounding
):
    """Set up the arrays of `ExchangeState` at ``start``; ``rounding`` scales its margin."""
    n = a.shape[0]
    for i in range(n):
        x[i] = start[i]
    energy = recompute(J, a, x, h, scratch)
    p = 0
    q = 0
    top = 0.0
    for g in range(starts.shape[0] - 1):
        moves = 0 < k[g] < starts[g + 1] - starts[g]
        for i in range(starts[g], starts[g + 1]):
            top = max(top, abs(scratch[i]))
            if x[i]:
                mask[i] = 0.0
                if moves:
                    kept[q] = i
                    q += 1
            else:
                mask[i] = -np.inf
                if moves:
                    pruned[p] = i
                    p += 1
    floats[CURRENT] = energy
    floats[RUN_BEST] = energy
    floats[MARGIN] = rounding * top
    counters[SINCE_REFRESH] = 0
    counters[RUN_STEP] = counters[STEP]
    if energy < floats[BEST]:
        floats[BEST] = energy
        counters[BEST_STEP] = counters[STEP]
        for i in range(n):
            best_x[i] = x[i]


@njit(nogil=True, cache=True)
def recompute(J, a, x, h, scratch):  # type: ignore[no-untyped-def]
    """Fields from scratch in float64, stored in h; returns the energy without offset."""
    energy = energy_of(J, a, x, scratch)
    for i in range(a.shape[0]):
        h[i] = scratch[i]
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
    none = h.dtype.type(-np.inf)
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
        # `noisy_max` and `swap`, spelled out: a call costs as much as a short row
        top = none
        for c in range(hs.shape[0]):
            top = fmax(top, hs[c] + row[c] + masks[c] + tf * noise[c])
        if not top > h[i] + tf * stay:
            if step - counters[BEST_STEP] >= patience:
                break
            continue
        # the index only now: most proposals come to nothing when cold
        out = noisy_argmax(hs, row, masks, tf, noise) + first
        current += float(h[i]) - float(h[out]) - float(J[i, out])
        for m in range(h.shape[0]):
            h[m] += J[i, m] - J[out, m]
        x[i] = 1
        x[out] = 0
        mask[i] = 0.0
        mask[out] = none
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
    beta = 1.0 / t
    while step < last:
        if in_sweep == sweep:
            in_sweep = 0
            t *= ratio
            beta = 1.0 / t
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
        if accepts(delta, beta, rng):
            current += delta
            # `swap`, spelled out
            for m in range(h.shape[0]):
                h[m] += J[i, m] - J[j, m]
            x[i] = 1
            x[j] = 0
            mask[i] = 0.0
            mask[j] = -np.inf
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
