"""Many small problems in one kernel call: the answers are those of single solves."""

from dataclasses import replace

import numpy as np
import pytest

from optiprune.problems import CardinalityQP
from optiprune.problems.generators import layer_nm_problem, layer_problem
from optiprune.solvers import IterationLimit, Status, get
from optiprune.solvers.native import tabu_block
from optiprune.solvers.native.tabu_block import block_key


def _same(many, singles):
    for a, b in zip(many, singles, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        assert a.energy == b.energy
        assert a.status is b.status
        assert a.stats.message == b.stats.message
        for key in ("solver", "moves", "accepted", "restarts", "stop_reason", "extra"):
            assert getattr(a.stats, key) == getattr(b.stats, key), key


def _singles(solver, problems, seed, x0s=None):
    children = np.random.SeedSequence(seed).spawn(len(problems))
    x0s = x0s or [None] * len(problems)
    return [
        solver.solve(p, seed=s, x0=x0) for p, s, x0 in zip(problems, children, x0s, strict=True)
    ]


def _problems():
    r = np.random.default_rng(0)
    out = []
    for i in range(40):
        n = int(r.choice([1, 2, 40, 64, 128, 130]))
        p = layer_problem(n, max(1, n // 2), seed=i)
        k = [0, n, n // 2, n // 3, max(0, n - 1)][i % 5]
        out.append(CardinalityQP(p.Q, p.linear, 3.0, k=k))
    out += [layer_nm_problem(64, 2, 4, seed=i) for i in range(3)]
    shuffled = r.permutation(np.repeat(np.arange(8), 6))
    for i in range(3):
        p = layer_problem(48, 24, seed=i)
        out.append(CardinalityQP(p.Q, p.linear, k=[0, 6, 1, 2, 3, 4, 5, 3], groups=shuffled))
        out.append(
            CardinalityQP(p.Q, p.linear, k=[0, 6, 1, 2, 3, 4, 5, 3], groups=np.sort(shuffled))
        )
    out.append(CardinalityQP(np.zeros((40, 40)), k=20))
    return out


@pytest.mark.parametrize("name", ["tabu", "auto"])
@pytest.mark.parametrize("workers", [1, 2])
def test_answers_are_those_of_single_solves(name, workers):
    problems = _problems()
    solver = get(name)
    _same(
        solver.solve_many(problems, seed=5, workers=workers),
        _singles(solver, problems, 5),
    )


def test_starts_feasible_and_not():
    problems = [layer_problem(40, 20, seed=i) for i in range(20)]
    r = np.random.default_rng(1)
    x0s = [None] * 20
    for i in range(0, 20, 2):
        x0s[i] = np.zeros(40, np.int8)
        x0s[i][r.permutation(40)[: problems[i].k[0]]] = 1
    best = get("exact").solve(problems[3]).x
    x0s[3] = best
    solver = get("tabu", iterations=20)
    many = solver.solve_many(problems, x0s=x0s, seed=2)
    _same(many, _singles(solver, problems, 2, x0s))
    np.testing.assert_array_equal(many[3].x, best)
    x0s[7] = np.ones(40, np.int8)
    _same(solver.solve_many(problems, x0s=x0s, seed=2), _singles(solver, problems, 2, x0s))


def test_options_and_limits_count():
    problems = [layer_problem(40, 20, seed=i) for i in range(5)]
    solver = get("tabu", tenure=3, spread=2, window=5, stall=40, iterations=700)
    many = solver.solve_many(problems, seed=1)
    assert [s.stats.moves for s in many] == [700] * 5
    _same(many, _singles(solver, problems, 1))
    cut = get("tabu").solve_many(problems, stop=IterationLimit(50))
    assert [s.stats.moves for s in cut] == [50] * 5
    wide = get("tabu", precision="float32").solve_many(problems, seed=1)
    _same(wide, _singles(get("tabu", precision="float32"), problems, 1))


def test_who_shares_a_block():
    p = layer_problem(40, 20, seed=0)
    assert block_key(p) == block_key(layer_problem(40, 11, seed=1))
    assert block_key(p) != block_key(layer_problem(41, 20, seed=0))
    assert block_key(layer_problem(129, 20, seed=0)) is None
    assert block_key(CardinalityQP(np.eye(4), k=[1, 1], groups=[0, 1, 0, 1])) is None
    assert block_key(CardinalityQP(np.zeros((0, 0)), k=0)) is None


def test_ctrl_c_between_blocks(monkeypatch):
    """The block under way and those after it are answered by their starts."""
    problems = [layer_problem(40, 20, seed=i) for i in range(40)]
    x0s = [np.repeat([1, 0], 20).astype(np.int8) for _ in problems]
    solver = get("tabu")
    calls = []
    original = type(solver)._solve_alike

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(type(solver), "_solve_alike", interrupted)
    found = solver.solve_many(problems, x0s=x0s)
    assert len(found) == 40
    assert {s.stats.stop_reason for s in found[:16]} == {"completed"}
    assert {s.stats.stop_reason for s in found[16:]} == {"interrupted"}
    for s, x0 in zip(found[16:], x0s[16:], strict=True):
        np.testing.assert_array_equal(s.x, x0)


def test_ctrl_c_within_a_block_costs_none_of_its_answers(monkeypatch):
    problems = [layer_problem(40, 20, seed=i) for i in range(40)]
    whole = get("tabu").solve_many(problems, seed=4)
    original = tabu_block._search

    def interrupted(*args):
        original(*args)
        raise KeyboardInterrupt  # as the interpreter does with a signal once the kernel is done

    monkeypatch.setattr(tabu_block, "_search", interrupted)
    found = get("tabu").solve_many(problems, seed=4)
    assert {s.stats.stop_reason for s in found} == {"interrupted"}
    for s, w in zip(found[:16], whole[:16], strict=True):
        np.testing.assert_array_equal(s.x, w.x)
    assert all(s.x is None for s in found[16:])


def test_long_searches_are_not_in_blocks():
    problem = layer_problem(40, 20, seed=0)
    assert get("tabu")._alike(problem) is not None
    assert get("tabu", iterations=10**6)._alike(problem) is None
    assert get("auto", effort=1000)._alike(problem) is None


def test_after_ctrl_c_in_one_problem_of_a_part_the_others_do_not_begin(monkeypatch):
    """Starts that are infeasible have to be repaired one by one, in a part all the same."""
    problems = [layer_problem(40, 20, seed=i) for i in range(4)]
    solver = get("tabu")
    original = type(solver)._solve

    def interrupted(self, problem, x0, seed, watch):
        found = original(self, problem, x0, seed, watch)
        return replace(found, stats=replace(found.stats, stop_reason="interrupted"))

    monkeypatch.setattr(type(solver), "_solve", interrupted)
    found = solver.solve_many(problems, x0s=[np.zeros(40, np.int8)] * 4)
    assert found[0].x is not None
    assert all(s.status is Status.NO_INCUMBENT for s in found[1:])
