"""Moments of layer inputs against the inputs themselves."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from benchmarks.quality.baselines import LayerMoments, collect_moments
from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.curvature.gram import LayerGram

CPU = torch.device("cpu")


def images(n=7, channels=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return CalibrationSet.collect([torch.randn(n, channels, 6, 6, generator=g) + 0.5], CPU)


def small_cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def test_they_are_of_the_inputs_behind_the_pruned_prefix():
    model = small_cnn().eval()
    pruned = {"0.weight": model[0].weight.detach() * 0.5}
    data = images()
    with torch.no_grad():
        x = functional_call(model[0], {"weight": pruned["0.weight"]}, next(data.batches(9)).inputs)
        patches = nn.functional.unfold(model[1:3](x).double(), 3, stride=2)  # (7, 72, 4)
    columns = patches.transpose(1, 2).reshape(-1, 72)
    layer = find_layers(model)[1]
    for chunk in (2, 100):
        moments = collect_moments(model, layer, pruned, data, chunk)
        assert moments.gram.n == 28
        assert moments.gram.same_inputs
        torch.testing.assert_close(moments.H[0], columns.T @ columns / 28, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(moments.means[0], columns.mean(0), rtol=1e-5, atol=1e-7)


def test_means_and_variances_of_patches():
    model = small_cnn()
    layer = find_layers(model)[0]
    data = images()
    moments = collect_moments(model, layer, {}, data, chunk=3)
    x = next(data.batches(100)).inputs.double()
    patches = nn.functional.unfold(x, 3, padding=1)  # (7, 36, 36)
    columns = patches.transpose(1, 2).reshape(-1, 36)
    assert torch.allclose(moments.means.flatten(), columns.mean(0))
    assert torch.allclose(moments.variances().flatten(), columns.var(0, unbiased=False))
    assert torch.allclose(moments.norms().flatten(), columns.square().mean(0).sqrt())
    by_row = moments.by_row(moments.means, 8)
    assert torch.equal(by_row[3], moments.means[0])
    assert torch.equal(by_row[4], moments.means[1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.fc(x)))


def test_a_module_that_runs_twice_adds_up():
    torch.manual_seed(0)
    model = Twice()
    data = CalibrationSet.collect([torch.randn(9, 3)], CPU)
    layer = find_layers(model)[0]
    moments = collect_moments(model, layer, {}, data, chunk=2)
    with torch.no_grad():
        x = next(data.batches(9)).inputs
        both = torch.cat([x, torch.relu(model.fc(x))]).double()
    assert moments.gram.n == 18
    torch.testing.assert_close(moments.H[0], both.T @ both / 18, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(moments.means[0], both.mean(0), rtol=1e-6, atol=1e-8)


def test_bad_inputs_are_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layer = find_layers(model)[1]
    data = CalibrationSet.collect([torch.ones(2, 3)], CPU)
    with pytest.raises(CalibrationError, match="input of layer '1' holds NaN"):
        collect_moments(model, layer, {"0.weight": torch.full((3, 3), float("nan"))}, data)
    idle = Twice()
    idle.other = nn.Linear(3, 3)
    with pytest.raises(CalibrationError, match="layer 'other' never ran"):
        collect_moments(idle, find_layers(idle)[1], {}, data)


def test_moments_that_do_not_belong_together_are_refused():
    H = torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(ValueError, match="two different inputs"):
        LayerMoments(LayerGram(H, H.clone(), H.clone(), 1), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"means must have shape \(1, 3\), got \(3,\)"):
        LayerMoments(LayerGram(H, H, H, 1), torch.zeros(3))
    with pytest.raises(ValueError, match="no means; take one of collect_grams"):
        LayerMoments.of(LayerGram(H, H, H, 1))
