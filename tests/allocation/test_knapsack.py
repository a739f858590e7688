"""The multiple-choice knapsack against brute force, and what it refuses."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.allocation import AllocationError, solve_knapsack

Items = list[list[tuple[float, float]]]

numbers = st.one_of(
    st.integers(-5, 20).map(float),
    st.floats(-3, 50, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-6),
)
items = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), max_size=4)


def brute_force(problem: Items, budget: float) -> float | None:
    best: float | None = None
    for combination in itertools.product(*problem):
        weight = sum((Fraction(w) for _, w in combination), Fraction(0))
        if weight <= Fraction(budget):
            cost = math.fsum(c for c, _ in combination)
            best = cost if best is None else min(best, cost)
    return best


def solve(problem: Items, budget: float):
    return solve_knapsack(
        [[c for c, _ in item] for item in problem],
        [[w for _, w in item] for item in problem],
        budget,
    )


@settings(deadline=None, max_examples=150)
@given(problem=items, share=st.floats(0, 1), on_the_edge=st.booleans(), pick=st.integers(0, 255))
def test_it_is_brute_force(problem: Items, share: float, on_the_edge: bool, pick: int) -> None:
    low = sum(min(w for _, w in item) for item in problem)
    high = sum(max(w for _, w in item) for item in problem)
    budget = low + share * (high - low)
    if on_the_edge:  # exactly what some assignment weighs
        chosen = [item[(pick >> 2 * i) % len(item)] for i, item in enumerate(problem)]
        budget = math.fsum(w for _, w in chosen)
    best = brute_force(problem, budget)
    if best is None:
        with pytest.raises(AllocationError, match="lightest choices"):
            solve(problem, budget)
        return
    found = solve(problem, budget)
    chosen = [item[j] for item, j in zip(problem, found.choice, strict=True)]
    spread = max((max(c for c, _ in i) - min(c for c, _ in i) for i in problem), default=0.0)
    assert sum((Fraction(w) for _, w in chosen), Fraction(0)) <= Fraction(budget)
    assert found.cost == math.fsum(c for c, _ in chosen)
    assert found.weight == math.fsum(w for _, w in chosen)
    assert found.cost <= best + 1e-8 * spread
    assert found.cost >= best
    assert found.bound <= found.cost <= found.bound + 1e-8 * spread
    assert np.array_equal(solve(problem, budget).choice, found.choice)


def test_by_hand() -> None:
    # both at their cheapest weigh 10; of the two ways to save, dropping item 1 to weight 1 costs 2
    # and dropping item 0 to weight 2 costs 5
    found = solve([[(5, 2), (0, 5)], [(2, 1), (0, 5)]], 7)
    assert found.choice.tolist() == [1, 0]
    assert (found.cost, found.weight, found.bound) == (2.0, 6.0, pytest.approx(2.0))


def test_a_budget_missed_by_less_than_the_tolerance_is_missed() -> None:
    # HiGHS takes 1e-10 over a budget for nothing; one weight of a thousand million is not nothing
    big = 2.0**52
    problem: Items = [[(0, big), (1, 0)], [(0, big), (3, 1)]]
    assert solve(problem, 2 * big).choice.tolist() == [0, 0]
    found = solve(problem, 2 * big - 1)
    assert found.choice.tolist() == [1, 0]
    assert found.weight <= 2 * big - 1


def test_equal_choices_give_the_lightest_and_then_the_first() -> None:
    assert solve([[(1, 3), (1, 2), (1, 2), (1, 5)]], 100).choice.tolist() == [1]
    same = [[(2.0, 1.0), (1.0, 2.0), (1.0, 2.0)]] * 6
    first = solve(same, 9)
    assert first.cost == 9.0
    assert set(first.choice.tolist()) == {0, 1}
    assert np.array_equal(first.choice, solve(same, 9).choice)


def test_no_items() -> None:
    assert solve([], 0).choice.shape == (0,)
    with pytest.raises(AllocationError, match="0 items weigh 0"):
        solve([], -1)


@pytest.mark.parametrize(
    ("costs", "weights", "budget", "complaint"),
    [
        ([[1.0]], [], 1, "1 items but weights of 0"),
        ([[]], [[]], 1, "item 0: .* at least one"),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.0]], 1, "item 1: .*shapes"),
        ([[math.nan]], [[1.0]], 1, "item 0: .* finite"),
        ([[1.0]], [[math.inf]], 1, "item 0: .* finite"),
        ([[1.0]], [[1.0]], math.inf, "budget must be finite"),
        ([[1.0, 0.0]], [[2.0, 3.0]], 1, "weigh 2 together, more than the budget of 1"),
    ],
)
def test_what_it_refuses(costs: list, weights: list, budget: float, complaint: str) -> None:
    with pytest.raises(AllocationError, match=complaint):
        solve_knapsack(costs, weights, budget)


def test_many_layers_are_proven() -> None:
    rng = np.random.default_rng(0)
    shares = np.geomspace(0.02, 1.0, 40)
    costs = [rng.lognormal() * (shares ** -rng.uniform(0.5, 2) - 1) for _ in range(60)]
    sizes = rng.integers(1_000, 1_000_000, 60)
    weights = [np.floor(shares * n) for n in sizes]
    budget = round(0.1 * sizes.sum())
    found = solve_knapsack(costs, weights, budget)
    assert found.weight <= budget
    uniform = [int(np.flatnonzero(w <= 0.1 * n)[-1]) for w, n in zip(weights, sizes, strict=True)]
    assert found.cost < sum(c[j] for c, j in zip(costs, uniform, strict=True))
    assert found.cost - found.bound <= 1e-8 * max(float(np.ptp(c)) for c in costs)
