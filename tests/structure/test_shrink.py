"""The smaller model computes what the masked one computes, or there is none."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from structure_networks import NETWORKS, build
from torch import Tensor, nn

from optiprune.structure import (
    GateError,
    Plan,
    PlanError,
    Structure,
    confirmed,
    find_structure,
    mask_units,
    shrink,
)
from optiprune.structure.removal import balanced_removal


def some_units(structure: Structure, seed: int) -> dict[str, list[int]]:
    """As many units as the balances allow to take at random one by one, half of all at most."""
    rng = np.random.default_rng(seed)
    removed = {g.name: set() for g in structure.groups}
    tied = {g for b in structure.balances for part in b.parts for g, _ in part}
    for i, g in enumerate(structure.groups):
        if i not in tied:
            removed[g.name] = set(rng.permutation(g.size)[: g.size // 2].tolist())
    for name, units in balanced_removal(structure, sorted(t for t in tied if t >= 0)).items():
        removed[name] |= set(units)
    return {k: sorted(v) for k, v in removed.items() if v}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_smaller_model_is_the_masked_one(name: str, seed: int) -> None:
    model, args = build(name, seed)
    before = copy.deepcopy(model.state_dict())
    structure = confirmed(model, find_structure(model, args), args, {})
    removed = some_units(structure, seed)
    assert removed
    plan = Plan.of(structure, removed)
    result = shrink(model, plan, args, structure=structure)
    assert result.parameters_after < result.parameters_before
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    # and the mask does something, so that being equal to it says something
    masked = copy.deepcopy(model)
    mask_units(masked, structure, plan)
    with torch.no_grad():
        dense, want, got = model(*args), masked(*args), result.model(*args)
    assert float((dense - want).abs().max()) > 1e-3 * float(dense.abs().max())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    # ordinary modules: copied, saved, trained, traced again
    again = copy.deepcopy(result.model)
    again.load_state_dict(result.model.state_dict())
    again(*args).square().mean().backward()
    assert find_structure(again, args).groups


def test_sizes_of_modules_follow_their_tensors() -> None:
    model, args = build("residual")
    structure = find_structure(model, args)
    plan = Plan.of(structure, {"stem": [0, 3], "down": [1]})
    small = shrink(model, plan, args, structure=structure).model
    assert (small.stem.out_channels, small.norm.num_features) == (6, 6)
    assert (small.inner.in_channels, small.inner.out_channels) == (6, 6)
    assert (small.down.in_channels, small.down.out_channels) == (6, 11)
    assert (small.head.in_features, small.head.out_features) == (11, 5)
    assert torch.equal(small.stem.weight, model.stem.weight[[1, 2, 4, 5, 6, 7]])


def test_tied_tensors_stay_tied_and_frozen_ones_frozen() -> None:
    model, args = build("functional")
    structure = find_structure(model, args)
    small = shrink(model, Plan.of(structure, {"weight": [2, 8]}), args).model
    assert not small.frozen.weight.requires_grad
    assert small.frozen.weight.shape == (4, 7)
    assert small.weight.requires_grad
    assert small.shift.shape == (7,)

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 5)
            self.b = nn.Linear(6, 5)
            self.b.weight = self.a.weight
            self.out = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.a(x)) + torch.relu(self.b(x)))

    twins = Twins()
    inputs = (torch.randn(3, 6),)
    small = shrink(twins, Plan.of(find_structure(twins, inputs), {"a": [1]}), inputs).model
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape == (4, 6)


class WrittenSizes(nn.Module):
    """A program with a size in it that no operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 2)
        self.c = nn.Linear(4, 5)
        self.d = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)).reshape(-1, 6)) + self.d(torch.relu(self.c(x)))


def test_a_program_that_fixes_a_size_is_found_out_and_the_other_group_stays() -> None:
    model, inputs = WrittenSizes(), (torch.randn(3, 4),)
    structure = find_structure(model, inputs)
    with pytest.raises(GateError, match="smaller model"):
        shrink(model, Plan.of(structure, {"a": [0]}), inputs)
    left = confirmed(model, structure, inputs, {})
    assert [g.name for g in left] == ["c"]
    why = next(h.barrier for h in left.held if (h.tensor, h.dim) == ("a.weight", 0))
    assert "fixes this size" in why.reason


class Constant(nn.Module):
    """A number of the module that repeats a width, as in many attention layers."""

    def __init__(self) -> None:
        super().__init__()
        self.block = WrittenWidth()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class WrittenWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)).reshape(-1, self.width))


