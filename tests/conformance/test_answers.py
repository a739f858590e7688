"""What every registered solver promises of its answers, tried on every one of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conformance_cases import MAKERS, VARIANTS, every_solver, is_honest, known, make, supported

from benchmarks.solver_agreement import enumerated_optimum, judge, pruning_problems
from optiprune import solvers
from optiprune.problems import BudgetQP, CardinalityQP, InfeasibleProblemError, ProblemError
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    Solution,
    SolverOptionError,
    Status,
    TimeLimit,
    UnsupportedProblemError,
)


@every_solver
@pytest.mark.parametrize("problem", sorted(MAKERS))
def test_answers_are_what_they_claim(label: str, problem: str) -> None:
    c = known(problem)
    solver = make(label)
    # a penalty needs costs with a common unit, which shows only when it is made
    no_penalty = solver.name == "dimod" and "CQM" not in label and problem.startswith("real")
    if no_penalty or not supported(label, c.problem):
        # a way out is named: another solver, or a transform
        with pytest.raises(UnsupportedProblemError, match=r"(?i)\b(use|turn)\b"):
            solver.solve(c.problem)
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
