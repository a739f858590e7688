"""What a solver returns: an assignment, how good it is known to be, and how it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Solution", "SolveStats", "Status"]


class Status(Enum):
    """Outcome of a solve. A status is never upgraded: OPTIMAL is claimed only with a proof."""

    OPTIMAL = "optimal"
    """Feasible and proven best (within the solver's stated tolerance)."""
    FEASIBLE = "feasible"
    """Feasible, no proof. Give more time, or an exact solver, to learn more."""
    NO_INCUMBENT = "no incumbent"
    """Stopped before any feasible assignment was found; give more time or a feasible x0."""
    INFEASIBLE = "infeasible"
    """Proven to have no feasible assignment; relax the budgets."""
    FAILED = "failed"
    """The back end broke; ``stats.message`` holds what it said."""

    @property
    def has_solution(self) -> bool:
        return self in (Status.OPTIMAL, Status.FEASIBLE)


@dataclass(frozen=True, slots=True)
class SolveStats:
    """How a solve went.

    Attributes
    ----------
    solver : name of the solver that ran
    wall_s : wall-clock seconds of the whole call, set-up included
    moves : moves proposed (flips or exchanges evaluated one at a time; nodes for tree searches)
    accepted : moves carried out
    restarts : fresh starts within the call
    stop_reason : "completed", "time", "iterations", "target", "no improvement", "interrupted"
    trajectory : (seconds since the start, energy) at each new incumbent, in order
    overrun_s : seconds by which a back end passed its time limit; 0 when it kept it
    message : anything that the user should read (what `auto` chose, what a back end complained of)
    extra : back-end specific numbers
    """

    solver: str
    wall_s: float = 0.0
    moves: int = 0
    accepted: int = 0
    restarts: int = 0
    stop_reason: str = "completed"
    trajectory: tuple[tuple[float, float], ...] = ()
    overrun_s: float = 0.0
    message: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def acceptance(self) -> float:
        """Accepted over proposed moves; 0 when none was proposed."""
        return self.accepted / self.moves if self.moves else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The answer to one problem.

    Attributes
    ----------
    x : int8 array, shape (n,), or None when there is no feasible assignment to give
    energy : float64 energy of x, recomputed from the problem; inf when x is None
    bound : proven lower bound on the energy of every feasible assignment, or None
    status : `Status`
    stats : `SolveStats`
    weights : continuous weights of an `MIQP`, shape (n,); None for binary problems
    """

    x: npt.NDArray[np.int8] | None
    energy: float
    bound: float | None
    status: Status
    stats: SolveStats
    weights: npt.NDArray[np.float64] | None = None

    @property
    def gap(self) -> float | None:
        """``(energy - bound) / max(|energy|, 1e-12)``, or None without a bound or a solution."""
        if self.bound is None or self.x is None:
            return None
        return max(0.0, self.energy - self.bound) / max(abs(self.energy), 1e-12)
