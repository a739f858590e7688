"""The Pyomo adapter with HiGHS and SCIP behind it."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.problems.generators import layer_miqp, layer_problem
from optiprune.solvers import (
    BackendMissingError,
    IterationLimit,
    NoImprovement,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
)

NAMES = ["highs", "appsi_highs", "scip", "scip_persistent"]


def optimum(problem) -> float:
    best = np.inf
    for m in range(problem.n + 1):
        for support in combinations(range(problem.n), m):
            x = np.zeros(problem.n, dtype=np.int8)
            x[list(support)] = 1
            if problem.violation(x) <= 1e-9:
                best = min(best, problem.energy(x))
    return best


def problems(scale: float):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(7, 7)) * scale
    linear = rng.normal(size=7) * scale
    return [
        QUBO(q, linear, 3.0 * scale),
        CardinalityQP(q, linear, k=3),
        CardinalityQP(q, linear, k=[1, 2], groups=[0, 0, 0, 1, 1, 1, 1]),
        BudgetQP(q, linear, A=rng.integers(1, 5, size=(2, 7)), upper=[9, 8], lower=[2, 3]),
    ]


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e8])
@pytest.mark.parametrize("name", NAMES)
def test_optima_are_the_enumerated_ones(name, scale) -> None:
    for problem in problems(scale):
        s = solvers.get("pyomo", solver=name).solve(problem)
        assert s.status is Status.OPTIMAL, (type(problem), s.stats.message)
        assert s.energy == pytest.approx(optimum(problem), abs=1e-6 * scale)
        assert s.bound <= s.energy


@pytest.mark.parametrize("form", [{"linearise": False}, {"method": "fortet"}, {"method": "glover"}])
def test_scip_takes_products_as_they_are_or_linearised(form) -> None:
    for problem in problems(1.0):
        s = solvers.get("pyomo", solver="scip", **form).solve(problem)
        assert s.status is Status.OPTIMAL
        assert s.energy == pytest.approx(optimum(problem), abs=1e-6)


@pytest.mark.parametrize("seed", [0, 5])
def test_scip_solves_miqps(seed) -> None:
    problem = layer_miqp(7, 3, bound=4.0, seed=seed)
    s = solvers.get("pyomo", solver="scip").solve(problem, seed=seed, stop=TimeLimit(20))
    assert s.status is Status.OPTIMAL
    assert s.energy == pytest.approx(optimum(problem), rel=1e-5, abs=1e-5)
    assert problem.energy_of(s.weights) == pytest.approx(s.energy)


def test_a_long_log_of_scip_does_not_hang() -> None:
    # pyscipopt holds the interpreter lock while SCIP fills the pipe that Pyomo wants to empty
    rng = np.random.default_rng(4)
    H = rng.normal(size=(9, 9))
    problem = MIQP(H @ H.T + 0.1 * np.eye(9), rng.normal(size=9) * 3, k=4, M=3.0)
    s = solvers.get("pyomo", solver="scip").solve(problem, stop=TimeLimit(3))
    assert s.stats.wall_s < 6
    assert s.status.has_solution
    with pytest.raises(SolverOptionError, match="must stay silent"):
        solvers.get("pyomo", solver="scip", options={"display/verblevel": 4})


def test_an_infinite_M_is_refused_with_a_valid_one() -> None:
    problem = MIQP(np.diag([2.0, 4.0]), [2.0, 8.0], k=1)
    # |w| <= |largest b| / least eigenvalue = 8 / 2, and 1 % more
    with pytest.raises(UnsupportedProblemError, match=r"M = 4.04 is valid") as e:
        solvers.get("pyomo", solver="scip").solve(problem)
    assert "infinite" in str(e.value)
    finite = MIQP(problem.H, problem.b, k=1, M=4.04)
    s = solvers.get("pyomo", solver="scip").solve(finite)
    # keeping the second: -b^2 / (2 h) = -64 / 8
    assert s.energy == pytest.approx(-8.0)
    assert s.x.tolist() == [0, 1]
    with pytest.raises(UnsupportedProblemError, match=r"singular.*ridge"):
        solvers.get("pyomo", solver="scip").solve(MIQP(np.ones((2, 2)), [1.0, 1.0], k=1))


def test_highs_is_never_handed_an_miqp() -> None:
    problem = MIQP(np.eye(2), [1, 1], k=1, M=2)
    for name in ("highs", "appsi_highs"):
        with pytest.raises(UnsupportedProblemError, match="solver='scip'"):
            solvers.get("pyomo", solver=name).solve(problem)
        with pytest.raises(UnsupportedProblemError, match="linearise='auto'"):
            solvers.get("pyomo", solver=name, linearise=False).solve(QUBO(np.eye(2)))
    with pytest.raises(UnsupportedProblemError, match="cannot be linearised"):
        solvers.get("pyomo", solver="scip", linearise=True).solve(problem)


@pytest.mark.parametrize("name", NAMES)
def test_infeasible_is_proven_not_guessed(name) -> None:
    parity = BudgetQP(np.eye(3), A=[[2, 2, 2]], upper=[3], lower=[3])
    s = solvers.get("pyomo", solver=name).solve(parity)
    assert s.status is Status.INFEASIBLE
    assert s.x is None


@pytest.mark.parametrize("name", NAMES)
def test_stop_criteria(name) -> None:
    problem = layer_problem(50, 25, seed=3)
    solver = solvers.get("pyomo", solver=name)
    s = solver.solve(problem, stop=TimeLimit(0.6))
    assert s.stats.stop_reason == "time"
    assert s.status in (Status.FEASIBLE, Status.NO_INCUMBENT)
    loose = problem.energy(np.arange(50) % 2)
    s = solver.solve(problem, stop=Target(loose) | TimeLimit(20))
    assert s.energy <= loose
    assert s.stats.stop_reason == "target"
    s = solver.solve(problem, stop=IterationLimit(1) | TimeLimit(20))
    assert s.stats.stop_reason == "iterations"
    if "highs" in name:
        s = solver.solve(problem, stop=NoImprovement(5) | TimeLimit(2))
        assert "no option for: no improvement" in s.stats.message
    s = solver.solve(problem, stop=TimeLimit(0))
    assert s.status is Status.NO_INCUMBENT


def test_a_warm_start_reaches_scip_and_its_absence_is_stated() -> None:
    problem = layer_problem(40, 20, seed=1)
    good = solvers.get("tabu").solve(problem, seed=0)
    for form in ({}, {"linearise": False}):
        s = solvers.get("pyomo", solver="scip", **form).solve(
            problem, x0=good.x, stop=IterationLimit(1) | TimeLimit(5)
        )
        # the back end's own answer, not the start that BaseSolver would put in its place
        assert s.stats.trajectory[0][1] <= good.energy + 1e-9
    s = solvers.get("pyomo").solve(problem, x0=good.x, stop=IterationLimit(1))
    assert s.energy <= good.energy
    assert "no option for: warm start" in s.stats.message


def test_the_same_seed_gives_the_same_answer_after_a_node_limit() -> None:
    problem = layer_problem(30, 15, seed=2)
    for name in ("highs", "scip"):
        solver = solvers.get("pyomo", solver=name)
        a, b = (solver.solve(problem, seed=4, stop=IterationLimit(5)) for _ in range(2))
        assert a.x.tolist() == b.x.tolist()


def test_workers_share_pyomo() -> None:
    batch = [layer_problem(8, 4, seed=i) for i in range(6)]
    solver = solvers.get("pyomo")
    one, two = (solver.solve_many(batch, workers=w) for w in (1, 2))
    assert [s.x.tolist() for s in one] == [s.x.tolist() for s in two]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"solver": "higs"}, SolverOptionError, "did you mean 'highs'"),
        ({"solver": ""}, SolverOptionError, "solver must be a name"),
        ({"solver": "glpk"}, BackendMissingError, "glpk"),
        ({"linearise": "yes"}, SolverOptionError, "'auto', True or False, got 'yes'"),
        ({"method": "x"}, SolverOptionError, "'fortet' or 'glover', got 'x'"),
        ({"options": {"thread": 1}}, SolverOptionError, "did you mean 'threads'"),
        ({"solver": "scip", "options": {"limits/nods": 1}}, SolverOptionError, "limits/nodes"),
    ],
)
def test_bad_options(options, error, words) -> None:
    if options.get("solver") == "glpk":
        import pyomo.environ as pyo

        if pyo.SolverFactory("glpk").available(exception_flag=False):
            pytest.skip("glpk is installed here")
    with pytest.raises(error, match=words):
        solvers.get("pyomo", **options)


def test_options_reach_the_back_end() -> None:
    problem = layer_problem(30, 15, seed=2)
    s = solvers.get("pyomo", solver="scip", options={"limits/totalnodes": 1}).solve(problem)
    assert s.stats.stop_reason == "iterations"
    s = solvers.get("pyomo", options={"mip_rel_gap": 0.9}).solve(problem)
    # a back end that stops at a gap says optimal; its own bound says otherwise
    assert s.status is Status.FEASIBLE


def test_missing_packages_say_how_to_get_them(monkeypatch) -> None:
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "pyomo.environ", None)
        with pytest.raises(BackendMissingError, match="pip install pyomo"):
            solvers.get("pyomo")


def test_silence(capfd) -> None:
    for name in ("highs", "scip"):
        solvers.get("pyomo", solver=name).solve(layer_problem(10, 5, seed=0))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
