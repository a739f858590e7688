"""Greedy construction at fixed cardinality, forwards from nothing or backwards from everything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from .instance import Instance, compute_fields
from .vector import FAST, argmax

__all__ = ["cheap_start", "greedy_exchange_start", "repair_counts"]


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


def greedy_exchange_start(inst: Instance, direction: str = "both") -> npt.NDArray[np.int8]:
    """Greedy assignment in the order of the kernels.

    'forward' adds the variable of least marginal cost until every group is full, 'backward'
    removes the one of largest marginal cost from all, 'both' returns the better of the two.
    """
    found: npt.NDArray[np.int8] | None = None
    best = np.inf
    for forward in (True, False):
        if direction != "both" and forward != (direction == "forward"):
            continue
        x = np.full(inst.n, 0 if forward else 1, dtype=np.int8)
        energy = _fill_counts(inst, x)
        if found is None or energy < best:
            found, best = x, energy
    assert found is not None
    return found


def repair_counts(inst: Instance, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """x with variables added or removed greedily until every group holds its k ones."""
    out = x.copy()
    _fill_counts(inst, out)
    return out


def _fill_counts(inst: Instance, x: npt.NDArray[np.int8]) -> float:
    n_groups = len(inst.k)
    h = np.zeros(inst.n, inst.J.dtype)
    return float(
        _complete(
            inst.J,
            inst.a,
            x,
            inst.starts,
            inst.k,
            h,
            np.zeros(n_groups, np.int64),
            np.zeros(inst.n),
        )
    )


@njit(nogil=True, cache=True, fastmath=FAST)
def _complete(J, a, x, starts, k, gain, missing, scratch):  # type: ignore[no-untyped-def]
    """Add to groups that lack ones and remove from groups that have too many, best first.

    ``gain`` is minus the change of energy of the flip of each variable that may still flip.
    """
    n = a.shape[0]
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
    for _ in range(todo):
        i = argmax(gain)
        g = np.searchsorted(starts, i, side="right") - 1
        adds = missing[g] > 0
        x[i] = 1 if adds else 0
        missing[g] += -1 if adds else 1
        if missing[g] == 0:
            for j in range(starts[g], starts[g + 1]):
                gain[j] = -np.inf
        row = J[i]
        for gg in range(k.shape[0]):
            if missing[gg] == 0:
                continue
            s = starts[gg]
            if (missing[gg] > 0) == adds:
                for j in range(s, starts[gg + 1]):
                    gain[j] -= row[j]
            else:
                for j in range(s, starts[gg + 1]):
                    gain[j] += row[j]
        gain[i] = -np.inf
    compute_fields(J, a, x, scratch)
    energy = 0.0
    for i in range(n):
        if x[i]:
            energy += 0.5 * (scratch[i] + a[i])
    return energy
