"""Greedy construction at fixed cardinality, forwards from nothing or backwards from everything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from optiprune.solvers.base import Watch

from .instance import Instance, OutOfTime, compute_fields, energy_of
from .vector import FAST, argmax, copy

# entries of J read between two looks at the clock
_WORK = 10_000_000

# variables up to which a problem is laid out and greedily solved faster than a limit is noticed
QUICK = 500

__all__ = ["QUICK", "better_greedy", "cheap_start", "greedy_exchange_start", "repair_counts"]


def cheap_start(
    cost: npt.NDArray[np.float64], groups: npt.NDArray[np.integer], k: npt.NDArray[np.integer]
) -> npt.NDArray[np.int8]:
    """Keep the k cheapest of each group by their own cost, shape (n,): O(n log n), no couplings."""
    order = np.lexsort((cost, groups))
    sizes = np.bincount(groups, minlength=len(k))
    first = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    rank = np.arange(len(cost)) - np.repeat(first, sizes)
    x = np.zeros(len(cost), dtype=np.int8)
    x[order[rank < np.repeat(np.asarray(k), sizes)]] = 1
    return x


def greedy_exchange_start(
    inst: Instance, direction: str = "both", watch: Watch | None = None
) -> npt.NDArray[np.int8]:
    """Greedy assignment in the order of the kernels.

    'forward' adds the variable of least marginal cost until every group is full, 'backward'
    removes the one of largest marginal cost from all, 'both' returns the better of the two.
    """
    if direction == "both" and (watch is None or inst.n <= QUICK):
        x, other = np.empty((2, inst.n), np.int8)
        missing = np.empty(len(inst.k), np.int64)
        scratch = np.empty(inst.n)
        gain = np.empty(inst.n, inst.J.dtype)
        better_greedy(inst.J, inst.a, x, other, inst.starts, inst.k, gain, missing, scratch)
        return x
    found: npt.NDArray[np.int8] | None = None
    best = np.inf
    for forward in (True, False):
        if direction != "both" and forward != (direction == "forward"):
            continue
        x = np.full(inst.n, 0 if forward else 1, dtype=np.int8)
        energy = _fill_counts(inst, x, watch)
        if found is None or energy < best:
            found, best = x, energy
    assert found is not None
    return found


def repair_counts(inst: Instance, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """x with variables added or removed greedily until every group holds its k ones."""
    out = x.copy()
    _fill_counts(inst, out)
    return out


def _fill_counts(inst: Instance, x: npt.NDArray[np.int8], watch: Watch | None = None) -> float:
    """Fill the counts of x in place; its energy, offset left out.

    Raises `OutOfTime` when the time limit of ``watch`` passes, with x unfinished.
    """
    missing = np.zeros(len(inst.k), np.int64)
    gain = np.zeros(inst.n, inst.J.dtype)
    scratch = np.zeros(inst.n)
    todo = _open(inst.J, inst.a, x, inst.starts, inst.k, gain, missing, scratch)
    steps = max(1, _WORK // max(1, inst.n))
    while todo > 0:
        if watch is not None:
            if watch.elapsed >= watch.limits.time_s:
                raise OutOfTime
            watch.moves += min(steps, todo)
        _complete(inst.J, x, inst.starts, gain, missing, min(steps, todo))
        todo -= steps
    return float(energy_of(inst.J, inst.a, x, scratch))


@njit(nogil=True, cache=True)
def better_greedy(J, a, x, other, starts, k, gain, missing, scratch):  # type: ignore[no-untyped-def]
    """The better of the greedy assignments from nothing and from everything, in x."""
    for i in range(a.shape[0]):
        x[i] = 0
        other[i] = 1
    _complete(J, x, starts, gain, missing, _open(J, a, x, starts, k, gain, missing, scratch))
    energy = energy_of(J, a, x, scratch)
    _complete(
        J, other, starts, gain, missing, _open(J, a, other, starts, k, gain, missing, scratch)
    )
    if energy_of(J, a, other, scratch) < energy:
        copy(other, x)


@njit(nogil=True, cache=True, fastmath=FAST)
def _open(J, a, x, starts, k, gain, missing, scratch):  # type: ignore[no-untyped-def]
    """Set up `_complete`; returns the number of steps that it has to take.

    ``gain`` is minus the change of energy of the flip of each variable that may still flip.
    """
    compute_fields(J, a, x, scratch)
    todo = 0
    for g in range(k.shape[0]):
        ones = 0
        for i in range(starts[g], starts[g + 1]):
            ones += x[i]
        missing[g] = k[g] - ones
        todo += abs(missing[g])
        for i in range(starts[g], starts[g + 1]):
            may = (missing[g] > 0 and not x[i]) or (missing[g] < 0 and x[i])
            # the sign by which a field counts as a gain is the group's: + to remove, - to add
            gain[i] = (scratch[i] if missing[g] < 0 else -scratch[i]) if may else -np.inf
    return todo


@njit(nogil=True, cache=True, fastmath=FAST)
def _complete(J, x, starts, gain, missing, steps):  # type: ignore[no-untyped-def]
    """Add to groups that lack ones and remove from groups that have too many, best first."""
    for _ in range(steps):
        i = argmax(gain)
        g = np.searchsorted(starts, i, side="right") - 1
        adds = missing[g] > 0
        x[i] = 1 if adds else 0
        missing[g] += -1 if adds else 1
        if missing[g] == 0:
            for j in range(starts[g], starts[g + 1]):
                gain[j] = -np.inf
        row = J[i]
        for gg in range(missing.shape[0]):
            if missing[gg] == 0:
                continue
            if (missing[gg] > 0) == adds:
                for j in range(starts[gg], starts[gg + 1]):
                    gain[j] -= row[j]
            else:
                for j in range(starts[gg], starts[gg + 1]):
                    gain[j] += row[j]
        gain[i] = -np.inf
