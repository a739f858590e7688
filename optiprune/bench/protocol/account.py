"""What is known of one measured solve: plain values, whatever a solver hands back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optiprune.bench.instances.instance import hex_of
from optiprune.problems import Problem
from optiprune.solvers import Solution, Status, check_solution
from optiprune.solvers.trajectory import Trajectory, thinned_trajectory, verified_trajectory

__all__ = ["KEPT_POINTS", "Account"]

KEPT_POINTS = 200
"""Incumbents of a run that are written down, the first and the last ones among them."""


@dataclass(slots=True)
class Account:
    """The starts of one run so far.

    Attributes
    ----------
    x : the best answer as `hex_of` writes it
    stop_reason, message : of the start that gave it; without an answer, of the last one
    trajectory : (CPU seconds, energy) of the incumbents
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    starts: int = 0
    x: str | None = None
    energy: float = math.inf
    bound: float = -math.inf
    status: str = Status.NO_INCUMBENT.value
    stop_reason: str = ""
    message: str = ""
    moves: int = 0
    trajectory: list[tuple[float, float]] = field(default_factory=list)

    def spend(self, cpu: float, wall: float) -> None:
        """Count the time of a start, whatever came of it."""
        self.cpu_s += cpu
        self.wall_s += wall
        self.starts += 1

    def add(self, problem: Problem, solution: Solution, cpu: float, wall: float) -> None:
        """Take in the answer of the start that was counted last, in whole or not at all.

        Raises
        ------
        InvalidSolutionError
            The answer is not what it claims to be.
        AttributeError, TypeError, ValueError
            It is no `Solution`, or holds something else where numbers are due.
        """
        stats, status = solution.stats, Status(solution.status)
        moves, reason, message = int(stats.moves), _text(stats.stop_reason), _text(stats.message)
        bound = -math.inf if solution.bound is None else float(solution.bound)
        energy, x = math.inf, None
        points: Trajectory = ()
        if status.has_solution:
            energy = float(check_solution(problem, solution))
            x = hex_of(np.asarray(solution.x))
            points = verified_trajectory(stats.trajectory, energy, wall)
        # CPU time may be above the wall-clock time, with threads, or below it on a busy machine
        rate = min(cpu / wall, 1e3) if wall > 0 else 1.0
        for t, e in points:
            if not self.trajectory or e < self.trajectory[-1][1]:
                self.trajectory.append((self.cpu_s - cpu + min(t * rate, cpu), e))
        if energy < self.energy or self.x is None or status is Status.OPTIMAL:
            self.stop_reason, self.message = reason, message
        if energy < self.energy:
            self.energy, self.x = energy, x
        self.bound = max(self.bound, bound)
        if self.status != Status.FEASIBLE.value or status is Status.OPTIMAL:
            self.status = status.value
        self.moves += moves

    def record(self, status: str, message: str) -> dict[str, Any]:
        """The fields of the journal."""
        return {
            "status": status,
            "energy": self.energy if math.isfinite(self.energy) else None,
            "bound": self.bound if math.isfinite(self.bound) else None,
            "x": self.x,
            "cpu_s": round(self.cpu_s, 6),
            "wall_s": round(self.wall_s, 6),
            "starts": self.starts,
            "moves": self.moves,
            "stop_reason": self.stop_reason,
            "message": _text(message)[:2000],
            "trajectory": [list(p) for p in thinned_trajectory(self.trajectory, KEPT_POINTS)],
        }


def _text(value: Any) -> str:
    """As text that every file can hold: without halves of surrogate pairs."""
    return "" if value is None else str(value).encode(errors="replace").decode()
