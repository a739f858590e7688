"""Whether a solver takes the problems that a run will make."""

from __future__ import annotations

from collections.abc import Sequence

from optiprune.config import Config
from optiprune.curvature.layers import PrunableLayer
from optiprune.problems import MIQP, CardinalityQP
from optiprune.solvers import Solver, UnsupportedProblemError

__all__ = ["require_solver"]


def require_solver(solver: Solver, config: Config, layers: Sequence[PrunableLayer]) -> None:
    """Raise `UnsupportedProblemError` if it does not; ``config`` without 'auto' objectives."""
    if CardinalityQP not in solver.capabilities.problems:
        raise UnsupportedProblemError(
            f"solver '{solver.name}' does not take CardinalityQP, which the engine makes; "
            "wrap it so that it takes a QUBO by optiprune.problems.to_penalty_qubo"
        )
    layerwise = config.prune.objective == "reconstruction"
    fits = config.prune.refit and not layerwise and config.subset.rounds
    if fits and MIQP not in solver.capabilities.problems:
        raise UnsupportedProblemError(
            f"solver '{solver.name}' does not take MIQP, which subset.rounds = "
            f"{config.subset.rounds} makes; use 'auto' or 'tabu', or subset.rounds = 0"
        )
    if layerwise:
        widest = max(layer.cols for layer in layers)
    else:
        widest = sum(layer.numel for layer in layers)
    n, most = min(config.batches.size, widest), solver.capabilities.max_n
    if most is not None and n > most:
        raise UnsupportedProblemError(
            f"solver '{solver.name}' takes at most {most} variables and batches have {n}; "
            f"set batches.size = {most}, or choose another solver"
        )
