"""Call a solver as the engine does: check the answer, and let Ctrl-C through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, CardinalityQP
from optiprune.solvers import Solution, Solver, Stop, check_solution
from optiprune.solvers.trajectory import Trajectory, thinned_trajectory, verified_trajectory

__all__ = ["POINTS", "solve_checked", "trajectory_of"]

POINTS = 24
"""Of a solver's trajectory that a record keeps."""


def solve_checked(
    solver: Solver,
    problem: CardinalityQP | MIQP,
    x0: npt.NDArray[np.int8],
    seed: np.random.SeedSequence,
    stop: Stop | None,
) -> tuple[Solution, float]:
    """(answer, its energy recomputed in float64).

    Raises
    ------
    InvalidSolutionError
        The answer is infeasible, or its energy is not what the solver says.
    KeyboardInterrupt
        The user interrupted the solver. It returns its incumbent then, which serves whoever called
        it alone; a run of many solves has to end.
    """
    solution = solver.solve(problem, x0=x0, seed=seed, stop=stop)
    if isinstance(solution, Solution) and solution.stats.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return solution, check_solution(problem, solution)


def trajectory_of(solution: Solution, energy: float) -> Trajectory:
    """The incumbents of a solve that ended in ``energy``, for a record; none if none were told."""
    try:
        if not solution.stats.trajectory:
            return ()
        points = verified_trajectory(solution.stats.trajectory, energy, solution.stats.wall_s)
    except (TypeError, ValueError, OverflowError):  # somebody's solver says something else
        return ()
    return thinned_trajectory(points, POINTS)
