"""Counts among the hyperparameters and stop criteria: whole numbers, of any size, nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import QUBO, CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    IterationLimit,
    NoImprovement,
    SolverOptionError,
    Status,
    TimeLimit,
    UnsupportedProblemError,
)

# every option that counts something, with the least value that it takes
COUNTS = [
    ("annealing", "sweeps", 1),
    ("annealing", "restarts", 0),
    ("tabu", "iterations", 0),
    ("tabu", "tenure", 0),
    ("tabu", "spread", 1),
    ("tabu", "stall", 1),
    ("local-search", "starts", 0),
    ("torch", "sweeps", 1),
    ("torch", "replicas", 1),
    ("torch", "batch", 1),
    ("exhaustive", "max_assignments", 1),
    ("highs", "threads", 1),
    ("dimod", "reads", 1),
]
NO_COUNTS = [math.nan, math.inf, 2.5, True, np.True_, "7", 1j, [1]]


@pytest.mark.parametrize(("name", "option", "least"), COUNTS)
def test_a_count_is_a_whole_number(name: str, option: str, least: int) -> None:
    cls = solvers.solver_class(name)
    for value in NO_COUNTS:
        with pytest.raises(SolverOptionError, match=f"{option} must be a whole number, got"):
            cls(**{option: value})
    with pytest.raises(SolverOptionError, match=f"{option} must be >= {least}, got {least - 1}"):
        cls(**{option: least - 1})
    # what a config file or numpy makes of an integer
    for value in (3, 3.0, np.int32(3), np.float32(3)):
        assert type(getattr(cls(**{option: value}), option)) is int
        assert cls(**{option: value}) == cls(**{option: 3})


@pytest.mark.parametrize(("name", "option"), [(n, o) for n, o, _ in COUNTS[:-3]])
def test_a_count_may_be_left_open(name: str, option: str) -> None:
    assert getattr(solvers.get(name, **{option: None}), option) is None


def test_a_count_that_has_no_open_value_refuses_none() -> None:
    with pytest.raises(SolverOptionError, match="max_assignments must be a whole number, got None"):
        solvers.get("exhaustive", max_assignments=None)


@pytest.mark.parametrize("value", [10**18, 10**30, 10**400])
@pytest.mark.parametrize("name", ["annealing", "tabu", "local-search"])
def test_counts_of_any_size_run(name: str, value: int) -> None:
    stop = TimeLimit(0.05) | NoImprovement(value) | IterationLimit(value)
    for problem in (layer_problem(12, 5, seed=0), QUBO(np.eye(6) - 0.3)):
        for n, option, _ in COUNTS:
            if n == name:
                s = solvers.get(name, **{option: value}).solve(problem, stop=stop)
                assert s.status is Status.FEASIBLE


def test_an_effort_of_any_size_runs() -> None:
    for effort in (1e30, 1e307):
        s = solvers.get("auto", effort=effort).solve(layer_problem(60, 30), stop=TimeLimit(0.05))
        assert s.status is Status.FEASIBLE


def test_more_assignments_than_can_be_counted_are_refused() -> None:
    solver = solvers.get("exhaustive", max_assignments=1 << 80)
    with pytest.raises(UnsupportedProblemError, match="would visit about"):
        solver.solve(QUBO(np.eye(64)))
    with pytest.raises(UnsupportedProblemError, match="would visit about"):
        solver.solve(CardinalityQP(np.eye(80), k=40))
    # and fewer are begun
    s = solver.solve(QUBO(np.eye(62)), stop=TimeLimit(0.05))
    assert s.stats.stop_reason == "time"


@pytest.mark.parametrize("make", [IterationLimit, NoImprovement])
def test_a_criterion_counts_whole_moves(make: Any) -> None:
    for value in NO_COUNTS:
        with pytest.raises(ValueError, match="must be a whole number, got"):
            make(value)
    assert make(5.0) == make(np.int64(5)) == make(5)
    assert type(make(5.0).iterations) is int
    assert make(10**30).iterations >= 1 << 62
