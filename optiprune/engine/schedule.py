"""How the density falls: the share of the final pruning that is reached at each stage."""

from __future__ import annotations

from optiprune.config import ScheduleOptions

__all__ = ["pruned_shares"]


def pruned_shares(options: ScheduleOptions, density: float) -> list[float]:
    """Share of the final pruning done after each stage, rising to exactly 1.

    'cubic' is ``1 - (1 - t/T)^3`` (Zhu & Gupta 2017, arXiv 1710.01878); 'geometric' multiplies the
    density by a constant factor per stage.
    """
    stages = options.stages
    shares = []
    for t in range(1, stages + 1):
        if options.kind == "cubic":
            shares.append(1.0 - (1.0 - t / stages) ** 3)
        elif options.kind == "geometric" and density < 1.0:
            shares.append((1.0 - density ** (t / stages)) / (1.0 - density))
        else:
            shares.append(t / stages)
    shares[-1] = 1.0
    return shares
