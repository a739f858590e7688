"""The curvature of the loss along layer outputs, against closed forms and true rises."""

import numpy as np
import pytest
import torch
from torch import nn

from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.curvature.losses import divergence, mean_squared
from optiprune.curvature.sensitivity import output_curvature

SEED = np.random.SeedSequence(0)


def curvature(model, x, loss=divergence, chunk=64):
    layers = find_layers(model)
    weights = {layer.parameter: model.get_parameter(layer.parameter) for layer in layers}
    data = CalibrationSet.collect([x], torch.device("cpu"))
    return output_curvature(model, layers, weights, data, loss, SEED, chunk)


def test_of_a_softmax_layer_it_is_the_variance_of_its_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    x = torch.randn(4000, 6)
    p = model(x).softmax(1)
    found = curvature(model, x)["0"]
    torch.testing.assert_close(found, (p * (1 - p)).mean(0).double(), rtol=0.1, atol=0.0)


def test_of_a_squared_error_it_is_two_over_the_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    found = curvature(model, torch.randn(4000, 6), mean_squared)["0"]
    torch.testing.assert_close(found, torch.full((4,), 0.5, dtype=torch.float64), rtol=0.2, atol=0)


@pytest.mark.parametrize("kind", ["linear", "tokens", "conv", "grouped"])
def test_it_predicts_the_rise_of_the_loss_by_small_errors(kind):
    torch.manual_seed(0)
    first, x = {
        "linear": (nn.Linear(8, 12), torch.randn(2000, 8)),
        "tokens": (nn.Linear(8, 12), torch.randn(1000, 3, 8)),
        "conv": (nn.Conv2d(2, 12, 3), torch.randn(1000, 2, 5, 5)),
        "grouped": (nn.Conv2d(2, 12, 3, groups=2), torch.randn(1000, 2, 5, 5)),
    }[kind]
    tail = [nn.Flatten(), nn.LazyLinear(5)]
    model = nn.Sequential(first, nn.ReLU(), *tail)
    with torch.no_grad():
        dense = model(x)
    found = curvature(model, x, chunk=300)["0"]
    noise = torch.Generator().manual_seed(1)
    axis = 1 if kind in ("conv", "grouped") else -1

    @torch.no_grad()
    def rise(scale):
        """Of independent errors at every position, and what is predicted."""
        hidden = first(x)
        e = scale * torch.randn(hidden.shape, generator=noise)
        actual = float(divergence(nn.Sequential(*list(model)[1:])(hidden + e), dense))
        square = e.double().square().movedim(axis, -1).flatten(0, -2).mean(0)
        return actual, float(0.5 * found @ square)

    actual, predicted = np.mean([rise(0.05) for _ in range(5)], axis=0)
    assert predicted == pytest.approx(actual, rel=0.15)


def test_data_are_read_until_there_are_terms_enough():
    model = nn.Sequential(nn.Linear(3, 2))
    rows = []
    model[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    curvature(model, torch.randn(20_000, 3), chunk=1000)
    assert sum(rows) == 5000


def test_a_loss_that_is_not_finite_is_named():
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.fill_(3e38)
    with pytest.raises(CalibrationError, match="the loss is nan"):
        curvature(model, torch.ones(4, 3))
