"""The dimod adapter: samplers by path and object, parameters, penalties and repair, proofs."""

from __future__ import annotations

import sys
from typing import Any

import dimod
import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import (
    BackendMissingError,
    IterationLimit,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    UnsupportedProblemError,
)

SA = "dwave.samplers:SimulatedAnnealingSampler"
TABU = "dwave.samplers:TabuSampler"
STEEPEST = "dwave.samplers:SteepestDescentSolver"
EXACT = "dimod:ExactSolver"
EXACT_CQM = "dimod:ExactCQMSolver"

# diag 1, 2, 3 and a coupling of the first two: 2 * -2 = -4 when both are kept
SMALL = CardinalityQP([[1.0, -2, 0], [-2, 2, 0], [0, 0, 3]], offset=10.0, k=2)


class Recorder(dimod.Sampler):
    """Notes what it is given and answers with fixed rows."""

    properties: Any = None
    parameters: Any = None

    def __init__(self, rows: Any = None, parameters: tuple[str, ...] = ()) -> None:
        self.parameters = {name: [] for name in parameters}
        self.rows = rows
        self.given: dict[str, Any] = {}
        self.bqm: Any = None

    def sample(self, bqm: Any, **given: Any) -> dimod.SampleSet:
        self.bqm, self.given = bqm, given
        rows = np.zeros((1, len(bqm.variables))) if self.rows is None else np.array(self.rows)
        return dimod.SampleSet.from_samples_bqm((rows, list(range(rows.shape[1]))), bqm)


