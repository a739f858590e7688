"""Costs of layers, limits, and whole numbers of weights that use a limit up."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.allocation import (
    AllocationError,
    LayerCost,
    layer_costs,
    multiply_adds_per_weight,
    spending_limit,
    whole_counts,
)
from optiprune.curvature import CalibrationError, CalibrationSet, find_layers


def parameters(*sizes: int) -> list[LayerCost]:
    return [LayerCost(str(i), n, 1.0, 0.0, float(n)) for i, n in enumerate(sizes)]


layers = st.lists(
    st.tuples(
        st.integers(1, 12),  # rows
        st.integers(1, 12),  # columns
        st.floats(0.0, 1.2),  # density wanted
        st.sampled_from([0.25, 1.0, 3.0, 49.0]),  # cost of a weight
        st.sampled_from([0.0, 2.0]),  # fixed cost
        st.integers(0, 3),  # fewest, in steps
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(table=layers, by_row=st.booleans(), density=st.floats(0, 1))
def test_the_limit_is_kept_and_used_up(table: list, by_row: bool, density: float) -> None:
    costs, steps, least, wanted = [], [], [], []
    for rows, cols, d, unit, fixed, fewest in table:
        n, step = rows * cols, rows if by_row else 1
        costs.append(LayerCost("", n, unit, fixed, unit * n))
        steps.append(step)
        least.append(min(fewest * step, n))
        wanted.append(d * n)
    limit = density * sum(c.dense + c.fixed for c in costs)
    fewest_cost = sum(Fraction(c.of(k)) for c, k in zip(costs, least, strict=True))
    if fewest_cost > Fraction(limit):
        with pytest.raises(AllocationError, match="fewest weights"):
            whole_counts(wanted, costs, steps, least, limit)
        return
    kept = whole_counts(wanted, costs, steps, least, limit)
    spent = sum(Fraction(c.of(int(k))) for c, k in zip(costs, kept, strict=True))
    assert spent <= Fraction(limit)
    for k, cost, step, low in zip(kept, costs, steps, least, strict=True):
        assert k % step == 0
        assert low <= k <= cost.size
        # no layer can take one step more
        assert k + step > cost.size or spent + Fraction(cost.unit) * step > Fraction(limit)


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=8),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_parameters_are_met_exactly_and_close_to_what_was_wanted(
    sizes: list[int], density: float, seed: int
) -> None:
    wanted = np.random.default_rng(seed).dirichlet(np.ones(len(sizes))) * density * sum(sizes)
    wanted = np.minimum(wanted, sizes)
    total = round(float(wanted.sum()))
    kept = whole_counts(wanted, parameters(*sizes), [1] * len(sizes), [0] * len(sizes), total)
    assert kept.sum() == total
    assert (np.abs(kept - wanted) < 1.0 + 1e-6).all()


def test_the_largest_remainders_are_served_first() -> None:
    kept = whole_counts([1.2, 2.7, 3.1], parameters(10, 10, 10), [1] * 3, [0] * 3, 7)
    assert kept.tolist() == [1, 3, 3]


def test_least_counts_are_made_room_for() -> None:
    kept = whole_counts([0.5, 9.5], parameters(10, 10), [1, 1], [4, 1], 10)
    assert kept.tolist() == [4, 6]


def test_limits() -> None:
    costs = parameters(7, 3)
    assert spending_limit("parameters", costs, 0.25) == 2.0  # 2.5 to the even, as everywhere
    assert spending_limit("flops", costs, 0.29) == 2.0
    assert spending_limit("flops", costs, 1 - 0.9) == 1.0  # 0.9999999999999998 is meant as 1


def test_costs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(75, 5))
    found = find_layers(model)
    data = CalibrationSet.collect([torch.zeros(4, 2, 5, 5)], torch.device("cpu"))
    weights = {x.parameter: x.modules[0].weight for x in found}
    positions = multiply_adds_per_weight(model, found, weights, data)
    assert positions == {"0": 25.0, "2": 1.0}
    conv, linear = layer_costs("flops", found, positions=positions)
    assert (conv.dense, linear.dense) == (54 * 25.0, 375.0)
    assert conv.of(10) == 250.0
    conv, linear = layer_costs("bytes", found, itemsize={"0": 4, "2": 2})
    # 54 bits fill 7 bytes
    assert (conv.of(10), conv.dense) == (4 * 10 + 7, 216)
    assert (linear.of(100), linear.dense) == (2 * 100 + 47, 750)


class Odd(nn.Module):
    """Runs one layer three times on sequences, shares its weight, and has a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.c = nn.Conv2d(4, 8, (3, 1), stride=2, groups=2)

    def forward(self, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            tokens = self.a(tokens)
        return self.b(tokens[:, :2]).sum() + self.c(image).sum()


def test_calls_shared_weights_and_groups_add_up() -> None:
    model = Odd()
    found = find_layers(model)
    batch = {"tokens": torch.zeros(2, 7, 6), "image": torch.zeros(2, 4, 9, 5)}
    data = CalibrationSet.collect([batch], torch.device("cpu"))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    positions = multiply_adds_per_weight(model, found, {}, data)
    # 3 calls of 7 positions and one of 2; output of the convolution 4 x 3 pixels
    assert positions == {"a": 23.0, "c": 12.0}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_layer_that_does_not_run_is_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    data = CalibrationSet.collect([torch.zeros(2, 3)], torch.device("cpu"))
    with pytest.raises(CalibrationError, match="'idle' never ran"):
        multiply_adds_per_weight(model, find_layers(model), {}, data)
