"""What every registered solver promises, tried on every one of them.

The cross product of solvers (each back end of `pyomo` and `dimod` counts as one) and problems. A
solver that is registered without being named in `benchmarks.solver_agreement.VARIANTS` is tried
with its defaults, so that nobody can add one that is not held to this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    InfeasibleProblemError,
    Problem,
    ProblemError,
)
from optiprune.problems.generators import layer_miqp, layer_nm_problem, layer_problem
from optiprune.solvers import (
    Solution,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
    check_solution,
)

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # `pytest` without `python -m` does not put it there

from benchmarks.solver_agreement import (  # noqa: E402
    enumerated_optimum,
    judge,
    pruning_problems,
    variants,
)

VARIANTS = variants()
# dwave's tabu search fills its time in every read, whatever the problem
VARIANTS["dimod + tabu"][1]["reads"] = 5

every_solver = pytest.mark.parametrize("label", sorted(VARIANTS))
# solvers that look for better assignments until something stops them
SEARCHING = [
    label
    for label, (name, _) in sorted(VARIANTS.items())
    if name in ("annealing", "auto", "highs", "local-search", "pyomo", "tabu")
]
KEEPS_TIME = [
    label
    for label, (name, _) in sorted(VARIANTS.items())
    if solvers.solver_class(name).capabilities.keeps_time_limit
]


@cache
def make(label: str) -> solvers.Solver:
    name, options = VARIANTS[label]
    return solvers.get(name, **options)


# --- problems ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A problem with its optimum by enumeration and the tolerance that goes with its scale."""

    problem: Any
    optimum: float
    tolerance: float
    feasible: tuple[np.ndarray, ...]  # some feasible assignments, the worst one first


def all_assignments(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)


