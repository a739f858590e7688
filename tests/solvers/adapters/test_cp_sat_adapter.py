"""CP-SAT in a process of its own; what all solvers promise stands in `tests/conformance`."""

from __future__ import annotations

import sys
import threading
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import BudgetQP, CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    BackendMissingError,
    IterationLimit,
    NoImprovement,
    SolverError,
    SolverOptionError,
    Status,
    TimeLimit,
)
from optiprune.solvers.adapters import cp_sat, cp_sat_process

here = pytest.mark.skipif(find_spec("ortools") is None, reason="needs ortools")


def hard() -> CardinalityQP:
    return layer_problem(50, 25, samples=50, seed=0)


def test_without_ortools_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp_sat, "find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match="pip install ortools"):
        solvers.get("cp-sat")


@here
def test_it_proves_the_optimum_and_ortools_stays_out_of_this_process() -> None:
    problem = layer_problem(14, 7, seed=3)
    found = solvers.get("cp-sat").solve(problem)
    assert found.status is Status.OPTIMAL
    assert found.energy == pytest.approx(solvers.get("exhaustive").solve(problem).energy)
    assert found.bound == pytest.approx(found.energy, rel=1e-9, abs=1e-12)
    assert "ortools" not in sys.modules


@here
@pytest.mark.parametrize("limit", [0.005, 0.01, 0.02, 0.04, 0.08, 0.12])
def test_a_run_that_ends_before_the_model_is_read_bounds_nothing(limit: float) -> None:
    # an objective far below 0, of which CP-SAT's first bound of 0 is none
    problem = layer_problem(64, 32, seed=0)
    low = CardinalityQP(problem.Q - 10 * np.eye(64), problem.linear, problem.offset, k=32)
    optimum = solvers.get("tabu").solve(low).energy
    solver = solvers.get("cp-sat")
    solver.solve(layer_problem(8, 4))  # starts the process
    found = solver.solve(low, stop=TimeLimit(limit))
    assert found.bound is None or found.bound <= optimum + 1e-6 * abs(optimum)


@here
def test_a_run_cut_short_has_an_honest_bound() -> None:
    solver = solvers.get("cp-sat")
    solver.solve(layer_problem(8, 4))  # starts the process
    began = time.perf_counter()
    start = np.arange(50) % 2
    found = solver.solve(hard(), x0=start, stop=TimeLimit(2.0))
    assert time.perf_counter() - began < 20  # the machine may be busy with something else
    assert found.status is Status.FEASIBLE
    assert found.stats.stop_reason == "time"
    assert found.bound is not None
    assert found.bound < solvers.get("tabu").solve(hard()).energy
    assert found.energy <= hard().energy(start)


@here
def test_costs_without_a_common_unit_are_met() -> None:
    rng = np.random.default_rng(5)
    A = rng.uniform(1e8, 1e9, size=(2, 10))
    problem = BudgetQP(rng.normal(size=(10, 10)), A=A, upper=A.sum(axis=1) / 2)
    found = solvers.get("cp-sat").solve(problem)
    assert found.status is Status.OPTIMAL
    assert found.energy == pytest.approx(solvers.get("exhaustive").solve(problem).energy)


@here
def test_conflicts_are_its_iterations_and_others_are_named() -> None:
    found = solvers.get("cp-sat").solve(hard(), stop=IterationLimit(50) | NoImprovement(10))
    assert found.stats.stop_reason == "iterations"
    assert found.stats.extra["conflicts"] < 200
    assert "no improvement" in found.stats.message


@here
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random_seed": 3}, "use seed"),
        ({"num_workers": 3}, "use threads"),
    ],
)
def test_parameters_with_an_option_of_their_own_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SolverOptionError, match=message):
        solvers.get("cp-sat", options=options)


@here
@pytest.mark.parametrize("options", [{"no_such_parameter": 1}, {"linearization_level": "high"}])
def test_parameters_that_cp_sat_refuses_are_named(options: dict[str, Any]) -> None:
    problem = layer_problem(8, 4)
    with pytest.raises(SolverOptionError, match=next(iter(options))):
        solvers.get("cp-sat", options=options).solve(problem)
    # and the process goes on
    assert solvers.get("cp-sat").solve(problem).status is Status.OPTIMAL


@here
def test_a_process_that_dies_is_an_error_and_the_next_solve_has_another() -> None:
    solver = solvers.get("cp-sat")
    solver.solve(layer_problem(8, 4))
    (process,) = cp_sat_process._idle[-1:]
    killer = threading.Timer(0.5, process._process.kill)
    killer.start()
    with pytest.raises(SolverError, match="exit code -9"):
        solver.solve(hard())
    killer.join()
    assert solver.solve(layer_problem(8, 4)).status is Status.OPTIMAL
    # one that dies between two solves is not even noticed
    cp_sat_process._idle[-1]._process.kill()
    cp_sat_process._idle[-1]._process.wait()
    assert solver.solve(layer_problem(8, 4)).status is Status.OPTIMAL


@here
def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp_sat, "_PATIENCE", -0.8)  # before its own limit
    began = time.perf_counter()
    found = solvers.get("cp-sat").solve(hard(), x0=np.arange(50) % 2, stop=TimeLimit(2.5))
    assert time.perf_counter() - began < 20
    # an error would have cost the user what was there
    assert found.x is not None
    assert found.energy <= hard().energy(np.arange(50) % 2)
    assert found.stats.stop_reason == "time"
    assert "was ended" in found.stats.message


@here
def test_ctrl_c_while_it_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def interrupted(self: cp_sat_process.CpSatProcess) -> None:
        started.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(cp_sat_process.CpSatProcess, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cp_sat_process.CpSatProcess()
    assert not started[0].alive


@here
def test_solves_at_the_same_time_have_a_process_each() -> None:
    problems = [layer_problem(12, 6, seed=i) for i in range(4)]
    found = solvers.get("cp-sat").solve_many(problems, workers=2)
    assert [s.status for s in found] == [Status.OPTIMAL] * 4
    assert 1 <= len(cp_sat_process._idle) <= cp_sat_process._IDLE
