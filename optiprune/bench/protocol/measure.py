"""One solve, measured: CPU time to the budget, every energy recomputed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from optiprune.problems import Problem
from optiprune.solvers import Solver, Status, Stop, Target, TimeLimit, UnsupportedProblemError

from .account import Account
from .cpu_time import cpu_seconds
from .spec import SolverSpec

__all__ = ["measure"]

# below this share of the budget no further start is made
_WORTHWHILE = 0.02
# wall-clock over CPU seconds that a busy machine explains; beyond it a solver waits for something
_MOST_STRETCH = 3.0
# a tree search that had less than this share of its budget in CPU time was cut off by other work
_SHORT = 0.8
_ENDED = {s.value for s in (Status.OPTIMAL, Status.INFEASIBLE, Status.FAILED)}


def measure(
    problem: Problem,
    spec: SolverSpec,
    *,
    seed: int,
    budget: float,
    fill: bool = True,
    target: float | None = None,
) -> dict[str, Any]:
    """Solve a problem within a budget of CPU seconds.

    A solve is handed the rest of the budget as its `TimeLimit` (wall-clock), stretched by what the
    starts before it had to wait for the processor. With ``fill``, one that ends by itself is
    followed by another, from the next child of the seed, until the budget is used up, an optimum is
    proven or ``target`` is reached. A tree search that the limit cut off is not begun anew with
    what is left, which would be lost time; where a busy machine gave it much less than the budget,
    it is solved again as a whole with a stretched limit, and that solve alone counts.

    Returns
    -------
    dict of plain values
        ``status`` ("optimal", "feasible", "no incumbent", "infeasible", "failed", "error" or
        "skipped"), ``energy`` (of `check_solution`), ``bound``, ``x`` (`hex_of`), ``cpu_s``,
        ``wall_s``, ``starts``, ``moves``, ``stop_reason``, ``message``, and ``trajectory``:
        ``[seconds, energy]`` of each incumbent, in CPU time of the run (wall-clock time of the
        solver, scaled by CPU over wall-clock time). No exception of a solver passes.
    """
    run, stretch, repeated = Account(), 1.0, False
    try:
        solver = spec.make(problem)
        _require_support(solver, spec, problem)
        children = np.random.SeedSequence(seed)
        while True:
            # the first start has the seed itself, as it would have without the bench
            child = seed if run.starts == 0 else children.spawn(1)[0]
            limit = stretch * (budget - run.cpu_s)
            stop: Stop = TimeLimit(limit)
            if target is not None:
                stop = stop | Target(target)
            wall = _start(run, solver, problem, child, stop)
            if run.status in _ENDED or (target is not None and run.energy <= target):
                break
            stretch = _stretch(run)
            if solver.capabilities.exact and wall >= 0.9 * limit:
                if repeated or run.starts > 1 or stretch == 1.0 or run.cpu_s >= _SHORT * budget:
                    break
                run, repeated = Account(), True
                continue
            enough = budget - run.cpu_s < _WORTHWHILE * budget or run.wall_s > 3 * budget + 1
            if not fill or enough:
                break
        return run.record(run.status, run.message)
    except UnsupportedProblemError as e:
        return {"status": "skipped", "message": str(e)}
    except Exception as e:  # a solver's own defect is a result as well
        return run.record("error", f"{type(e).__name__}: {e}".removesuffix(": "))


def _require_support(solver: Solver, spec: SolverSpec, problem: Problem) -> None:
    if spec.max_n is not None and problem.n > spec.max_n:
        raise UnsupportedProblemError(f"'{spec.label}' takes at most {spec.max_n} variables here")
    require = getattr(solver, "require_support", None)
    if require is not None:
        require(problem)
    elif type(problem) not in solver.capabilities.problems:
        raise UnsupportedProblemError(f"'{spec.label}' does not take {type(problem).__name__}")


def _start(run: Account, solver: Solver, problem: Problem, seed: Any, stop: Stop) -> float:
    """Solve once; the wall-clock seconds of it. What it cost is counted even if it raises."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    try:
        solution = solver.solve(problem, seed=seed, stop=stop)
    finally:
        # a child that goes to another parent takes its time along
        cpu, wall = max(0.0, cpu_seconds() - cpu), time.perf_counter() - wall
        run.spend(cpu, wall)
    run.add(problem, solution, cpu, wall)
    return wall


def _stretch(run: Account) -> float:
    """Wall-clock over CPU seconds so far; 1 for threads, and where it is not for want of CPU."""
    share = run.wall_s / run.cpu_s if run.cpu_s > 0 else 1.0
    return share if 1.0 < share <= _MOST_STRETCH else 1.0
