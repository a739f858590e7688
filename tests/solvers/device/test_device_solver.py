"""The solver `torch` from outside: optima, starts, stop criteria, errors, what it loads."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from optiprune.problems import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.generators import layer_nm_problem, layer_problem, planted_cardinality
from optiprune.solvers import (
    BackendMissingError,
    IterationLimit,
    NoImprovement,
    SolverError,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
    check_solution,
    get,
)
from optiprune.solvers.device import backend, layout
from optiprune.solvers.device import solver as device_solver

torch = pytest.importorskip("torch")
SOLVER = get("torch", device="cpu")


def optimum(problem: Any) -> float:
    return get("exhaustive").solve(problem).energy


def test_sixty_small_problems_are_solved_to_the_optimum() -> None:
    rng = np.random.default_rng(0)
    problems: list[Any] = [layer_problem(14, 3 + i % 9, seed=i) for i in range(20)]
    problems += [layer_nm_problem(12, 2, 4, seed=i) for i in range(20)]
    problems += [QUBO(rng.normal(size=(12, 12)), rng.normal(size=12)) for _ in range(20)]
    solutions = SOLVER.solve_many(problems, seed=1)
    for p, s in zip(problems, solutions, strict=True):
        assert s.status is Status.FEASIBLE
        assert s.bound is None
        assert check_solution(p, s) == pytest.approx(optimum(p), rel=1e-9, abs=1e-12)
        assert s.stats.stop_reason == "completed"
        assert s.stats.extra["device"] == "cpu"
        assert 0 < s.stats.accepted < s.stats.moves


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_units_do_not_matter(scale: float, precision: str) -> None:
    p = layer_problem(14, 6, seed=3)
    q = CardinalityQP(p.dense() * scale, p.linear * scale, p.offset * scale, k=6)
    s = get("torch", device="cpu", precision=precision).solve(q)
    assert s.energy == pytest.approx(optimum(p) * scale, rel=1e-9)


def test_single_precision_only_where_it_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    couplings = rng.integers(-100, 100, size=(20, 20))
    assert not layout.needs_double(QUBO(couplings))
    assert not layout.needs_double(layer_problem(30, 15))
    # a penalty: the same large number in every coupling
    assert layout.needs_double(QUBO(couplings / 7.0 + 1e8))
    s = get("torch", device="cpu").solve(QUBO(couplings / 7.0 + 1e8, np.full(20, -3e8)))
    assert s.energy == pytest.approx(optimum(QUBO(couplings / 7.0 + 1e8, np.full(20, -3e8))))


def test_a_planted_optimum_of_a_larger_problem_is_found() -> None:
    planted = planted_cardinality(80, 30, seed=2)
    s = SOLVER.solve(planted.problem, seed=0)
    assert s.energy == pytest.approx(planted.energy, abs=1e-6 * (1 + abs(planted.energy)))


def test_a_start_is_taken_completed_and_never_made_worse() -> None:
    p = layer_problem(40, 20, samples=40, seed=1)
    best = get("annealing").solve(p)
    short = get("torch", device="cpu", sweeps=1, replicas=1)
    assert short.solve(p, x0=best.x, stop=IterationLimit(0)).energy <= best.energy
    assert short.solve(p, x0=best.x, stop=TimeLimit(0)).energy <= best.energy
    for x0 in (np.ones(40), np.zeros(40), np.arange(40) < 7):
        s = short.solve(p, x0=x0)
        assert p.violation(s.x) == 0
    # x0 of the wrong counts is a way to begin: what the groups can hold of it is kept
    q = layer_nm_problem(16, 2, 4, seed=0)
    good = get("exhaustive").solve(q)
    more = good.x.copy()
    more[np.flatnonzero(more == 0)[-1]] = 1
    s = get("torch", device="cpu", sweeps=1, replicas=1).solve(q, x0=more)
    assert q.violation(s.x) == 0


@pytest.mark.parametrize("limit", [0, 1, 7, 100, 1001])
def test_an_iteration_limit_is_never_passed(limit: int) -> None:
    problems = [layer_problem(30, 12, seed=1), QUBO(np.eye(9) - 0.3)]
    for s in SOLVER.solve_many(problems, stop=IterationLimit(limit)):
        assert s.stats.moves <= limit
        assert s.stats.stop_reason == "iterations"
        assert s.status is Status.FEASIBLE


def test_targets_and_patience_are_looked_at_for_each_problem() -> None:
    problems = [layer_problem(20, 8, seed=i) for i in range(6)]
    target = optimum(problems[2])
    solutions = SOLVER.solve_many(problems, stop=Target(target + 1e-12))
    for s in solutions:
        met = s.energy <= target + 1e-12
        assert s.stats.stop_reason == ("target" if met else "completed")
        assert met == (s.stats.moves < 0.9 * max(t.stats.moves for t in solutions))
    for s in SOLVER.solve_many(problems, stop=NoImprovement(500)):
        assert s.stats.stop_reason == "no improvement"
        assert s.stats.moves < 5000


def test_a_time_limit_holds_for_each_batch() -> None:
    problems = [layer_problem(60, 30, samples=60, seed=i) for i in range(6)]
    slow = get("torch", device="cpu", sweeps=10**6, batch=3)
    t = time.perf_counter()
    solutions = slow.solve_many(problems, stop=TimeLimit(0.3))
    assert time.perf_counter() - t < 2
    for p, s in zip(problems, solutions, strict=True):
        assert s.stats.stop_reason == "time"
        check_solution(p, s)


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_the_batches_with_what_they_have(workers: int) -> None:
    problems = [layer_problem(60, 30, samples=60, seed=i) for i in range(6)]
    starts = [np.arange(60) < 30] * 5 + [None]
    slow = get("torch", device="cpu", sweeps=10**6, batch=2)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    t = time.perf_counter()
    solutions = slow.solve_many(problems, x0s=starts, workers=workers)
    timer.join()
    assert time.perf_counter() - t < 5
    assert [s.stats.stop_reason for s in solutions] == ["interrupted"] * 6
    for p, s, x in zip(problems[:5], solutions[:5], starts, strict=False):
        assert check_solution(p, s) <= p.energy(x)
    assert sum(s.energy < 0.9 * p.energy(x) for p, s, x in
               zip(problems[:5], solutions, starts[:5], strict=False)) >= 1  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_ends_one_solve_with_its_incumbent() -> None:
    p = layer_problem(60, 30, samples=60, seed=0)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    s = get("torch", device="cpu", sweeps=10**6).solve(p)
    timer.join()
    assert s.stats.stop_reason == "interrupted"
    check_solution(p, s)


@pytest.mark.parametrize("value", [10**18, 10**30, 10**400])
def test_counts_of_any_size_run_or_are_refused(value: int) -> None:
    stop = TimeLimit(0.05) | NoImprovement(value) | IterationLimit(value)
    for problem in (layer_problem(12, 5, seed=0), QUBO(np.eye(6) - 0.3)):
        solver = get("torch", device="cpu", sweeps=value, batch=value)
        assert solver.solve(problem, stop=stop).status is Status.FEASIBLE
        with pytest.raises(SolverError, match="fewer replicas"):
            get("torch", device="cpu", replicas=value).solve(problem)


def test_problems_without_a_move_are_answered_at_once() -> None:
    problems = [
        CardinalityQP(np.eye(4), k=0),
        CardinalityQP(np.eye(4), k=4),
        CardinalityQP(np.eye(4), k=[2, 0], groups=[0, 0, 1, 1]),
        QUBO(np.zeros((0, 0))),
    ]
    solutions = SOLVER.solve_many(problems)
    assert [s.energy for s in solutions] == [0.0, 4.0, 2.0, 0.0]
    assert [s.stats.moves for s in solutions] == [0] * 4
    assert SOLVER.solve_many([]) == []


def test_a_zero_problem_has_no_temperature() -> None:
    s = SOLVER.solve(CardinalityQP(np.zeros((6, 6)), offset=0.25, k=2))
    assert s.energy == 0.25
    assert s.x.sum() == 2


# errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "'cuda:N', got 'gpu'"),
        ({"device": 0}, "got 0"),
        ({"sweeps": 0}, "sweeps must be >= 1"),
        ({"replicas": 1.5}, "replicas must be a whole number"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"precision": "half"}, "'half'"),
        ({"start_acceptance": 0.1, "end_acceptance": 0.5}, "0.1 and 0.5"),
        ({"t_start": 1.0, "t_end": 2.0}, "above"),
        ({"t_end": 0.0}, "positive"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SolverOptionError, match=words):
        get("torch", **options)


def test_other_problems_are_refused() -> None:
    with pytest.raises(UnsupportedProblemError, match="does not take BudgetQP"):
        SOLVER.solve_many([layer_problem(8, 4), BudgetQP(np.eye(2), A=[1, 1], upper=1)])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="1 problems but 2 starts"):
        SOLVER.solve_many([layer_problem(8, 4)], x0s=[None, None])
    with pytest.raises(ValueError, match="workers must be >= 1"):
        SOLVER.solve_many([layer_problem(8, 4)], workers=0)


def test_no_cuda_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendMissingError, match=r"'cuda' was asked for.*device='cpu'.*pytorch"):
        get("torch", device="cuda").solve(layer_problem(8, 4))
    assert get("torch", device="auto").solve(layer_problem(8, 4)).stats.extra["device"] == "cpu"


def test_a_device_number_that_is_not_there_lists_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SolverOptionError, match=r"'cuda:5' does not exist.*'cuda:0', 'cuda:1'"):
        backend.resolve_device("cuda:5")
    assert str(backend.resolve_device("auto")) == "cuda:0"
    assert str(backend.resolve_device("cuda:1")) == "cuda:1"


def test_no_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match=r"pip install torch.*'annealing'"):
        SOLVER.solve(layer_problem(8, 4))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    with pytest.raises(BackendMissingError, match="torch"):
        SOLVER.solve(layer_problem(8, 4))


# memory -----------------------------------------------------------------------------------------


def test_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [layer_problem(24, 12, seed=i) for i in range(10)]
    solver = get("torch", device="cpu", sweeps=2, replicas=2)
    whole = solver.solve_many(problems)
    assert {s.stats.extra["batch"] for s in whole} == {10}
    shape = solver._item(0, problems[0], None, np.random.SeedSequence(0), None).shape
    each = layout.bytes_per_problem(shape, 12, 1)
    monkeypatch.setattr(device_solver, "available_bytes", lambda device: int(4.5 * each))
    parts = solver.solve_many(problems)
    assert {s.stats.extra["batch"] for s in parts} == {4, 2}
    assert [s.x.tolist() for s in parts] == [s.x.tolist() for s in whole]
    monkeypatch.setattr(device_solver, "available_bytes", lambda device: each // 2)
    with pytest.raises(SolverError, match=r"24 variables needs about .* MiB on cpu.*'annealing'"):
        solver.solve_many(problems)


def test_the_estimate_of_memory_covers_what_is_taken() -> None:
    import tracemalloc

    # numpy's part is seen here; tensors are counted by their sizes
    problems = [layer_problem(64, 32, seed=i) for i in range(8)]
    solver = get("torch", device="cpu", replicas=4)
    items = [
        solver._item(i, p, None, np.random.SeedSequence(i), None) for i, p in enumerate(problems)
    ]
    tracemalloc.start()
    batch = layout.stack(items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    estimate = 8 * layout.bytes_per_problem(items[0].shape, 32, 1)
    assert batch.J.nbytes < peak < estimate
