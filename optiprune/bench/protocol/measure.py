"""One solve, measured: CPU time to the budget, every energy recomputed."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optiprune.bench.instances.instance import hex_of
from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.solvers import (
    Solution,
    Solver,
    SolverError,
    Status,
    Stop,
    Target,
    TimeLimit,
    UnsupportedProblemError,
    check_solution,
)

from .spec import SolverSpec

__all__ = ["KEPT_POINTS", "measure", "warm_up"]

KEPT_POINTS = 200
"""Incumbents of a run that are written down, the first and the last ones among them."""

# below this share of the budget no further start is made
_WORTHWHILE = 0.02
# kernels of a solver that may have to be compiled, at most
_MOST_KERNELS = 30


@dataclass(slots=True)
class _Run:
    """What has been seen of one solve so far."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    starts: int = 0
    best: Solution | None = None
    energy: float = math.inf
    bound: float = -math.inf
    status: str = Status.NO_INCUMBENT.value
    stop_reason: str = ""
    message: str = ""
    moves: int = 0
    trajectory: list[tuple[float, float]] = field(default_factory=list)


def cpu_seconds() -> float:
    """CPU time of this process, all its threads, and its children.

    Children that live on count on Linux alone, by the clocks of their processes; elsewhere a child
    counts when it has ended.
    """
    t = os.times()
    living = sum(map(_clock_of, _living_children()))
    return time.process_time() + t.children_user + t.children_system + living


def _living_children() -> list[int]:
    children: list[int] = []
    if sys.platform == "linux":
        # each thread's own: whichever has started them
        for listed in glob.glob("/proc/self/task/*/children"):
            with contextlib.suppress(OSError), open(listed) as f:
                children += map(int, f.read().split())
    return children