def test_x_means_keep_on_both_sides() -> None:
    sampler = Recorder(rows=[[1, 1, 0]])
    s = solvers.get("dimod", sampler=sampler).solve(SMALL)
    assert s.x.tolist() == [1, 1, 0]
    assert s.energy == 10.0 + 1 + 2 - 4
    assert s.status is Status.FEASIBLE
    assert s.bound is None
    # dimod's energy of a feasible sample is ours, up to the power-of-two scale and the offset
    energies = sampler.bqm.energies([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    ours = np.array([SMALL.energy(x) for x in ([1, 1, 0], [1, 0, 1], [0, 1, 1])]) - 10.0
    assert (energies * 2.0).tolist() == pytest.approx(ours.tolist())


def test_columns_are_sorted_by_label() -> None:
    class Shuffled(Recorder):
        def sample(self, bqm: Any, **given: Any) -> dimod.SampleSet:
            return dimod.SampleSet.from_samples_bqm(({2: 0, 0: 1, 1: 1}), bqm)

    assert solvers.get("dimod", sampler=Shuffled()).solve(SMALL).x.tolist() == [1, 1, 0]


def test_spins_are_read_as_bits() -> None:
    class Spins(Recorder):
        def sample(self, bqm: Any, **given: Any) -> dimod.SampleSet:
            return dimod.ExactSolver().sample(bqm.change_vartype("SPIN", inplace=False))

    s = solvers.get("dimod", sampler=Spins()).solve(SMALL)
    assert s.x.tolist() == [1, 1, 0]
    assert s.status is Status.FEASIBLE  # only dimod's own exact solvers prove anything


def test_infeasible_samples_are_repaired() -> None:
    s = solvers.get("dimod", sampler=Recorder(rows=[[1, 1, 1], [0, 0, 0]])).solve(SMALL)
    assert s.x.tolist() == [1, 1, 0]
    assert s.stats.extra["feasible_samples"] == 0
    assert s.stats.extra["repaired"] == 2


@pytest.mark.parametrize("rows", [[[0, 1, 2]], [[0.5, 1, 0]], [[0, 1]]])
def test_garbage_from_a_sampler_raises(rows: Any) -> None:
    class Liar(Recorder):
        def sample(self, bqm: Any, **given: Any) -> dimod.SampleSet:
            array = np.array(self.rows)
            return dimod.SampleSet.from_samples(
                (array, list(range(array.shape[1]))), vartype="INTEGER", energy=[0.0]
            )

    with pytest.raises(ValueError, match="sampler's answer"):
        solvers.get("dimod", sampler=Liar(rows=rows)).solve(SMALL)


def test_an_empty_answer_is_no_incumbent() -> None:
    s = solvers.get("dimod", sampler="dimod:NullSampler").solve(SMALL)
    assert s.status is Status.NO_INCUMBENT
    assert s.x is None


@pytest.mark.parametrize("sampler", [EXACT, EXACT_CQM])
def test_exact_solvers_prove(sampler: str) -> None:
    budget = BudgetQP(np.diag([-3.0, -4.0, -5.0]), A=[[2, 3, 4]], upper=[6])
    s = solvers.get("dimod", sampler=sampler).solve(budget)
    # 0 and 2 cost 6 and gain 8; 0 and 1 cost 5 and gain 7
    assert (s.status, s.energy, s.bound) == (Status.OPTIMAL, -8.0, -8.0)
    assert s.x.tolist() == [1, 0, 1]
    s = solvers.get("dimod", sampler=sampler).solve(SMALL)
    assert (s.status, s.energy) == (Status.OPTIMAL, 9.0)
    parity = BudgetQP(np.eye(3), A=[[2, 2, 2]], upper=[3], lower=[3])
    assert solvers.get("dimod", sampler=sampler).solve(parity).status is Status.INFEASIBLE


def test_a_penalty_too_small_proves_nothing() -> None:
    # with a tiny penalty the sampler's best is the infeasible 0 vector
    problem = CardinalityQP(np.diag([1.0, 2.0, 3.0]), k=2)
    s = solvers.get("dimod", sampler=EXACT, penalty=1e-3).solve(problem)
    assert s.energy == 3.0
    assert s.status is Status.FEASIBLE
    assert solvers.get("dimod", sampler=EXACT).solve(problem).status is Status.OPTIMAL


def test_exact_solvers_refuse_what_does_not_fit_in_memory() -> None:
    with pytest.raises(UnsupportedProblemError, match=r"limited to 20 variables.*'exhaustive'"):
        solvers.get("dimod", sampler=EXACT).solve(QUBO(np.eye(21)))
    wide = BudgetQP(np.eye(18), A=[np.arange(1, 19)], upper=[100])
    with pytest.raises(UnsupportedProblemError, match="slack bits"):
        solvers.get("dimod", sampler=EXACT).solve(wide)


def test_budgets_that_are_no_integers_are_refused_with_a_way_out() -> None:
    odd = BudgetQP(np.eye(3), A=[[1.0, np.sqrt(2), np.pi]], upper=[4.0])
    with pytest.raises(UnsupportedProblemError, match=r"no penalty form.*'highs'"):
        solvers.get("dimod").solve(odd)
    assert solvers.get("dimod", sampler=EXACT_CQM).solve(odd).status is Status.OPTIMAL


@pytest.mark.parametrize("sampler", [SA, TABU, STEEPEST])
def test_real_samplers_find_small_optima(sampler: str) -> None:
    solver = solvers.get("dimod", sampler=sampler, reads=30)
    for problem in (SMALL, layer_problem(8, 4, seed=0), QUBO(SMALL.Q, offset=1.0)):
        best = solvers.get("dimod", sampler=EXACT).solve(problem)
        s = solver.solve(problem, seed=1, stop=TimeLimit(0.3) if sampler == TABU else None)
        assert s.energy == pytest.approx(best.energy)
        assert s.status is Status.FEASIBLE
        assert s.stats.moves == 30


def test_seed_reads_and_start_are_passed_where_they_are_taken() -> None:
    full = Recorder(parameters=("seed", "num_reads", "initial_states", "energy_threshold"))
    solver = solvers.get("dimod", sampler=full, reads=7)
    solver.solve(SMALL, seed=5, x0=[0, 1, 1], stop=Target(12.0))
    assert full.given["num_reads"] == 7
    assert 0 <= full.given["seed"] < 2**31
    states, labels = full.given["initial_states"]
    assert states.tolist() == [[0, 1, 1]]
    assert labels == [0, 1, 2]
    # target 12 is 2 above the offset, and the scale of the largest coefficient (3) is 2
    assert full.given["energy_threshold"] == pytest.approx(1.0)
    first = full.given["seed"]
    solver.solve(SMALL, seed=6)
    assert full.given["seed"] != first
    assert "initial_states" not in full.given
    assert "energy_threshold" not in full.given


def test_what_a_sampler_cannot_follow_is_stated() -> None:
    stop = TimeLimit(5) | Target(0.0) | IterationLimit(3)
    s = solvers.get("dimod", sampler=Recorder()).solve(SMALL, stop=stop)
    assert s.stats.message == ("Recorder cannot follow: seed, time limit, target, iteration limit")


def test_time_limits_in_the_samplers_own_units() -> None:
    seconds = Recorder(parameters=("time_limit",))
    solvers.get("dimod", sampler=seconds).solve(SMALL, stop=TimeLimit(2.0))
    assert 1.9 < seconds.given["time_limit"] <= 2.0

    class TabuSampler(Recorder):
        pass

    milliseconds = TabuSampler(parameters=("timeout", "num_reads"))
    solvers.get("dimod", sampler=milliseconds, reads=4).solve(SMALL, stop=TimeLimit(2.0))
    assert 450 <= milliseconds.given["timeout"] <= 500  # a read
    # a timeout in units that nobody knows is left alone, and that is said
    unknown = Recorder(parameters=("timeout",))
    s = solvers.get("dimod", sampler=unknown).solve(SMALL, stop=TimeLimit(2.0))
    assert "timeout" not in unknown.given
    assert "time limit" in s.stats.message


def test_annealing_of_dwave_stops_by_the_clock() -> None:
    problem = layer_problem(60, 30, seed=0)
    s = solvers.get("dimod", reads=20_000).solve(problem, stop=TimeLimit(0.3))
    assert s.stats.stop_reason == "time"
    assert s.status is Status.FEASIBLE
    assert s.stats.wall_s < 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"parameters": {"num_sweep": 1}}, SolverOptionError, "mean 'num_sweeps'.*beta_range"),
        ({"parameters": {"seed": 1}}, SolverOptionError, r"use solve\(..., seed"),
        ({"parameters": {"num_reads": 1}}, SolverOptionError, "the option 'reads'"),
        ({"sampler": STEEPEST, "parameters": {"num_sweeps": 1}}, SolverOptionError, "it has:"),
        ({"sampler": EXACT, "parameters": {"a": 1}}, SolverOptionError, "it has: none"),
        ({"sampler": "neal"}, SolverOptionError, "module:Class"),
        ({"sampler": "dwave.samplers:Tabu"}, SolverOptionError, "samplers in it: .*TabuSampler"),
        ({"sampler": "math:pi"}, SolverOptionError, "lacks 'sample'"),
        ({"sampler": 3}, SolverOptionError, "int is no dimod sampler"),
        ({"sampler": "dimod:TrackingComposite"}, SolverOptionError, "pass the instance"),
        ({"sampler": "no_such_pkg:S"}, BackendMissingError, "pip install no-such-pkg"),
        ({"reads": 0}, SolverOptionError, "reads must be >= 1, got 0"),
        ({"penalty": -1.0}, SolverOptionError, "penalty must be positive and finite, got -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        solvers.get("dimod", **options)


def test_missing_packages_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "dwave.samplers", None)
        with pytest.raises(BackendMissingError, match="pip install dwave-samplers"):
            solvers.get("dimod")
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "dimod", None)
        with pytest.raises(BackendMissingError, match="pip install dimod"):
            solvers.get("dimod")


def test_a_composite_object_can_be_used() -> None:
    s = solvers.get("dimod", sampler=dimod.TrackingComposite(dimod.ExactSolver())).solve(SMALL)
    assert s.energy == 9.0
    assert s.status is Status.FEASIBLE
