"""Temperatures from acceptance rates at the start, so that no scale has to be guessed.

The mean |field| is a fair scale when all variables are alike. In pruning problems they are not:
a few weights own most of it, and a temperature of a tenth of it accepts nine moves in ten
(measured; the answer was then no better than greedy). The share of moves accepted at a local
optimum says directly how hot a temperature is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import njit

from .exchange import ExchangeState
from .flips import FlipState

__all__ = ["metropolis_temperature", "temperature_for"]

# proposals that the rate is averaged over
_SAMPLE = 16
# bisection steps on log T: within some 5 %
_STEPS = 9


def temperature_for(state: ExchangeState | FlipState, rate: float, heat_bath: bool = True) -> float:
    """The temperature at which a share ``rate`` (0 < rate < 1) of moves is accepted at the state.

    0 where no temperature matters (every move is free, or there is none).
    """
    if isinstance(state, FlipState):
        return metropolis_temperature(state.sign * state.h.astype(np.float64), rate)
    m = len(state.pruned)
    movers = np.unique(np.linspace(0, m - 1, min(m, _SAMPLE)).astype(np.int64))
    least = np.zeros(len(movers))
    common = (
        state.inst.J, state.h, state.mask, state.pruned, state.pruned_group, state.inst.starts,
        movers,
    )  # fmt: skip
    _least_deltas(*common, least)
    return _bisect(lambda t: float(_exchange_rate(*common, t, heat_bath)), least, rate)


def metropolis_temperature(deltas: npt.NDArray[np.float64], rate: float) -> float:
    """The temperature at which Metropolis' rule accepts a share ``rate`` of these changes.

    0 where all of them are free (or there is none).
    """
    up = np.maximum(deltas, 0.0)
    return _bisect(lambda t: float(np.exp(-np.minimum(up / t, 700.0)).mean()), up, rate)


def _bisect(
    accepted: Callable[[float], float], deltas: npt.NDArray[np.float64], rate: float
) -> float:
    gaps = np.abs(deltas[deltas != 0])
    if not len(gaps):
        return 0.0
    # bracketed by the least and the greatest gap of a move
    low = math.log(max(float(gaps.min()) * 1e-3, 1e-300))
    high = math.log(max(float(gaps.max()) * 1e3, 1e-300))
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if accepted(math.exp(middle)) < rate:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


@njit(nogil=True, cache=True)
def _least_deltas(J, h, mask, pruned, pruned_group, starts, movers, out):  # type: ignore[no-untyped-def]
    for s in range(movers.shape[0]):
        i = pruned[movers[s]]
        g = pruned_group[movers[s]]
        low = np.inf
        for j in range(starts[g], starts[g + 1]):
            if mask[j] == 0.0:
                low = min(low, float(h[i]) - float(h[j]) - float(J[i, j]))
        out[s] = low


@njit(nogil=True, cache=True)
def _exchange_rate(J, h, mask, pruned, pruned_group, starts, movers, t, heat_bath):  # type: ignore[no-untyped-def]
    """Mean share of accepted proposals: 1 - 1 / (1 + sum_j e^(-d_ij / t)), or Metropolis' rule."""
    total = 0.0
    for s in range(movers.shape[0]):
        i = pruned[movers[s]]
        g = pruned_group[movers[s]]
        z = 0.0
        kept = 0
        for j in range(starts[g], starts[g + 1]):
            if mask[j] == 0.0:
                kept += 1
                d = (float(h[i]) - float(h[j]) - float(J[i, j])) / t
                if d <= 0.0:
                    z += 1e30 if heat_bath and d < -60.0 else (np.exp(-d) if heat_bath else 1.0)
                elif d < 40.0:
                    z += np.exp(-d)
        total += z / (1.0 + z) if heat_bath else z / max(1, kept)
    return total / max(1, movers.shape[0])