def case(problem: Any) -> Case:
    X = [x for x in all_assignments(problem.n) if problem.is_feasible(x)]
    energies = np.array([problem.energy(x) for x in X])
    order = np.argsort(-energies)
    some = order[[0, len(order) // 2, -1]]
    matrix = problem.H if isinstance(problem, MIQP) else problem.Q
    dense = problem.dense() if isinstance(matrix, FactoredMatrix) else matrix
    scale = max(float(np.abs(dense).max(initial=0.0)), float(np.abs(energies).max()), 1e-300)
    # back ends judge by 1e-6 of the coefficients; those of an MIQP also round the weights
    relative = 1e-4 if isinstance(problem, MIQP) else 2e-6
    return Case(problem, float(energies.min()), relative * scale, tuple(X[i] for i in some))


def _random(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n)), rng.normal(size=n), rng


def _budget() -> BudgetQP:
    q, linear, rng = _random(8, 11)
    A = rng.integers(1, 9, size=(2, 8))
    return BudgetQP(q, linear, A=A, upper=A.sum(axis=1) // 2, lower=[8, -np.inf])


MAKERS: dict[str, Callable[[], Problem]] = {
    "qubo": lambda: QUBO(*_random(10, 1)[:2], offset=3.0),
    "cardinality": lambda: layer_problem(10, 5, seed=1),
    "factored": lambda: layer_problem(10, 4, factored=True, seed=2),
    "grouped": lambda: CardinalityQP(
        *_random(9, 3)[:2], k=[1, 0, 2], groups=[0, 1, 2, 2, 0, 1, 2, 0, 2]
    ),
    "2:4": lambda: layer_nm_problem(8, 2, 4, seed=4),
    "budget": _budget,
    "miqp": lambda: layer_miqp(7, 3, bound=3.0, seed=5),
    "keep none": lambda: CardinalityQP(*_random(6, 6)[:2], offset=-1.0, k=0),
    "keep all": lambda: CardinalityQP(*_random(6, 7)[:2], k=6),
    "one variable": lambda: QUBO([[-2.0]], [0.5]),
    "zero matrix": lambda: CardinalityQP(np.zeros((6, 6)), offset=0.25, k=2),
    "all equal": lambda: CardinalityQP(np.ones((7, 7)), np.full(7, -3.0), k=3),
    "huge": lambda: CardinalityQP(*(1e12 * a for a in _random(8, 8)[:2]), k=4),
    "tiny": lambda: CardinalityQP(*(1e-12 * a for a in _random(8, 9)[:2]), k=4),
    "float32": lambda: CardinalityQP(_random(8, 10)[0].astype(np.float32), k=3),
}


@cache
def known(name: str) -> Case:
    return case(MAKERS[name]())


def supported(label: str, problem: Any) -> bool:
    try:
        make(label).require_support(problem)
    except UnsupportedProblemError:
        return False
    return True


def is_honest(s: Solution, c: Case) -> None:
    """Everything that a solution says is true of the problem."""
    assert isinstance(s, Solution)
    assert s.stats.solver
    assert s.stats.wall_s >= 0
    if not s.status.has_solution:
        assert s.x is None
        assert s.energy == np.inf
        assert s.status is not Status.INFEASIBLE
        return
    assert s.x is not None
    assert s.x.dtype == np.int8
    assert s.x.shape == (c.problem.n,)
    assert check_solution(c.problem, s) == pytest.approx(s.energy)
    assert s.energy >= c.optimum - c.tolerance
    if s.bound is not None:
        assert s.bound <= s.energy
        assert s.bound <= c.optimum + c.tolerance
    if s.status is Status.OPTIMAL:
        assert s.energy <= c.optimum + c.tolerance
    times = [t for t, _ in s.stats.trajectory]
    energies = [e for _, e in s.stats.trajectory]
    assert times == sorted(times)
    assert energies == sorted(energies, reverse=True)


# --- answers -------------------------------------------------------------------------------------


@every_solver
@pytest.mark.parametrize("problem", sorted(MAKERS))
def test_answers_are_what_they_claim(label: str, problem: str) -> None:
    c = known(problem)
    solver = make(label)
    if not supported(label, c.problem):
        with pytest.raises(UnsupportedProblemError) as e:
            solver.solve(c.problem)
        # a way out is named: another solver, or a transform
        assert "use" in str(e.value) or "turn" in str(e.value)
        return
    s = solver.solve(c.problem, seed=1)
    is_honest(s, c)
    assert s.status.has_solution, s.stats.message
    if solver.capabilities.exact:
        assert s.status is Status.OPTIMAL, s.stats.message


@every_solver
@pytest.mark.parametrize("problem", ["qubo", "cardinality", "grouped", "budget", "miqp"])
def test_never_worse_than_a_feasible_start(label: str, problem: str) -> None:
    c = known(problem)
    if not supported(label, c.problem):
        return
    for x0 in c.feasible:
        s = make(label).solve(c.problem, x0=x0, seed=2)
        is_honest(s, c)
        assert s.energy <= c.problem.energy(x0) + 1e-12 * abs(c.optimum)


@every_solver
@pytest.mark.parametrize("problem", ["cardinality", "grouped", "budget", "miqp"])
def test_an_infeasible_start_is_no_obstacle(label: str, problem: str) -> None:
    c = known(problem)
    if not supported(label, c.problem):
        return
    for x0 in (np.ones(c.problem.n), np.zeros(c.problem.n, dtype=bool)):
        assert not c.problem.is_feasible(x0)
        s = make(label).solve(c.problem, x0=x0, seed=3)
        is_honest(s, c)
        assert s.status.has_solution


@every_solver
def test_a_malformed_start_raises(label: str) -> None:
    c = known("cardinality")
    for x0 in (np.ones(3), np.full(c.problem.n, 0.5), np.full(c.problem.n, 2)):
        with pytest.raises(ProblemError):
            make(label).solve(c.problem, x0=x0)


@every_solver
@pytest.mark.parametrize("problem", ["cardinality", "qubo"])
def test_the_same_seed_gives_the_same_answer(label: str, problem: str) -> None:
    c = known(problem)
    a, b = (make(label).solve(c.problem, seed=7) for _ in range(2))
    assert a.x.tolist() == b.x.tolist()
    assert (a.energy, a.status) == (b.energy, b.status)


@every_solver
def test_the_answers_do_not_depend_on_the_workers(label: str) -> None:
    batch = [layer_problem(8, 4, seed=i) for i in range(4)]
    one, two = (make(label).solve_many(batch, seed=7, workers=w) for w in (1, 2))
    assert [s.x.tolist() for s in one] == [s.x.tolist() for s in two]


@every_solver
def test_the_arguments_are_left_alone(label: str) -> None:
    problem = layer_problem(8, 4, seed=3)
    before = problem.dense().copy(), problem.linear.copy()
    x0 = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
    make(label).solve(problem, x0=x0)
    assert x0.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (problem.dense() == before[0]).all()
    assert (problem.linear == before[1]).all()


@every_solver
def test_infeasible_budgets_give_no_false_claim(label: str) -> None:
    # every row can be met by itself
    contradiction = BudgetQP(np.eye(4), A=np.ones((2, 4)), upper=[1, 4], lower=[0, 3])
    parity = BudgetQP(-np.eye(3), A=[[2, 2, 2]], upper=[3], lower=[3])
    for problem in (contradiction, parity):
        if not supported(label, problem):
            continue
        try:
            s = make(label).solve(problem, stop=TimeLimit(2))
        except InfeasibleProblemError:
            continue
        assert s.status in (Status.INFEASIBLE, Status.NO_INCUMBENT)
        assert s.x is None
        if make(label).capabilities.exact:
            assert s.status is Status.INFEASIBLE


@every_solver
def test_an_unknown_option_lists_the_valid_ones(label: str) -> None:
    name, options = VARIANTS[label]
    with pytest.raises(SolverOptionError, match="no_such_option") as e:
        solvers.get(name, **options, no_such_option=1)
    for option in solvers.options_of(solvers.solver_class(name)):
        assert option in str(e.value)


def test_the_problems_are_pruning_problems() -> None:
    problems = pruning_problems()
    assert len(problems) == 50
    for p in problems:
        off = p.dense()[np.triu_indices(p.n, 1)]
        assert (p.n, p.n_groups) == (16, 1)
        # weights that cancel one another, and weights that add up
        assert (off < 0).mean() > 0.2
        assert (off > 0).mean() > 0.2
        assert np.linalg.eigvalsh(p.dense())[0] > -1e-9


@cache
def fifty() -> list[tuple[CardinalityQP, float]]:
    return [(p, enumerated_optimum(p)) for p in pruning_problems()]


@every_solver
def test_fifty_pruning_problems_are_solved_or_honestly_missed(label: str) -> None:
    solver = make(label)
    result = judge(label, lambda p, i: solver.solve(p, seed=i), fifty())
    assert not result.false_claims
    if solver.capabilities.exact:
        assert result.proven == 50
    name, _ = VARIANTS[label]
    if name in ("annealing", "auto", "local-search", "tabu"):
        assert result.found == 50
    # a miss is honest, but solvers that miss by their nature still have to be of use
    assert result.found >= 15
    assert result.excess < 5


def test_the_judge_sees_false_claims() -> None:
    pairs = fifty()[:2]

    def liar(problem: CardinalityQP, _: int) -> Solution:
        s = solvers.get("exhaustive").solve(problem)
        worst = np.zeros(problem.n, dtype=np.int8)
        worst[np.argsort(problem.fields(s.x))[-int(problem.k[0]) :]] = 1
        return Solution(worst, problem.energy(worst), problem.energy(worst), s.status, s.stats)

    result = judge("liar", liar, pairs)
    assert len(result.false_claims) == 4  # the bound and the status, twice
    assert (result.found, result.missed) == (0, 2)


# --- stopping ------------------------------------------------------------------------------------


@cache
def large(n: int) -> CardinalityQP:
    return layer_problem(n, n // 2, samples=n, seed=0)


def size_for(label: str) -> int:
    """So large that a solver is busy for longer than the limits below, its model built quickly."""
    name, options = VARIANTS[label]
    if name in ("pyomo", "highs"):
        return 50
    if name == "exhaustive":
        return 30
    if "Exact" in str(options.get("sampler")):
        return 14
    return 600


@every_solver
def test_a_time_limit_is_kept_or_its_overrun_stated(label: str) -> None:
    problem, limit = large(size_for(label)), 0.4
    solver = make(label)
    solver.solve(problem, stop=TimeLimit(0.05))  # compile first
    allowed = 1.1 * limit + 0.05
    for attempt in range(3):  # the machine may be busy with something else
        t = time.perf_counter()
        s = solver.solve(problem, stop=TimeLimit(limit))
        elapsed = time.perf_counter() - t
        over = s.stats.wall_s > allowed
        assert (s.stats.overrun_s > 0) == over
        if over:
            assert s.stats.overrun_s == pytest.approx(s.stats.wall_s - limit, abs=0.01)
        if elapsed <= allowed or not solver.capabilities.keeps_time_limit:
            break
        assert attempt < 2, f"{elapsed:.3f} s for a limit of {limit} s"
    if s.status.has_solution:
        check_solution(problem, s)


@pytest.mark.parametrize("label", KEEPS_TIME)
def test_no_time_at_all_is_still_answered(label: str) -> None:
    problem = large(size_for(label))
    s = make(label).solve(problem, stop=TimeLimit(0))
    assert s.stats.wall_s < 1
    if s.status.has_solution:
        check_solution(problem, s)


@pytest.mark.parametrize("label", SEARCHING)
def test_a_target_stops_the_search(label: str) -> None:
    problem = large(size_for(label))
    start = np.arange(problem.n, dtype=np.int8) % 2
    target = problem.energy(start)  # any search passes it at once
    t = time.perf_counter()
    s = make(label).solve(problem, stop=Target(target) | TimeLimit(20), seed=1)
    assert s.energy <= target
    assert s.stats.stop_reason == "target", s.stats.message
    assert time.perf_counter() - t < 10


@every_solver
def test_a_target_is_followed_or_its_neglect_stated(label: str) -> None:
    c = known("cardinality")
    s = make(label).solve(c.problem, stop=Target(c.problem.energy(c.feasible[0])))
    is_honest(s, c)
    if s.stats.stop_reason != "target":
        # a solver that was through before it could look has done all of its work
        stated = "target" in s.stats.message
        assert stated or s.stats.stop_reason == "completed"
        if label.startswith("dimod") and s.stats.extra.get("sampler") != "TabuSampler":
            assert stated


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals go to the main thread",
)
@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("annealing", {"sweeps": 10**7}),
        ("tabu", {"iterations": 10**9}),
        ("local-search", {"starts": 0}),
        ("exhaustive", {}),
        ("highs", {}),
        ("pyomo + highs", {}),
        ("pyomo + scip", {}),
        ("dimod + simulated annealing", {"reads": 3000}),
    ],
)
def test_ctrl_c_returns_the_incumbent(label: str, options: dict[str, Any]) -> None:
    name, given = VARIANTS[label]
    solver = solvers.get(name, **{**given, **options})
    problem = large(size_for(label))
    solver.solve(large(12) if name != "pyomo" else problem, stop=TimeLimit(0.05))  # compile first
    # Pyomo needs a second to build its model, and has no incumbent before
    delay = 2.0 if name == "pyomo" else 0.7
    # a real signal from another process: one raised in a thread here would wait for the
    # interpreter lock, which SCIP holds
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {delay}; kill -INT {os.getpid()}"])
    t = time.perf_counter()
    s = None
    try:
        s = solver.solve(problem, stop=TimeLimit(15), seed=0)
        elapsed = time.perf_counter() - t
        killer.wait()
        time.sleep(0.05)
    except KeyboardInterrupt:
        killer.wait()
        pytest.fail("Ctrl-C was raised instead of ending the solve" if s is None else "too late")
    assert s.stats.stop_reason == "interrupted", s.stats
    assert elapsed < 5
    assert s.status is Status.FEASIBLE
    check_solution(problem, s)
