"""Ctrl-C in a batch: it ends soon, and nothing that was found is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from optiprune.problems import CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    BaseSolver,
    Capabilities,
    Outcome,
    Solution,
    Status,
    TimeLimit,
    UnsupportedProblemError,
    check_solution,
    get,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")

PROBLEMS = [layer_problem(30, 15, seed=i) for i in range(6)]


@pytest.fixture
def interrupt_after():
    """interrupt_after(seconds) sends this process what Ctrl-C sends."""
    timers = []

    def start(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield start
    for t in timers:
        t.join()


@dataclass(frozen=True)
class Quick(BaseSolver):
    """Solves the first ``quick`` problems at once, works on others until it is interrupted."""

    quick: int
    begun: list[int]

    name: ClassVar[str] = "quick"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        self.begun.append(problem.n)
        x = np.arange(problem.n) < problem.k[0]
        if any(problem is p for p in PROBLEMS[: self.quick]):
            return Outcome(x, Status.FEASIBLE, watch.stats("completed"))
        while watch.reason_to_stop() is None:
            time.sleep(0.01)
        return Outcome(x, Status.FEASIBLE, watch.stats(watch.reason_to_stop()))


def are_complete(solutions: list[Solution], quick: int, under_way: int) -> None:
    reasons = [s.stats.stop_reason for s in solutions]
    assert reasons == ["completed"] * quick + ["interrupted"] * (len(PROBLEMS) - quick)
    for p, s in zip(PROBLEMS, solutions[: quick + under_way], strict=False):
        check_solution(p, s)
    for s in solutions[quick + under_way :]:
        assert s.status is Status.NO_INCUMBENT
        assert s.x is None
        assert s.stats.solver


def test_no_problem_is_begun_after_an_interrupt(interrupt_after) -> None:
    solver = Quick(2, [])
    interrupt_after(0.2)
    are_complete(solver.solve_many(PROBLEMS, workers=2), 2, 2)
    assert len(solver.begun) == 4


def test_one_worker_raises_nothing_either(interrupt_after) -> None:
    # this solver does not catch the signal, and so its problem has no answer
    solver = Quick(2, [])
    interrupt_after(0.2)
    are_complete(solver.solve_many(PROBLEMS), 2, 0)
    assert len(solver.begun) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_feasible_starts_stand_in_for_what_was_not_begun(interrupt_after, workers) -> None:
    solver = Quick(0, [])
    starts = [np.arange(30) >= 15] * 5 + [np.zeros(30)]
    interrupt_after(0.2)
    solutions = solver.solve_many(PROBLEMS, x0s=starts, workers=workers)
    assert [s.status for s in solutions] == [Status.FEASIBLE] * 5 + [Status.NO_INCUMBENT]
    for p, s, x in zip(PROBLEMS[:5], solutions[:5], starts, strict=False):
        assert s.energy <= p.energy(x)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("annealing", {"restarts": 0}),
        ("tabu", {"iterations": 0}),
        ("local-search", {"starts": 0}),
        ("auto", {"effort": 1e6}),
        ("exhaustive", {"max_assignments": 1 << 60}),
        ("highs", {}),
        ("pyomo", {}),
        ("dimod", {"reads": 10**5}),
        ("torch", {"sweeps": 10**9, "device": "cpu", "batch": 2}),
    ],
)
def test_every_solver_ends_its_batch(interrupt_after, name, options, workers) -> None:
    problems = [layer_problem(60, 30, samples=60, seed=i) for i in range(6)]
    solver = get(name, **options)
    solver.solve(layer_problem(8, 4), stop=TimeLimit(0.05))  # compile
    t = time.perf_counter()
    # Pyomo has nothing to show for the first seconds, with every core of the machine busy
    interrupt_after(4.0 if name == "pyomo" else 0.5)
    solutions = solver.solve_many(problems, stop=TimeLimit(20), workers=workers)
    assert time.perf_counter() - t < 10
    assert [s.stats.stop_reason for s in solutions] == ["interrupted"] * 6
    begun = [s for s in solutions if s.status.has_solution]
    assert len(begun) >= (1 if name == "pyomo" else workers)  # Pyomo's are solved in turn
    for p, s in zip(problems, begun, strict=False):
        check_solution(p, s)


def test_a_second_interrupt_is_raised(interrupt_after) -> None:
    @dataclass(frozen=True)
    class Deaf(Quick):
        def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
            time.sleep(1.0)
            return super()._solve(problem, x0, seed, watch)

    interrupt_after(0.2)
    interrupt_after(0.5)
    with pytest.raises(KeyboardInterrupt):
        Deaf(9, []).solve_many(PROBLEMS, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_and_ends_the_batch(workers) -> None:
    solver = Quick(1000, [])
    bad = [PROBLEMS[0], get, *[PROBLEMS[1]] * 500]
    with pytest.raises(UnsupportedProblemError):
        solver.solve_many(bad, workers=workers)
    assert len(solver.begun) < 400
