"""Solve the rows of a layer side by side, each problem built only when its turn comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from optiprune.config import BatchOptions
from optiprune.solvers import Solver, Status, Stop
from optiprune.solvers.trajectory import Trajectory

from .row_search import flip_costs, row_batch, row_problem
from .solving import solve_checked, trajectory_of

__all__ = ["RowAnswer", "RowTask", "SomeRows", "Task", "largest_gap", "solve_rows", "worst_status"]


@dataclass(frozen=True, slots=True, eq=False)
class RowAnswer:
    """A row's proposed mask (cols,), the batch it chose from, and the change of error promised.

    ``status`` and ``gap`` are the solution's, ``trajectory`` holds its incumbents.
    """

    row: int
    mask: npt.NDArray[np.bool_]
    index: npt.NDArray[np.int64]
    predicted: float
    solver: str
    status: Status
    gap: float | None
    seconds: float
    trajectory: Trajectory = ()


class Task(Protocol):
    """Solves one row of a layer at a time, in any thread."""

    def solve(
        self,
        row: int,
        mask: npt.NDArray[np.bool_],
        visited: npt.NDArray[np.bool_],
        seed: np.random.SeedSequence,
    ) -> RowAnswer | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class SomeRows:
    """A task that is done for ``chosen`` rows, (rows,) bool, alone."""

    task: Task
    chosen: npt.NDArray[np.bool_]

    def solve(
        self,
        row: int,
        mask: npt.NDArray[np.bool_],
        visited: npt.NDArray[np.bool_],
        seed: np.random.SeedSequence,
    ) -> RowAnswer | None:
        return self.task.solve(row, mask, visited, seed) if self.chosen[row] else None


@dataclass(frozen=True, slots=True, eq=False)
class RowTask:
    """What the rows of a layer share.

    Attributes
    ----------
    H : (groups, cols, cols) float32, Gram matrices: the problem's couplings need no more, since
        every answer is measured again in float64 before it is accepted
    b, w : (rows, cols) float64, targets Cŵ and restored weights
    pattern : (N, M) or None
    """

    H: npt.NDArray[np.float32]
    b: npt.NDArray[np.float64]
    w: npt.NDArray[np.float64]
    pattern: tuple[int, int] | None
    options: BatchOptions
    solver: Solver
    stop: Stop | None

    def solve(
        self,
        row: int,
        mask: npt.NDArray[np.bool_],
        visited: npt.NDArray[np.bool_],
        seed: np.random.SeedSequence,
    ) -> RowAnswer | None:
        """The solver's answer for one row, recomputed; None where there is nothing to choose.

        ``mask`` and ``visited`` are (cols,).
        """
        start = time.perf_counter()
        if mask.all() or not mask.any():
            return None
        H = self.H[row * self.H.shape[0] // self.w.shape[0]]
        b, w = self.b[row], self.w[row]
        index = np.arange(mask.size)
        if mask.size > self.options.size:
            draw, seed = seed.spawn(2)
            cost = flip_costs(H, b, w, mask)
            rng = np.random.default_rng(draw)
            index = row_batch(cost, mask, visited, self.options, self.pattern, rng)
            if index.size == 0:
                return None
        problem = row_problem(H, b, w, mask, index, self.pattern)
        x0 = mask[index].astype(np.int8)
        solution, predicted = solve_checked(self.solver, problem, x0, seed, self.stop)
        assert solution.x is not None
        proposed = mask.copy()
        proposed[index] = solution.x.astype(bool)
        spent = time.perf_counter() - start
        return RowAnswer(
            row=row,
            mask=proposed,
            index=index,
            predicted=predicted,
            solver=solution.stats.solver,
            status=solution.status,
            gap=solution.gap,
            seconds=spent,
            trajectory=trajectory_of(solution, predicted),
        )


def solve_rows(
    task: Task,
    masks: npt.NDArray[np.bool_],
    visited: npt.NDArray[np.bool_],
    seeds: Callable[[int], np.random.SeedSequence],
    workers: int,
) -> Iterator[RowAnswer | None]:
    """Answers of all rows in order, at most ``workers`` problems in memory at a time.

    ``masks`` and ``visited`` are (rows, cols) and must not change meanwhile; ``seeds`` gives each
    row a seed of its own, so that the answers do not depend on ``workers``. The first exception
    of a row is raised; rows that have not begun are dropped.
    """

    def one(row: int) -> RowAnswer | None:
        return task.solve(row, masks[row], visited[row], seeds(row))

    rows: Sequence[int] = range(masks.shape[0])
    if workers == 1:
        yield from map(one, rows)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(one, rows)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worst_status(group: Sequence[RowAnswer]) -> Status:
    """OPTIMAL if every answer is."""
    proven = bool(group) and all(a.status is Status.OPTIMAL for a in group)
    return Status.OPTIMAL if proven else Status.FEASIBLE


def largest_gap(group: Sequence[RowAnswer]) -> float | None:
    """None if one is not known."""
    gaps = [a.gap for a in group if a.gap is not None]
    return max(gaps) if gaps and len(gaps) == len(group) else None
