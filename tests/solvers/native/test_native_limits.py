"""Stop criteria, interrupts, starts, seeds and odd inputs: what every native solver promises."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    ProblemError,
)
from optiprune.problems.generators import layer_miqp, layer_problem
from optiprune.solvers import (
    IterationLimit,
    NoImprovement,
    SolverOptionError,
    Status,
    Target,
    TimeLimit,
    get,
    solver_class,
)
from optiprune.solvers.native import rounds

_ENDLESS = {
    "annealing": {"restarts": 0},
    "tabu": {"iterations": 0},
    "local-search": {"starts": 0},
    "auto": {"effort": 1e6},
}
_KINDS = {
    "annealing": ["qubo", "pruning", "groups", "budget"],
    "tabu": ["qubo", "pruning", "groups", "miqp"],
    "local-search": ["qubo", "pruning", "groups", "budget", "miqp"],
    "auto": ["qubo", "pruning", "groups", "budget", "miqp"],
    "greedy": ["qubo", "pruning", "groups", "budget", "miqp"],
}
_PAIRS = [(name, kind) for name, kinds in _KINDS.items() for kind in kinds]
_ENDLESS_PAIRS = [(name, kind) for name, kind in _PAIRS if name != "greedy"]


def _endless(name):
    return get(name, **_ENDLESS[name])


@pytest.mark.parametrize(("name", "kind"), _ENDLESS_PAIRS)
@pytest.mark.parametrize(("n", "limit"), [(40, 0.0), (40, 0.03), (300, 0.15)])
def test_time_limits_hold(name, kind, n, limit, make):
    p = make(kind, n, 0)
    solver = _endless(name)
    get(name).solve(p)  # compile
    solver.solve(p, stop=TimeLimit(0.05))
    best = np.inf  # of three: another process may hold the machine
    for _ in range(3):
        t = time.perf_counter()
        sol = solver.solve(p, stop=TimeLimit(limit))
        best = min(best, time.perf_counter() - t)
        if best <= 1.1 * limit + 0.05:
            break
    assert best <= 1.1 * limit + 0.05
    assert sol.stats.stop_reason == "time"
    # without time nothing but an easy start can be known
    assert sol.status is Status.FEASIBLE or (kind == "budget" and limit == 0.0)


@pytest.mark.parametrize("name", ["annealing", "tabu", "greedy", "local-search", "auto"])
def test_a_time_limit_shorter_than_the_set_up_gives_something_feasible(name):
    r = np.random.default_rng(0)
    p = CardinalityQP(FactoredMatrix(r.standard_normal((300, 2500))), k=700)
    get(name).solve(CardinalityQP(FactoredMatrix(r.standard_normal((3, 300))), k=7))
    t = time.perf_counter()
    sol = get(name).solve(p, stop=TimeLimit(0.005))
    assert time.perf_counter() - t < 0.2
    assert sol.status is Status.FEASIBLE
    assert sol.stats.stop_reason == "time"


@pytest.mark.parametrize(("name", "kind"), _ENDLESS_PAIRS)
def test_iteration_limits_are_kept_exactly(name, kind, make):
    p = make(kind, 40, 0)
    sol = _endless(name).solve(p, stop=IterationLimit(321))
    assert sol.stats.stop_reason == "iterations"
    assert sol.stats.moves == 321
    again = _endless(name).solve(p, stop=IterationLimit(321))
    np.testing.assert_array_equal(sol.x, again.x)


@pytest.mark.parametrize(("name", "kind"), _ENDLESS_PAIRS)
def test_a_target_stops_the_search(name, kind, make):
    p = make(kind, 40, 0)
    good = get(name).solve(p, seed=0).energy
    target = good + 0.02 * abs(good)
    sol = _endless(name).solve(p, seed=0, stop=Target(target) | TimeLimit(20))
    assert sol.stats.stop_reason == "target"
    assert sol.energy <= target


@pytest.mark.parametrize(("name", "kind"), _ENDLESS_PAIRS)
def test_no_improvement_stops_the_search_and_repeatably(name, kind, make):
    p = make(kind, 40, 0)
    stop = NoImprovement(150) | TimeLimit(20)
    a = _endless(name).solve(p, seed=0, stop=stop)
    b = _endless(name).solve(p, seed=0, stop=stop)
    assert a.stats.stop_reason == "no improvement"
    assert a.stats.moves == b.stats.moves
    np.testing.assert_array_equal(a.x, b.x)


@pytest.mark.parametrize(("name", "kind"), _PAIRS)
def test_the_same_seed_gives_the_same_answer(name, kind, make):
    p = make(kind, 150 if kind != "miqp" else 40, 1)
    a, b = (get(name).solve(p, seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.x, b.x)
    assert a.stats.moves == b.stats.moves


@pytest.mark.parametrize(("name", "kind"), _PAIRS)
def test_the_answer_is_feasible_and_no_worse_than_a_feasible_start(name, kind, make):
    p = make(kind, 40, 2)
    x0 = get(name).solve(p, seed=9).x
    sol = get(name).solve(p, x0=x0, seed=1, stop=IterationLimit(5))
    assert p.violation(sol.x) <= 1e-9
    assert sol.energy <= p.energy(x0) + 1e-12
    assert sol.energy == pytest.approx(p.energy(sol.x), abs=1e-12)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in _PAIRS if pair[1] != "qubo"])
@pytest.mark.parametrize("value", [0, 1])
def test_an_infeasible_start_is_repaired(name, kind, value, make):
    p = make(kind, 24, 3)
    sol = get(name).solve(p, x0=np.full(24, value), seed=1)
    assert sol.status.has_solution
    assert p.violation(sol.x) <= 1e-9


@pytest.mark.parametrize("name", [*_ENDLESS, "exhaustive"])
def test_an_interrupt_returns_the_incumbent(name, make):
    p = make("cardinality", 40, 0)
    options = {"max_assignments": 1 << 60} if name == "exhaustive" else _ENDLESS[name]
    solver = get(name, **options)
    solver.solve(p, stop=IterationLimit(50))
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    sol = solver.solve(p, stop=TimeLimit(20))
    timer.join()
    assert sol.stats.stop_reason == "interrupted"
    assert sol.status is Status.FEASIBLE
    assert sol.stats.wall_s < 5


@pytest.mark.parametrize("name", ["annealing", "tabu", "local-search"])
def test_running_for_ever_is_refused(name, make):
    with pytest.raises(SolverOptionError, match="stop criterion"):
        _endless(name).solve(make("qubo", 5, 0))


_ODD = {
    "no variables": QUBO(np.zeros((0, 0)), offset=2.0),
    "no variables, cardinality": CardinalityQP(np.zeros((0, 0)), k=0, offset=2.0),
    "no variables, budget": BudgetQP(np.zeros((0, 0)), A=np.zeros((1, 0)), upper=[1], offset=2.0),
    "no variables, support": MIQP(np.zeros((0, 0)), np.zeros(0), k=0, offset=2.0),
    "one variable": QUBO([[3.0]], [-5.0]),
    "k = 0": CardinalityQP(np.eye(6), k=0),
    "k = n": CardinalityQP(np.eye(6), k=6),
    "zero matrix": CardinalityQP(np.zeros((6, 6)), k=2),
    "zero QUBO": QUBO(np.zeros((6, 6))),
    "equal scores": CardinalityQP(np.ones((14, 14)), np.ones(14), k=6),
    "groups of one": CardinalityQP(np.eye(5), k=[0, 1, 0, 1, 1], groups=[0, 1, 2, 3, 4]),
    "empty groups": CardinalityQP(np.eye(5), k=[0, 2, 0], groups=[1] * 5),
    "unsorted groups": CardinalityQP(np.diag([5.0, 1, 4, 2, 3]), k=[1, 1], groups=[1, 0, 1, 0, 1]),
    "huge values": CardinalityQP(1e150 * np.eye(5) - 1e149, k=2),
    "tiny values": CardinalityQP(1e-200 * np.eye(5) - 1e-201, k=2),
    "budget that binds nothing": BudgetQP(np.eye(4), -np.ones(4), A=np.ones((1, 4)), upper=[9]),
    "zero MIQP": MIQP(np.zeros((5, 5)), np.zeros(5), k=2),
}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (name, label)
        for name in (*_KINDS, "exhaustive", "exact")
        for label, p in _ODD.items()
        if type(p) in solver_class(name).capabilities.problems
    ],
)
def test_ordinary_corner_cases(name, label):
    p = _ODD[label]
    sol = get(name).solve(p, seed=0)
    best = get("exhaustive").solve(p)
    assert best.status is Status.OPTIMAL
    assert sol.status.has_solution
    assert sol.energy == pytest.approx(best.energy)


@pytest.mark.parametrize("name", ["annealing", "tabu", "local-search", "greedy", "auto"])
@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("make", [lambda q: CardinalityQP(q, k=20), QUBO])
def test_coefficients_whose_sums_overflow_are_refused(name, n, make):
    q = np.random.default_rng(0).standard_normal((n, n))
    if name != "auto":
        with pytest.raises(SolverOptionError, match="float32"):
            get(name, precision="float32").solve(make(1e37 * q))
    wide = get(name).solve(make(1e37 * q))
    assert np.isfinite(wide.energy)
    with pytest.raises(ProblemError, match="divide all"):
        get(name).solve(make(1e300 * q))
    with pytest.raises(ProblemError, match="divide all"):
        get(name).solve_many([make(1e300 * q)] * 2)


def test_budgets_that_cannot_be_met_give_no_incumbent_and_say_so():
    # 2 x1 + 2 x2 + 2 x3 = 3: each row can be met taken as a range, no assignment does
    p = BudgetQP(np.eye(3), A=[[2, 2, 2]], upper=[3], lower=[3])
    for name in ("greedy", "annealing", "local-search"):
        sol = get(name).solve(p)
        assert sol.status is Status.NO_INCUMBENT
        assert sol.x is None
        assert "give a feasible x0" in sol.stats.message
    assert get("exhaustive").solve(p).status is Status.INFEASIBLE


def test_bad_options_are_refused_with_the_value():
    for name, options, said in [
        ("annealing", {"sweeps": 0}, "sweeps.*got 0"),
        ("annealing", {"moves": "jump"}, "'jump'"),
        ("annealing", {"start_acceptance": 0.1, "end_acceptance": 0.5}, "0.1 and 0.5"),
        ("annealing", {"t_start": 1.0, "t_end": 2.0}, "above"),
        ("tabu", {"tenure": -1}, "tenure.*got -1"),
        ("local-search", {"strategy": "worst"}, "'worst'"),
        ("greedy", {"direction": "up"}, "'up'"),
        ("exhaustive", {"max_assignments": 0}, "got 0"),
        ("auto", {"effort": 0}, "got 0"),
        ("auto", {"effort": float("nan")}, "got nan"),
    ]:
        with pytest.raises(SolverOptionError, match=said):
            get(name, **options)


class TestAuto:
    @pytest.mark.parametrize(
        ("kind", "n", "chosen"),
        [("qubo", 12, "exhaustive"), ("pruning", 12, "exhaustive"), ("n:m", 20, "exhaustive"),
         ("qubo", 100, "annealing and tabu"), ("cardinality", 100, "tabu"),
         ("cardinality", 256, "tabu"), ("cardinality", 257, "annealing and tabu"),
         ("cardinality", 21, "exact"), ("budget", 60, "annealing"),
         ("miqp", 40, "tabu"), ("miqp", 10, "exhaustive")],
    )  # fmt: skip
    def test_says_what_it_chose_and_why(self, kind, n, chosen, make):
        sol = get("auto").solve(make(kind, n, 0), stop=TimeLimit(0.5))
        assert f"auto chose '{chosen}'" in sol.stats.message
        assert sol.stats.solver == "auto"
        assert sol.stats.extra["chosen"] == chosen

    def test_few_assignments_that_are_much_work_are_not_visited(self):
        # C(500, 2) of them: a path in the tree is as long as k, and a pivot costs its square
        for p, chosen in (
            (layer_problem(500, 498), "annealing and tabu"),
            (layer_problem(40, 37), "exhaustive"),
            (layer_miqp(300, 298), "tabu"),
            (layer_miqp(30, 28), "exhaustive"),
        ):
            sol = get("auto").solve(p, stop=TimeLimit(0.3))
            assert sol.stats.extra["chosen"] == chosen
            assert sol.stats.overrun_s == 0 or chosen == "exhaustive"

    def test_effort_scales_the_work(self, make):
        p = make("cardinality", 100, 0)
        moves = [get("auto", effort=e).solve(p).stats.moves for e in (0.5, 1.0, 2.0)]
        assert moves[0] < moves[1] < moves[2]


@pytest.mark.parametrize("name", ["annealing", "tabu", "local-search", "greedy", "auto"])
def test_many_problems_on_one_thread_and_on_two_give_the_same(name, make):
    kinds = ["pruning", "qubo", "groups"]
    problems = [make(kinds[i % 3], 16 + i % 48, i) for i in range(24)]
    one = get(name).solve_many(problems, seed=4, workers=1)
    two = get(name).solve_many(problems, seed=4, workers=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        assert a.energy == b.energy


def test_rounds_follow_the_squares_of_lubys_sequence(monkeypatch, make):
    lengths = []
    monkeypatch.setattr(rounds._Turns, "round", lambda self, scale: lengths.append(scale))
    rounds.Rounds(effort=30.5).solve(make("cardinality", 60, 0))
    assert lengths == [1, 1, 4, 1, 1, 4, 16, 1, 1, 0.5]


def test_a_round_does_not_know_of_those_before_it_but_the_answer_does(make):
    p = make("cardinality", 60, 0)
    energies = [rounds.Rounds(effort=e).solve(p, seed=2).energy for e in (1, 2, 6, 12)]
    assert energies == sorted(energies, reverse=True)
    s = rounds.Rounds(effort=6).solve(p, seed=2)
    assert [e for _, e in s.stats.trajectory] == sorted(
        (e for _, e in s.stats.trajectory), reverse=True
    )
