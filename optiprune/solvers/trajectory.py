"""A solver's incumbents over time, as far as they can be believed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["Trajectory", "thinned_trajectory", "verified_trajectory"]

Trajectory = tuple[tuple[float, float], ...]
"""(seconds since the solve began, energy) at each new incumbent; both in order."""


def verified_trajectory(
    told: Iterable[tuple[float, float]], energy: float, wall_s: float
) -> Trajectory:
    """A solver's trajectory that ends in the energy that was recomputed.

    What a solver tells of its way is believed only above that energy, and only if its times are
    those of a clock that began with the solve; an incumbent at 0 is none. The answer has the time
    of the last incumbent if that has its energy (within the rounding of float32), else the end.

    Raises
    ------
    TypeError, ValueError
        ``told`` holds something else than pairs of numbers.
    """
    points = [(float(t), float(e)) for t, e in told]
    times = [t for t, _ in points]
    if not all(map(math.isfinite, times)) or times != sorted(times) or (times and times[0] < 0):
        points = []
    points = [(min(t, wall_s), e) for t, e in points if t > 0 and math.isfinite(e)]
    near = 1e-5 * abs(energy)
    at = points[-1][0] if points and abs(points[-1][1] - energy) <= near else wall_s
    return (*((t, e) for t, e in points if t < at and e > energy), (at, energy))


def thinned_trajectory(points: Sequence[tuple[float, float]], most: int) -> Trajectory:
    """At most ``most`` points: dense at the end, where targets are met; the first one stays.

    Times are rounded to a tenth of a microsecond.
    """
    chosen = list(points)
    if len(chosen) > most:
        half = most // 2
        early = np.unique(np.linspace(0, len(chosen) - half - 1, most - half).astype(int))
        chosen = [chosen[i] for i in early] + chosen[-half:]
    return tuple((round(t, 7), e) for t, e in chosen)
