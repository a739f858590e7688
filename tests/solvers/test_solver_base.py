"""What BaseSolver promises for every solver, tried with back ends that lie."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    Problem,
    ProblemError,
)
from optiprune.solvers import (
    BaseSolver,
    Capabilities,
    Outcome,
    Status,
    TimeLimit,
    UnsupportedProblemError,
)
from optiprune.solvers.base import as_seed

Answer = Callable[[Problem, Any, np.random.SeedSequence, Any], Outcome]
ALL = frozenset({QUBO, CardinalityQP, BudgetQP, MIQP})


@dataclass(frozen=True)
class Scripted(BaseSolver):
    """Answers what the test tells it to."""

    answer: Answer

    name: ClassVar[str] = "scripted"
    capabilities: ClassVar[Capabilities] = Capabilities(ALL, max_n=6)

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        return self.answer(problem, x0, seed, watch)


def says(x: Any, status: Status = Status.FEASIBLE, bound: float | None = None) -> Scripted:
    return Scripted(lambda p, x0, seed, watch: Outcome(x, status, watch.stats("completed"), bound))


# energies of diag(1, 2, 3, 4): 3 for the first two, 7 for the last two
PROBLEM = CardinalityQP(np.diag([1.0, 2.0, 3.0, 4.0]), k=2)
BEST, WORST, INFEASIBLE = [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]


def test_the_energy_is_the_problems_own() -> None:
    s = says(np.array([1.0, 1.0, 0.0, 0.0])).solve(PROBLEM)
    assert s.energy == 3.0
    assert s.x.dtype == np.int8
    assert s.status is Status.FEASIBLE
    assert s.stats.solver == "scripted"
    assert s.stats.wall_s >= 0
    assert s.weights is None


def test_an_infeasible_answer_is_dropped() -> None:
    s = says(INFEASIBLE, Status.OPTIMAL).solve(PROBLEM)
    assert s.status is Status.NO_INCUMBENT
    assert s.x is None
    assert s.energy == math.inf
    assert "infeasible and was dropped" in s.stats.message


def test_an_infeasible_answer_gives_way_to_a_feasible_start() -> None:
    s = says(INFEASIBLE, Status.OPTIMAL).solve(PROBLEM, x0=WORST)
    assert s.status is Status.FEASIBLE
    assert s.x.tolist() == WORST
    assert s.energy == 7.0


@pytest.mark.parametrize("x", [[1, 1, 0], [1, 1, 0, 2], [[1, 1, 0, 0]], [0.5, 1, 0, 0.5]])
def test_an_answer_that_is_no_assignment_raises(x: Any) -> None:
    with pytest.raises(ProblemError):
        says(x).solve(PROBLEM)


def test_a_claim_without_a_solution_raises() -> None:
    with pytest.raises(AssertionError, match="without a solution"):
        says(None, Status.OPTIMAL).solve(PROBLEM)


def test_never_worse_than_a_feasible_start() -> None:
    s = says(WORST).solve(PROBLEM, x0=BEST)
    assert s.energy == 3.0
    assert s.x.tolist() == BEST
    assert s.status is Status.FEASIBLE
    # an infeasible start is no yardstick
    assert says(WORST).solve(PROBLEM, x0=[0, 0, 0, 0]).energy == 7.0


def test_the_start_is_copied() -> None:
    x0 = np.array(BEST, dtype=np.int8)
    s = says(WORST).solve(PROBLEM, x0=x0)
    s.x[:] = 0
    assert x0.tolist() == BEST


def test_a_claim_of_optimality_is_refuted_by_a_better_start() -> None:
    s = says(WORST, Status.OPTIMAL, bound=7.0).solve(PROBLEM, x0=BEST)
    assert s.status is Status.FEASIBLE
    assert s.bound is None
    assert "refuted" in s.stats.message
    assert s.energy == 3.0


def test_a_status_is_never_upgraded() -> None:
    assert says(BEST, Status.FEASIBLE, bound=3.0).solve(PROBLEM).status is Status.FEASIBLE
    for status in (Status.NO_INCUMBENT, Status.INFEASIBLE, Status.FAILED):
        s = says(None, status).solve(PROBLEM)
        assert s.status is status
        assert s.x is None


def test_a_feasible_start_is_kept_when_the_back_end_fails() -> None:
    for status in (Status.NO_INCUMBENT, Status.INFEASIBLE, Status.FAILED):
        s = says(None, status).solve(PROBLEM, x0=WORST)
        assert s.status is Status.FEASIBLE
        assert s.energy == 7.0


def test_a_bound_never_exceeds_the_energy() -> None:
    s = says(BEST, bound=3.0 + 1e-9).solve(PROBLEM)
    assert s.bound == 3.0
    assert s.gap == 0.0
    assert says(BEST, bound=1.5).solve(PROBLEM).gap == 0.5


@pytest.mark.parametrize("status", [Status.OPTIMAL, Status.FEASIBLE])
@pytest.mark.parametrize("bound", [100.0, 3.0 + 1e-5, math.inf, math.nan])
def test_a_bound_above_the_energy_is_no_bound_and_no_proof(status: Status, bound: float) -> None:
    s = says(BEST, status, bound=bound).solve(PROBLEM)
    assert s.status is Status.FEASIBLE
    assert s.bound is None
    assert s.gap is None
    assert s.energy == 3.0
    assert "bound" in s.stats.message
    assert "dropped" in s.stats.message


def test_a_bound_that_is_no_number_is_dropped_without_a_solution_too() -> None:
    s = says(None, Status.NO_INCUMBENT, bound=math.nan).solve(PROBLEM)
    assert s.bound is None
    assert says(None, Status.NO_INCUMBENT, bound=1.0).solve(PROBLEM).bound == 1.0


def test_a_bound_is_held_against_the_better_start() -> None:
    s = says(WORST, bound=6.0).solve(PROBLEM, x0=BEST)
    assert (s.energy, s.bound, s.status) == (3.0, None, Status.FEASIBLE)
    assert "above the energy" in s.stats.message


@pytest.mark.parametrize("x0", [[1, 1], [1, 2, 0, 0], [1, 0.5, 0, 0]])
def test_a_malformed_start_raises(x0: Any) -> None:
    with pytest.raises(ProblemError, match="x"):
        says(BEST).solve(PROBLEM, x0=x0)


def test_weights_come_with_an_miqp() -> None:
    problem = MIQP(np.eye(3) * 2.0, [2.0, 4.0, 6.0], k=1)
    s = says([0, 0, 1]).solve(problem)
    # 1/2 * 2 w^2 - 6 w is least at w = 3, where it is -9
    assert s.weights == pytest.approx([0.0, 0.0, 3.0])
    assert s.energy == pytest.approx(-9.0)


def test_an_interrupt_returns_a_feasible_start_or_is_raised() -> None:
    def interrupt(*_: Any) -> Outcome:
        raise KeyboardInterrupt

    s = Scripted(interrupt).solve(PROBLEM, x0=WORST)
    assert s.stats.stop_reason == "interrupted"
    assert s.energy == 7.0
    for x0 in (None, INFEASIBLE):
        with pytest.raises(KeyboardInterrupt):
            Scripted(interrupt).solve(PROBLEM, x0=x0)


def test_an_overrun_is_stated() -> None:
    def slow(p: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        time.sleep(0.12)
        return Outcome(BEST, Status.FEASIBLE, watch.stats("completed"))

    s = Scripted(slow).solve(PROBLEM, stop=TimeLimit(0.01))
    assert s.stats.overrun_s == pytest.approx(s.stats.wall_s - 0.01, abs=0.01)
    assert Scripted(slow).solve(PROBLEM, stop=TimeLimit(10)).stats.overrun_s == 0
    # 10 % + 50 ms are allowed
    assert Scripted(slow).solve(PROBLEM, stop=TimeLimit(0.11)).stats.overrun_s == 0


def test_unsupported_problems_name_a_remedy() -> None:
    class Narrow(Scripted):
        capabilities = Capabilities(frozenset({QUBO}), max_n=3)

    narrow = Narrow(says(BEST).answer)
    with pytest.raises(UnsupportedProblemError, match=r"CardinalityQP .*to_penalty_qubo"):
        narrow.solve(PROBLEM)
    with pytest.raises(UnsupportedProblemError, match=r"BudgetQP .*'highs'"):
        narrow.solve(BudgetQP(np.eye(2), A=[[1, 1]], upper=[1]))
    with pytest.raises(UnsupportedProblemError, match=r"MIQP .*scip"):
        narrow.solve(MIQP(np.eye(2), [1, 1], k=1))
    with pytest.raises(UnsupportedProblemError, match=r"at most 3 variables, got 4.*restrict"):
        narrow.solve(QUBO(np.eye(4)))

    class Derived(QUBO):
        pass

    with pytest.raises(UnsupportedProblemError, match="Derived"):
        narrow.solve(Derived(np.eye(2)))  # exact types: a subclass may add constraints


@pytest.mark.parametrize("seed", [-1, 1.5, True, "7"])
def test_bad_seeds_are_refused(seed: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        says(BEST).solve(PROBLEM, seed=seed)


def test_a_seed_sequence_is_not_used_up() -> None:
    seen = []

    def note(p: Any, x0: Any, seed: np.random.SeedSequence, watch: Any) -> Outcome:
        seen.append((seed.generate_state(2).tolist(), seed.spawn(1)[0].generate_state(1).tolist()))
        return Outcome(BEST, Status.FEASIBLE, watch.stats("completed"))

    seed = np.random.SeedSequence(5)
    for s in (seed, seed, 5):
        Scripted(note).solve(PROBLEM, seed=s)
    assert seen[0] == seen[1] == seen[2]
    assert as_seed(seed) is not seed


def test_solve_many_does_not_depend_on_the_workers() -> None:
    def random(p: Any, x0: Any, seed: np.random.SeedSequence, watch: Any) -> Outcome:
        x = np.zeros(p.n, dtype=np.int8)
        x[np.random.default_rng(seed).permutation(p.n)[: p.k[0]]] = 1
        return Outcome(x, Status.FEASIBLE, watch.stats("completed"))

    solver = Scripted(random)
    problems = [PROBLEM] * 12
    one = [s.x.tolist() for s in solver.solve_many(problems, seed=3)]
    two = [s.x.tolist() for s in solver.solve_many(problems, seed=3, workers=4)]
    assert one == two
    assert len({tuple(x) for x in one}) > 1  # each problem has a seed of its own
    # problem i has the i-th seed, whatever comes after it
    assert one[:3] == [s.x.tolist() for s in solver.solve_many(problems[:3], seed=3)]


def test_solve_many_hands_out_starts_and_checks_them() -> None:
    many = says(WORST).solve_many([PROBLEM, PROBLEM], x0s=[None, BEST])
    assert [s.energy for s in many] == [7.0, 3.0]
    with pytest.raises(ValueError, match="2 problems but 1 starts"):
        says(WORST).solve_many([PROBLEM, PROBLEM], x0s=[None])
    with pytest.raises(ValueError, match="workers must be >= 1"):
        says(WORST).solve_many([PROBLEM], workers=0)
    assert says(WORST).solve_many([]) == []
