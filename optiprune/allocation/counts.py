"""Densities turned into whole numbers of kept weights that use up a budget and never exceed it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from .costs import LayerCost
from .errors import AllocationError

__all__ = ["spend_rest", "whole_counts"]

_Counts = npt.NDArray[np.int64]


def whole_counts(
    wanted: npt.ArrayLike,
    costs: Sequence[LayerCost],
    steps: Sequence[int],
    least: Sequence[int],
    limit: float,
) -> _Counts:
    """Kept weights near ``wanted``, in whole steps, of total cost at most ``limit``.

    Rounded down first; the rest of the budget goes to the layers with the largest remainders, one
    step each, and then round by round to all that can take more. With steps of 1 and unit costs of
    1 the limit is reached exactly, if the layers have that many weights.

    Parameters
    ----------
    wanted : (layers,) kept weights, any numbers >= 0
    costs, steps : what a weight costs, and how many are added at once (1, or a layer's rows)
    least : (layers,) smallest count allowed, a multiple of the step
    limit : largest total cost

    Raises
    ------
    AllocationError
        The least counts cost more than the limit.
    """
    ideal = np.asarray(wanted, dtype=np.float64)
    step, low = np.asarray(steps, dtype=np.int64), np.asarray(least, dtype=np.int64)
    size = np.array([c.size for c in costs], dtype=np.int64)
    if _spent(costs, low) > Fraction(limit):
        raise AllocationError(
            f"the layers cost {float(_spent(costs, low)):.12g} with the fewest weights that they "
            f"may keep, more than the {limit:.12g} allowed; lower the sparsity or layers.min_kept"
        )
    # a count that is whole up to rounding is that count
    kept = np.floor(ideal / step + 1e-9).astype(np.int64) * step
    kept = np.clip(kept, low, size // step * step)
    remainder = ideal / step - np.floor(ideal / step + 1e-9)
    _take_back(kept, ideal, costs, step, low, limit)
    order = np.lexsort((np.arange(len(costs)), -remainder))
    return spend_rest(kept, costs, steps, limit, order)


def spend_rest(
    kept: npt.NDArray[np.int64],
    costs: Sequence[LayerCost],
    steps: Sequence[int],
    limit: float,
    order: npt.ArrayLike,
) -> _Counts:
    """Give what is left of the limit to the layers, one step each in ``order``, round by round.

    Returns counts of which none can grow by a step within the limit (and the layer's size).
    """
    out = np.array(kept, dtype=np.int64)
    turn = [int(i) for i in np.asarray(order)]
    rest = Fraction(limit) - _spent(costs, out)
    while True:
        price = {i: Fraction(costs[i].unit) * steps[i] for i in turn}
        turn = [i for i in turn if price[i] <= rest and out[i] + steps[i] <= costs[i].size]
        if not turn:
            return out
        # whole rounds at once, the last one layer by layer
        a_round = sum((price[i] for i in turn), Fraction(0))
        room = min((costs[i].size - int(out[i])) // steps[i] for i in turn)
        rounds = min(int(rest / a_round), room)
        if rounds:
            for i in turn:
                out[i] += rounds * steps[i]
            rest -= rounds * a_round
            continue
        for i in turn:
            if price[i] <= rest:
                out[i] += steps[i]
                rest -= price[i]


def _take_back(
    kept: _Counts,
    ideal: npt.NDArray[np.float64],
    costs: Sequence[LayerCost],
    step: _Counts,
    low: _Counts,
    limit: float,
) -> None:
    """Lower counts in proportion to what they have above their least, until the limit holds.

    Needed where least counts lie above the wanted ones.
    """
    over = _spent(costs, kept) - Fraction(limit)
    if over <= 0:
        return
    free = np.array([c.unit for c in costs]) * (kept - low)
    share = 1.0 - float(over) / math.fsum(free)
    kept[:] = low + np.floor((kept - low) * max(0.0, share) / step).astype(np.int64) * step
    # what rounding left over the limit, at most a step a layer
    for i in np.argsort(-free, kind="stable"):
        while _spent(costs, kept) > Fraction(limit) and kept[i] > low[i]:
            kept[i] -= step[i]


def _spent(costs: Sequence[LayerCost], kept: npt.NDArray[np.int64]) -> Fraction:
    return sum(
        (Fraction(c.fixed) + Fraction(c.unit) * int(k) for c, k in zip(costs, kept, strict=True)),
        Fraction(0),
    )
