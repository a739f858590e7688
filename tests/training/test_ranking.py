"""Units of the lowest scores leave, in equal numbers where they must, until budgets are met."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.shrinking import ShrinkingError
from optiprune.shrinking.budgets import costs_of
from optiprune.structure import find_structure
from optiprune.training import TrainingError, lowest_units
from optiprune.training.units.ranking import plan_of, removal_chains, removal_order

from .conftest import make_net

MODEL = make_net()
STRUCTURE = find_structure(MODEL, (torch.randn(2, 1, 8, 8),))
SIZES = {g.name: g.size for g in STRUCTURE.groups}


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(size) for name, size in SIZES.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.35, 1.0), st.sampled_from(["parameters", "macs"]))
def test_plans_meet_budgets_and_no_more_leaves_than_must(seed, share, cost) -> None:
    scores = drawn(seed)
    plan = lowest_units(STRUCTURE, scores, {cost: share}, minimum=0.05)
    plan.check(STRUCTURE)
    whole = costs_of(STRUCTURE, {})[cost]
    assert costs_of(STRUCTURE, plan.kept(STRUCTURE))[cost] <= share * whole * (1 + 1e-9)
    moves = removal_order(removal_chains(STRUCTURE, scores, minimum=0.05))
    gone = sum(len(v) for v in plan.removed.values())
    shorter = list(moves)
    while shorter and sum(len(u) for m in shorter for _, u in m) >= gone:
        shorter.pop()
    if gone:
        before = plan_of(STRUCTURE, shorter).kept(STRUCTURE)
        assert costs_of(STRUCTURE, before)[cost] > share * whole


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_every_group_keeps_its_minimum_and_low_scores_leave_first(seed, minimum) -> None:
    scores = drawn(seed)
    order = removal_order(removal_chains(STRUCTURE, scores, minimum=minimum))
    left = {g: set(range(n)) for g, n in enumerate(SIZES.values())}
    names = list(SIZES)
    for move in order:
        for g, units in move:
            left[g] -= set(units)
    for g, units in left.items():
        assert len(units) >= max(1, minimum * SIZES[names[g]] - 1e-9)
    # groups without balances leave strictly by score
    g = names.index("hidden")
    gone = [u for move in order for h, units in move if h == g for u in units]
    assert gone == np.argsort(scores["hidden"], kind="stable")[: len(gone)].tolist()


def test_all_equal_scores_and_nothing_to_do() -> None:
    flat = {name: np.ones(size) for name, size in SIZES.items()}
    assert lowest_units(STRUCTURE, flat, {"parameters": 1.0}).removed == {}
    plan = lowest_units(STRUCTURE, flat, {"parameters": 0.5})
    plan.check(STRUCTURE)
    only = lowest_units(STRUCTURE, {"hidden": flat["hidden"]}, {"parameters": 0.95})
    assert set(only.removed) == {"hidden"}
    infinite = {**flat, "hidden": np.full(SIZES["hidden"], np.inf)}
    assert "hidden" not in lowest_units(STRUCTURE, infinite, {"parameters": 0.8}).removed


def test_what_is_refused() -> None:
    flat = {name: np.ones(size) for name, size in SIZES.items()}
    for scores, shares, words in (
        ({"none": np.ones(3)}, {"macs": 0.5}, "no group is called 'none'"),
        ({"hidden": np.ones(3)}, {"macs": 0.5}, "24 units, not scores"),
        ({"hidden": np.full(24, np.nan)}, {"macs": 0.5}, "24 scores of group 'hidden' are NaN"),
        (flat, {"macs": 1e-6}, "macs can fall to"),
    ):
        with pytest.raises(TrainingError, match=words):
            lowest_units(STRUCTURE, scores, shares)


def test_a_budget_that_there_is_not() -> None:
    flat = {name: np.ones(size) for name, size in SIZES.items()}
    with pytest.raises(ShrinkingError, match="no budget 'flops': there are parameters, macs"):
        lowest_units(STRUCTURE, flat, {"flops": 0.5})
