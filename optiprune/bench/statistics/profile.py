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
    """``solver -> (ratios, shares)``: on which share of the instances a solver's time to target is
    at most ``ratio`` times that of the fastest one.

    The time is that of `time_to_target`. Ratios rise from 1, shares are those of a step function
    that holds from its ratio on; instances that a solver never solved count below. Runs of the same
    budget are needed; raises ValueError otherwise.
    """
    if len({r.budget for r in runs}) > 1:
        raise ValueError("a performance profile compares runs of one budget")
    pairs: dict[tuple[str, str], list[Run]] = {}
    for r in runs:
        pairs.setdefault((r.sha256, r.solver), []).append(r)
    times = {
        key: time_to_target(np.array([r.hit_s for r in g]), np.array([r.cpu_s for r in g]))
        for key, g in pairs.items()
    }
    instances = sorted({sha for sha, _ in times})
    solvers = list(dict.fromkeys(r.solver for r in runs))
    fastest = {s: min(times.get((s, v), math.inf) for v in solvers) for s in instances}
    out: dict[str, Profile] = {}
    for solver in solvers:
        ratios = sorted(
            max(1.0, times[i, solver] / max(fastest[i], 1e-9))
            for i in instances
            if math.isfinite(times.get((i, solver), math.inf))
        )
        x = np.array([1.0, *ratios])
        y = np.arange(len(x)) / max(1, len(instances))
        out[solver] = x, y
    return out
