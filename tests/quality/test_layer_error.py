"""Errors of layers from outputs are those that Gram matrices give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.quality.layer_error import layer_errors
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.gram import collect_grams


def linear() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False))
    return net, torch.randn(50, 6)


def convolutions() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    return net, torch.randn(20, 2, 8, 8)


@pytest.mark.parametrize("make", [linear, convolutions])
@pytest.mark.parametrize("chunk", [7, 100])
def test_as_the_gram_matrices_say(make, chunk: int) -> None:  # type: ignore[no-untyped-def]
    dense, x = make()
    pruned = copy.deepcopy(dense)
    layers = find_layers(pruned)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            weight = pruned.get_parameter(layer.parameter)
            weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(i)) < 0.5)
    data = CalibrationSet.collect([x], torch.device("cpu"))
    found = layer_errors(pruned, dense, layers, data, chunk)

    old, new = dict(dense.named_parameters()), dict(pruned.named_parameters())
    grams = collect_grams(pruned, layers, old, new, data)
    for layer in layers:
        rows = (layer.rows, layer.cols)
        gram, w = grams[layer.name], new[layer.parameter].detach().reshape(rows)
        target = old[layer.parameter].detach().reshape(rows)
        assert found.error[layer.name] == pytest.approx(gram.n * float(gram.error(w, target).sum()))
        energy = gram.n * float(gram.target_energy(target).sum())
        assert found.energy[layer.name] == pytest.approx(energy)
    total = sum(found.error.values()) / sum(found.energy.values())
    assert found.total == pytest.approx(total)


def test_the_dense_model_has_no_error_and_an_empty_one_loses_all() -> None:
    dense, x = linear()
    data = CalibrationSet.collect([x], torch.device("cpu"))
    layers = find_layers(dense)
    assert layer_errors(dense, dense, layers, data, 16).total == 0.0
    empty = copy.deepcopy(dense)
    with torch.no_grad():
        for p in (empty[0].weight, empty[2].weight):
            p.zero_()
    assert layer_errors(empty, dense, layers, data, 16).relative() == pytest.approx(
        {"0": 1.0, "2": 1.0}
    )


def test_a_layer_that_is_always_zero_has_no_relative_error() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(net[0].weight)
    data = CalibrationSet.collect([torch.randn(4, 3)], torch.device("cpu"))
    found = layer_errors(net, copy.deepcopy(net), find_layers(net), data, 2)
    assert (found.total, found.relative()) == (0.0, {"0": 0.0})
