"""Selections of low energy, against all of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import CardinalityQP
from optiprune.shrinking.low_energy import low_energy
from optiprune.solvers import TimeLimit


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_lowest_selections_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(9, 9))
    problem = CardinalityQP(G @ G.T, rng.normal(size=9), k=5)
    every = []
    for ones in combinations(range(9), 5):
        x = np.zeros(9, dtype=np.int8)
        x[list(ones)] = 1
        every.append(float(problem.energy(x)))
    start = np.array([1] * 5 + [0] * 4, dtype=np.int8)
    solver = solvers.get("exact")
    found = low_energy(problem, solver, TimeLimit(1.0), start, np.random.SeedSequence(0), 12)
    energies = [float(problem.energy(x)) for x in found]
    assert len({x.tobytes() for x in found}) == 12
    assert energies == sorted(energies)
    assert energies[0] == pytest.approx(min(every))
    # the best dozen of 126, but for a few that no chain of exchanges through good ones reaches
    assert np.mean([e <= sorted(every)[15] + 1e-9 for e in energies]) >= 0.8


def test_one_selection_and_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([0, 0, 0, 1, 1, 1])
    problem = CardinalityQP(np.zeros((6, 6)), rng.normal(size=6), k=np.array([1, 2]), groups=groups)
    start = np.array([1, 0, 0, 1, 1, 0], dtype=np.int8)
    args = (problem, solvers.get("local-search"), TimeLimit(0.2), start)
    (one,) = low_energy(*args, np.random.SeedSequence(0), 1)
    assert problem.violation(one) == 0
    seed = np.random.SeedSequence(0)
    many = low_energy(*args, seed, 9)
    again = low_energy(*args, seed, 9)
    assert all(np.array_equal(x, y) for x, y in zip(many, again, strict=True))
    assert len(many) == 9
    assert all(problem.violation(x) == 0 for x in many)
    assert np.array_equal(many[0], one)
