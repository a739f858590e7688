"""Dead units leave without a trace: what they emitted is where it belongs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_networks import NETWORKS, build
from torch import Tensor, nn

from optiprune.structure import find_structure, remove_dead
from optiprune.structure.removal import largest_removal


def same(a: nn.Module, b: nn.Module, *x: Tensor) -> float:
    with torch.no_grad():
        want, got = a(*x), b(*x)
    return float((want - got).abs().max() / want.abs().max())


def chain(activation: nn.Module, norm: bool = True, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(5, 8, bias=bias)]
    if norm:
        layers.append(nn.BatchNorm1d(8))
        layers[1].running_mean.normal_()  # type: ignore[union-attr, operator]
        layers[1].running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
        nn.init.normal_(layers[1].weight)  # type: ignore[arg-type]
        nn.init.normal_(layers[1].bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, activation, nn.Linear(8, 3, bias=bias)).eval()


def kill(weight: Tensor, *rows: int, columns: bool = False) -> None:
    with torch.no_grad():
        (weight.T if columns else weight)[list(rows)] = 0.0


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.Softplus()])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_what_a_dead_unit_emits_goes_into_the_next_bias(
    activation: nn.Module, norm: bool, bias: bool
) -> None:
    model = chain(activation, norm, bias)
    kill(model[0].weight, 1, 4, 6)
    kill(model[-1].weight, 2, columns=True)
    x = torch.randn(7, 5)
    before = copy.deepcopy(model)
    result = remove_dead(model, (x,))
    assert result.model[0].out_features == 4
    assert result.removed == {"0": 4}
    assert same(model, result.model, x) < 1e-6
    assert same(before, model, x) == 0.0
    assert result.parameters_after < result.parameters_before


def test_zero_is_told_by_magnitude() -> None:
    model = chain(nn.ReLU(), norm=False)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].weight[0, :2] = torch.tensor([1.0, -1.0])  # an edge filter: sums to zero
        model[0].weight[1] = -0.0
        model[0].weight[2] = 1e-40  # denormal: not zero
        model[0].bias[2] = 0.0
    result = remove_dead(model, (torch.randn(4, 5),))
    assert result.removed == {"0": 1}


class Padded(nn.Module):
    """Convolutions with zero padding: a constant is another one at the borders."""

    def __init__(self, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=1, padding_mode=padding_mode)
        self.c = nn.Conv2d(8, 4, 1, bias=False)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.a(x))
        return self.head(torch.cat([self.b(x), self.c(x)], 1).tanh().mean((2, 3)))


@pytest.mark.parametrize(("mode", "left"), [("zeros", 6), ("reflect", 5)])
def test_one_channel_of_ones_is_exact_at_borders(mode: str, left: int) -> None:
    torch.manual_seed(0)
    model = Padded(mode).eval()
    kill(model.a.weight, 1, 3, 5)
    x = torch.randn(2, 2, 9, 9)
    result = remove_dead(model, (x,))
    assert result.model.a.out_channels == left  # type: ignore[union-attr]
    assert same(model, result.model, x) < 1e-6
    assert same(model, result.model, torch.randn(3, 2, 6, 11)) < 1e-6
    # and again: nothing is dead any more
    assert not remove_dead(result.model, (x,)).removed


def test_units_that_only_dead_ones_read_are_dead_in_the_next_round() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
    ).eval()
    with torch.no_grad():
        model[2].weight[:, 0] = 0.0
        model[2].weight[3, 0] = 1.0  # unit 0 is read by unit 3 alone
        model[4].weight[:, 3] = 0.0  # which nothing reads
    x = torch.randn(3, 4)
    result = remove_dead(model, (x,))
    assert result.removed == {"0": 1, "2": 1}
    assert result.rounds == 2
    assert same(model, result.model, x) < 1e-6


def test_a_group_keeps_one_unit() -> None:
    model = chain(nn.ReLU())
    kill(model[0].weight, *range(8))
    x = torch.randn(3, 5)
    result = remove_dead(model, (x,))
    assert result.model[0].out_features == 1
    assert same(model, result.model, x) < 1e-6


class Branches(nn.Module):
    """Two branches with different dead channels, a stride, a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.a(x)) + self.b(x)
        x = x.mean((2, 3))
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


def test_branches_with_different_dead_channels_stay_exact() -> None:
    torch.manual_seed(0)
    model = Branches().eval()
    kill(model.a.weight, 0, 1, 2)
    kill(model.b.weight, 1, 2, 5)
    with torch.no_grad():
        model.stem.weight[1] = 0.0
    x = torch.randn(2, 3, 10, 10)
    result = remove_dead(model, (x,))
    assert same(model, result.model, x) < 1e-6
    assert all(n > 0 for n in result.removed.values())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_ninety_percent_sparse_networks_lose_what_is_dead(name: str) -> None:
    model, args = build(name)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:  # whole rows, whole columns, and single weights at random
                p.mul_(torch.from_numpy(rng.random(p.shape) < 0.4))
                p[torch.from_numpy(rng.random(p.shape[0]) < 0.35)] = 0.0
                p[:, torch.from_numpy(rng.random(p.shape[1]) < 0.35)] = 0.0
    result = remove_dead(model, args)
    assert same(model, result.model, *args) < 1e-5
    assert not remove_dead(result.model, args).removed


def test_balances_are_kept() -> None:
    model, args = build("grouped")
    structure = find_structure(model, args)
    rng = np.random.default_rng(1)
    allowed = [rng.random(g.size) < 0.6 for g in structure.groups]
    removed = largest_removal(structure, allowed)
    number = {g.name: i for i, g in enumerate(structure.groups)}
    gone = {(number[k], u) for k, v in removed.items() for u in v}
    assert all(allowed[g][u] for g, u in gone)
    for b in structure.balances:
        assert len({sum(pair not in gone for pair in part) for part in b.parts}) == 1


class Borrowed(nn.Module):
    """A weight that a function reads: the bias of its module is not added there."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.sigmoid(self.a(x)), self.b.weight)


def test_a_borrowed_weight_gets_no_bias() -> None:
    torch.manual_seed(0)
    model = Borrowed().eval()
    kill(model.a.weight, 0)
    x = torch.randn(3, 4)
    assert not remove_dead(model, (x,)).removed
    with torch.no_grad():
        model.a.bias[0] = -torch.inf
    assert same(model, remove_dead(model, (x,)).model, x) < 1e-6
