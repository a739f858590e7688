"""`solvers.bound`: below every feasible energy, at any size, in the time it is given."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.problems.generators import layer_miqp, layer_problem


def _check(seeds: range) -> None:
    """The bound of random problems of every type against the least of all feasible energies."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 9))
        Q = rng.normal(size=(n, n)) * 10.0 ** rng.integers(-6, 7)
        Q = Q @ Q.T if seed % 3 == 0 else Q + Q.T
        linear = rng.normal(size=n) * np.abs(Q).max()
        groups = np.unique(rng.integers(0, 3, size=n), return_inverse=True)[1]
        k = [int(rng.integers(0, s + 1)) for s in np.bincount(groups)]
        A = rng.integers(1, 9, size=(2, n))
        M = np.inf if seed % 2 else rng.random(n)
        problem: Any = [
            QUBO(Q, linear, offset=rng.normal()),
            CardinalityQP(Q, linear, k=int(rng.integers(0, n + 1))),
            CardinalityQP(Q, linear, k=k, groups=groups),
            BudgetQP(Q, linear, A=A, upper=A.sum(axis=1) // 2),
            MIQP(Q @ Q.T, Q @ linear, k=int(rng.integers(0, n + 1)), M=M, offset=rng.normal()),
        ][seed % 5]
        X = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)
        best = min(problem.energy(x) for x in X if problem.is_feasible(x))
        size = float(np.abs(Q).sum() + np.abs(linear).sum()) + abs(problem.offset)
        if isinstance(problem, MIQP):
            # the weights and what they were made of
            size += float(np.abs(Q @ Q.T).sum() * (linear @ linear))
        got = solvers.bound(problem, time_limit=1.0)
        assert got.value <= best + 1e-12 * size, (seed, got, best)


def test_below_every_energy_of_small_problems() -> None:
    _check(range(300))


@pytest.mark.slow
def test_below_every_energy_of_thousands_of_small_problems() -> None:
    _check(range(300, 4000))


def test_miqp() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(8, 8))
    problem = MIQP(A @ A.T, rng.normal(size=8), k=3, M=10.0)
    got = solvers.bound(problem)
    best = solvers.get("exhaustive").solve(problem).energy
    assert problem.energy(np.ones(8, np.int8)) < got.value <= best
    assert got.method == "perspective relaxation"


def test_miqp_at_any_size_in_its_time() -> None:
    solvers.bound(layer_miqp(8, 2), time_limit=30.0)  # compile first
    problem = layer_miqp(700, 200, samples=1400, correlation=0.9, seed=1)
    free = problem.energy(np.ones(700, np.int8))
    answer = solvers.get("greedy").solve(problem).energy
    quick, slow = (solvers.bound(problem, time_limit=t) for t in (1e-6, 2.0))
    assert quick.method == "all weights free"
    assert free - 1e-6 * (problem.offset - free) < quick.value <= free
    assert quick.value < slow.value <= answer
    assert slow.seconds < 3.5


def test_miqp_without_a_choice() -> None:
    problem = layer_miqp(6, 6, seed=2)
    assert solvers.bound(problem).value == problem.energy(np.ones(6, np.int8))
    assert solvers.bound(MIQP(problem.H, problem.b, k=0, offset=2.0)).value == 2.0


def test_miqp_unbounded_with_all_weights() -> None:
    """Three weights fit two numbers, b asks for more: one weight alone has a best value."""
    A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    problem = MIQP(A.T @ A, [1.0, 1.0, 1.0], k=1)
    got = solvers.bound(problem)
    assert -math.inf < got.value <= solvers.get("exhaustive").solve(problem).energy


def test_more_time_never_gives_less() -> None:
    problem = layer_problem(128, 64, seed=4)
    answer = solvers.get("auto").solve(problem)
    quick, slow = (solvers.bound(problem, time_limit=t) for t in (1e-6, 10.0))
    assert quick.value < slow.value <= answer.energy
    assert slow.gap(answer.energy) < 1.0


@pytest.mark.parametrize("n", [600, 3000])
def test_the_time_limit_is_kept(n: int) -> None:
    problem = QUBO(np.random.default_rng(0).normal(size=(n, n)))
    began = time.perf_counter()
    got = solvers.bound(problem, time_limit=1.0)
    assert time.perf_counter() - began < 2.5
    assert got.value <= problem.energy(np.zeros(n, np.int8))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="time_limit must be > 0"):
        solvers.bound(QUBO(np.eye(2)), time_limit=0.0)
    with pytest.raises(solvers.UnsupportedProblemError, match="int"):
        solvers.bound(3)  # type: ignore[arg-type]