def _clock_of(pid: int) -> float:
    """Seconds of CPU time of another process, 0 once it has ended."""
    # how Linux numbers these clocks, see clock_getcpuclockid in glibc
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


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

    A solve is handed the rest of the budget as its `TimeLimit` (wall-clock). With ``fill``, one
    that ends by itself is followed by another, from the next child of the seed, until the budget is
    used up, an optimum is proven or ``target`` is reached.

    Returns
    -------
    dict of plain values
        ``status`` ("optimal", "feasible", "no incumbent", "infeasible", "failed", "error" or
        "skipped"), ``energy`` (of `check_solution`), ``bound``, ``x`` (`hex_of`), ``cpu_s``,
        ``wall_s``, ``starts``, ``moves``, ``stop_reason``, ``message``, and ``trajectory``:
        ``[seconds, energy]`` of each incumbent, in CPU time of the run (wall-clock time of the
        solver, scaled by CPU over wall-clock time). No exception of a solver passes.
    """
    run = _Run()
    try:
        solver = spec.make(problem)
        _require_support(solver, spec, problem)
        children = np.random.SeedSequence(seed)
        while True:
            # the first start has the seed itself, as it would have without the bench
            child = seed if run.starts == 0 else children.spawn(1)[0]
            left = budget - run.cpu_s
            stop: Stop = TimeLimit(left)
            if target is not None:
                stop = stop | Target(target)
            _one(run, solver, problem, child, stop)
            enough = budget - run.cpu_s < _WORTHWHILE * budget or run.wall_s > 3 * budget + 1
            if not fill or enough or run.status in ("optimal", "infeasible", "failed"):
                break
            if target is not None and run.energy <= target:
                break
    except UnsupportedProblemError as e:
        return {"status": "skipped", "message": str(e)}
    except SolverError as e:
        return _record(run, "error", f"{type(e).__name__}: {e}")
    except MemoryError:
        return _record(run, "error", "MemoryError")
    except Exception as e:  # a solver's own defect is a result as well
        return _record(run, "error", f"{type(e).__name__}: {e}")
    return _record(run, run.status, run.message)


def _require_support(solver: Solver, spec: SolverSpec, problem: Problem) -> None:
    if spec.max_n is not None and problem.n > spec.max_n:
        raise UnsupportedProblemError(f"'{spec.label}' takes at most {spec.max_n} variables here")
    require = getattr(solver, "require_support", None)
    if require is not None:
        require(problem)
    elif type(problem) not in solver.capabilities.problems:
        raise UnsupportedProblemError(f"'{spec.label}' does not take {type(problem).__name__}")


def _one(run: _Run, solver: Solver, problem: Problem, seed: Any, stop: Stop) -> None:
    cpu, wall = cpu_seconds(), time.perf_counter()
    solution = solver.solve(problem, seed=seed, stop=stop)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    stats = solution.stats
    # CPU time may be above the wall-clock time, with threads, or below it on a busy machine
    rate = min(cpu / wall, 1e3) if wall > 0 else 1.0
    if solution.status.has_solution:
        energy = check_solution(problem, solution)
        points = _incumbents(stats.trajectory, energy, wall)
        for t, e in [(run.cpu_s + min(t * rate, cpu), e) for t, e in points]:
            if not run.trajectory or e < run.trajectory[-1][1]:
                run.trajectory.append((t, e))
        if energy < run.energy:
            run.best, run.energy = solution, energy
    if solution.bound is not None:
        run.bound = max(run.bound, solution.bound)
    if run.status != Status.FEASIBLE.value or solution.status is Status.OPTIMAL:
        run.status = solution.status.value
    run.cpu_s += cpu
    run.wall_s += wall
    run.starts += 1
    run.moves += stats.moves
    run.stop_reason = stats.stop_reason
    run.message = stats.message


def _incumbents(
    told: tuple[tuple[float, float], ...], energy: float, wall: float
) -> list[tuple[float, float]]:
    """A solver's trajectory that ends in the energy that was recomputed.

    What a solver tells of its way is believed only above that energy. The answer has the time of
    the last incumbent if that has its energy (within the rounding of float32), else the end.
    """
    near = 1e-5 * abs(energy)
    points = [(t, e) for t, e in told if e > energy]
    at = told[-1][0] if told and abs(told[-1][1] - energy) <= near else wall
    return [(t, e) for t, e in points if t < at] + [(at, energy)]


def _record(run: _Run, status: str, message: str) -> dict[str, Any]:
    x = None if run.best is None or run.best.x is None else hex_of(run.best.x)
    return {
        "status": status,
        "energy": run.energy if math.isfinite(run.energy) else None,
        "bound": run.bound if math.isfinite(run.bound) else None,
        "x": x,
        "cpu_s": round(run.cpu_s, 6),
        "wall_s": round(run.wall_s, 6),
        "starts": run.starts,
        "moves": int(run.moves),
        "stop_reason": run.stop_reason,
        "message": message[:2000],
        "trajectory": _thinned(run.trajectory),
    }


def _thinned(trajectory: list[tuple[float, float]]) -> list[list[float]]:
    points = trajectory
    if len(points) > KEPT_POINTS:
        # dense at the end, where targets are met
        half = KEPT_POINTS // 2
        early = np.unique(np.linspace(0, len(points) - half - 1, half).astype(int))
        points = [points[i] for i in early] + points[-half:]
    return [[round(t, 7), e] for t, e in points]


def warm_up(problem: Problem, spec: SolverSpec) -> None:
    """Solve a small part of a problem, unmeasured: compiled kernels and back ends load once.

    Errors are left to the solve that is measured.
    """
    small = _corner(problem, 24)
    try:
        solver = spec.make(small)
        if not solver.capabilities.keeps_time_limit:
            solver.solve(small, seed=0, stop=TimeLimit(0.2))
            return
        # other sizes and storage may take other kernels
        for part, seconds in ((small, 0.2), (problem, 0.05)):
            _solve_until_compiled(solver, part, seconds)
    except Exception:
        return


def _solve_until_compiled(solver: Solver, problem: Problem, seconds: float) -> None:
    """A kernel that compiles uses up the limit, and those behind it wait for the next solve."""
    for _ in range(_MOST_KERNELS):
        began = time.perf_counter()
        solver.solve(problem, seed=0, stop=TimeLimit(seconds))
        if time.perf_counter() - began < 1.1 * seconds + 0.05:
            return


def _corner(problem: Problem, size: int) -> Problem:
    """The first variables of a problem, with constraints that can be met."""
    n = min(size, problem.n)
    if isinstance(problem, MIQP):
        H = problem.H if isinstance(problem.H, np.ndarray) else problem.H.toarray(np.float64)
        return MIQP(H[:n, :n], problem.b[:n], k=min(problem.k, n), M=problem.M[:n])
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        return problem
    dtype = problem.Q.dtype if isinstance(problem.Q, np.ndarray) else np.float64
    Q = problem.dense()[:n, :n].astype(dtype)
    linear = problem.linear[:n]
    if isinstance(problem, CardinalityQP):
        ids, groups = np.unique(problem.groups[:n], return_inverse=True)
        k = np.minimum(problem.k[ids], (np.bincount(groups) + 1) // 2)
        return CardinalityQP(Q, linear, k=k, groups=groups)
    if isinstance(problem, BudgetQP):
        return problem
    return QUBO(Q, linear)