def test_a_number_that_repeats_a_size_is_changed_with_it() -> None:
    model, inputs = Constant(), (torch.randn(3, 4),)
    result = shrink(model, Plan.of(find_structure(model, inputs), {"block.a": [0, 1]}), inputs)
    assert [(c.module, c.attribute, c.before, c.after) for c in result.attributes] == [
        ("block", "width", 6, 4)
    ]
    assert result.model.block.width == 4
    assert model.block.width == 6


class Wrong(nn.Module):
    """An order that a smaller model does not have: refused by the rules, and by the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.roll(torch.relu(self.a(x)), 1, dims=1))


def test_the_gate_refuses_what_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from optiprune.structure.rules import registry, shapes

    monkeypatch.setitem(registry._RULES, "roll", lambda context, x, *_: x)  # as some tools do
    model, inputs = Wrong(), (torch.randn(3, 4),)
    structure = find_structure(model, inputs)
    assert [g.name for g in structure] == ["a"]
    with pytest.raises(GateError, match="differs from the masked one by"):
        shrink(model, Plan.of(structure, {"a": [2]}), inputs)
    assert shapes.roll is not registry._RULES["roll"]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"nothing": [0]}, "no group is called 'nothing'; there are stem, inner, down"),
        ({"stem": [8]}, "has units 0 to 7, not 8"),
        ({"stem": list(range(8))}, "one must stay"),
    ],
)
def test_a_plan_that_does_not_fit(removed: dict[str, list[int]], message: str) -> None:
    model, args = build("residual")
    with pytest.raises(PlanError, match=message):
        Plan.of(find_structure(model, args), removed)


def test_a_plan_that_breaks_a_balance() -> None:
    model, args = build("grouped")
    structure = find_structure(model, args)
    with pytest.raises(PlanError, match="keep equally many"):
        Plan.of(structure, {"stem": [0]})


def test_a_plan_is_a_document(tmp_path) -> None:
    model, args = build("residual")
    structure = find_structure(model, args)
    plan = Plan.of(structure, {"stem": [3, 0], "inner": [5]})
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded.removed == {"stem": (0, 3), "inner": (5,)}
    other, _ = build("residual", seed=5)
    for each in (model, other):
        done = shrink(each, loaded, args)
        assert done.parameters_after < done.parameters_before
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(PlanError, match="no structure plan"):
        Plan.load(tmp_path / "plan.json")
    wide = build("dense")
    with pytest.raises(PlanError, match="no group is called 'stem'"):
        shrink(wide[0], loaded, wide[1])


def test_what_came_of_it_is_told() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    args = (torch.randn(5, 6),)
    result = shrink(model, Plan.of(find_structure(model, args), {"0": [1, 4]}), args)
    assert result.shapes == {
        "0.weight": ((8, 6), (6, 6)),
        "0.bias": ((8,), (6,)),
        **{f"1.{k}": ((8,), (6,)) for k in ("weight", "bias", "running_mean", "running_var")},
        "3.weight": ((3, 8), (3, 6)),
    }
    assert (result.macs_before, result.macs_after) == (6 * 8 + 8 * 3, 6 * 6 + 6 * 3)
    assert result.latency_before is not None
    assert result.latency_after is not None
    assert result.latency_before > 0 < result.latency_after
    quick = shrink(model, Plan({}, {}), args, latency_repeats=0)
    assert quick.latency_before is quick.latency_after is None
    assert not quick.shapes


def test_no_unit_leaves_by_an_empty_plan() -> None:
    model, args = build("residual")
    result = shrink(model, Plan({}, {}), args)
    assert result.parameters_after == result.parameters_before
    assert all(c.error == 0 for c in result.compared)


def test_width_one_and_negative_zeros_and_denormals() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 1), nn.Sigmoid(), nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        model[2].weight[1] = -0.0
        model[2].weight[2] = 1e-42
    inputs = (torch.randn(5, 3),)
    structure = find_structure(model, inputs)
    assert [g.size for g in structure] == [4]  # of one unit none can leave: no group
    small = shrink(model, Plan.of(structure, {"2": [0, 3]}), inputs).model
    assert small[2].weight.shape == (2, 1)
    assert float(small[2].weight[1].detach()) == pytest.approx(1e-42, rel=1e-2)


def test_the_gate_uses_other_sizes_too() -> None:
    model, args = build("residual")
    result = shrink(model, Plan.of(find_structure(model, args), {"stem": [0]}), args)
    shapes = [c.shapes[0] for c in result.compared]
    assert shapes[0] == (2, 3, 8, 8)
    assert shapes[1] == (4, 3, 8, 8)
    assert shapes[2][2] > 8
