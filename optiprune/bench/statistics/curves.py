"""Gap over time: how good a solver's answer is after so many CPU seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .runs import Run

__all__ = ["GapCurve", "gap_curves"]


@dataclass(frozen=True, slots=True)
class GapCurve:
    """Quartiles of the gap over runs, at each time; inf before enough of them have an answer."""

    seconds: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    median: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def gap_curves(runs: Sequence[Run], points: int = 80) -> dict[str, GapCurve]:
    """``solver -> curve`` over runs of one budget and mode, at times that rise geometrically.

    Raises ValueError without runs, or for several budgets or modes.
    """
    if len({(r.budget, r.mode) for r in runs}) != 1:
        raise ValueError("curves need runs, all of one budget and mode")
    first = [t for r in runs for t, _ in r.curve[:1] if t > 0]
    budget = runs[0].budget
    start = min([budget / 2, *first]) if first else budget / 1000
    times = np.geomspace(max(start, 1e-5), budget, points)
    out = {}
    for solver in dict.fromkeys(r.solver for r in runs):
        table = np.array([_at(r, times) for r in runs if r.solver == solver])
        quartiles = [_order(table, q) for q in (0.25, 0.5, 0.75)]
        out[solver] = GapCurve(times, *quartiles)
    return out


def _at(run: Run, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    when = np.array([t for t, _ in run.curve])
    gaps = np.array([math.inf, *(g for _, g in run.curve)])
    return np.asarray(gaps[np.searchsorted(when, times, side="right")])


def _order(table: npt.NDArray[np.float64], q: float) -> npt.NDArray[np.float64]:
    """A quantile without interpolation, which would make NaN of infinities."""
    return np.asarray(np.sort(table, axis=0)[min(len(table) - 1, int(q * len(table)))])
