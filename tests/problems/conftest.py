"""Slow, obviously right twins and random problems, shared by the tests of optiprune.problems."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from optiprune.problems import QUBO, BudgetQP, CardinalityQP, FactoredMatrix


def all_assignments(n):
    """Every 0/1 vector of length n, shape (2**n, n)."""
    return np.array(list(itertools.product((0, 1), repeat=n)), dtype=np.int8).reshape(2**n, n)


def naive_energy(Q, linear, offset, x):
    total = float(offset)
    for i in range(len(x)):
        total += float(linear[i]) * int(x[i])
        for j in range(len(x)):
            total += float(Q[i][j]) * int(x[i]) * int(x[j])
    return total


def feasible_minimum(problem):
    """(least feasible energy, every feasible assignment that reaches it within 1e-9)."""
    X = all_assignments(problem.n)
    X = X[[problem.violation(x) <= 1e-9 for x in X]]
    e = np.array([problem.energy(x) for x in X])
    return e.min(), X[e <= e.min() + 1e-9]


def random_problem(kind, seed, n=None, factored=False):
    """A feasible problem with small integer data: kind is "qubo", "cardinality", "groups",
    "knapsack" (A >= 0, upper), "covering" (A >= 0, lower) or "mixed" (any sign, both limits)."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    n = int(rng.integers(1, 7)) if n is None else n
    Q = rng.integers(-5, 6, (n, n)).astype(float)
    if factored:
        Q = FactoredMatrix(rng.integers(-2, 3, (2, n)), rng.integers(-3, 4, n))
    form = (Q, rng.integers(-9, 10, n), 1.5)
    if kind == "qubo":
        return QUBO(*form)
    if kind == "cardinality":
        return CardinalityQP(*form, k=int(rng.integers(0, n + 1)))
    if kind == "groups":
        groups = rng.integers(0, 3, n)
        sizes = np.bincount(groups, minlength=3)
        return CardinalityQP(*form, k=rng.integers(0, sizes + 1), groups=groups)
    x = rng.integers(0, 2, n)  # a feasible assignment
    if kind == "knapsack":
        A = rng.integers(0, 5, (2, n))
        return BudgetQP(*form, A=A, upper=A @ x)
    if kind == "covering":
        A = rng.integers(0, 5, (2, n))
        return BudgetQP(*form, A=A, upper=[np.inf, np.inf], lower=A @ x)
    A = rng.integers(-4, 5, (2, n))
    upper = A @ x + rng.integers(0, 2, 2)
    lower = np.where(rng.random(2) < 0.5, A @ x - rng.integers(0, 3, 2), -np.inf)
    return BudgetQP(*form, A=A / 4, upper=upper / 4, lower=lower / 4)


@pytest.fixture(scope="session")
def brute():
    return SimpleNamespace(
        all=all_assignments,
        energy=naive_energy,
        minimum=feasible_minimum,
        random=random_problem,
        kinds=("qubo", "cardinality", "groups", "knapsack", "covering", "mixed"),
    )
