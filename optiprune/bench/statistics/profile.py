"""Performance profiles (Dolan & More, Mathematical Programming 91, 201, 2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .runs import Run
from .times import time_to_target

__all__ = ["performance_profile"]

Profile = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def performance_profile(runs: Sequence[Run]) -> dict[str, Profile]:
    """``solver -> (ratios, shares)``: on which share of its instances a solver's time to target is
    at most ``ratio`` times that of the fastest one.

    The time is that of `time_to_target`. Ratios rise from 1, shares are those of a step function
    that holds from its ratio on; instances that a solver never solved count below, those that it
    was not run on do not. Runs of one budget and mode are needed; raises ValueError otherwise.
    """
    if len({(r.budget, r.mode) for r in runs}) > 1:
        raise ValueError("a performance profile compares runs of one budget and mode")
    pairs: dict[tuple[str, str], list[Run]] = {}
    for r in runs:
        pairs.setdefault((r.sha256, r.solver), []).append(r)
    times = {
        key: time_to_target(np.array([r.hit_s for r in g]), np.array([r.cpu_s for r in g]))
        for key, g in pairs.items()
    }
    fastest: dict[str, float] = {}
    for (sha, _), t in times.items():
        fastest[sha] = min(t, fastest.get(sha, math.inf))
    out: dict[str, Profile] = {}
    for solver in dict.fromkeys(r.solver for r in runs):
        own = {sha: t for (sha, who), t in times.items() if who == solver}
        ratios = sorted(
            max(1.0, t / max(fastest[sha], 1e-9)) for sha, t in own.items() if math.isfinite(t)
        )
        x = np.array([1.0, *ratios])
        y = np.arange(len(x)) / len(own)
        out[solver] = x, y
    return out
