"""Samples from the network alone show its classes, its statistics and what pruning changes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from optiprune.training import (
    Behaviour,
    SensitivityOptions,
    SyntheticOptions,
    TrainingError,
    prune_sensitive_units,
    prune_sensitive_weights,
    synthesize,
)
from optiprune.training.rules.behaviour import jensen_shannon
from optiprune.training.rules.rated import RatedWeights

from .conftest import make_stripes

OPTIONS = SyntheticOptions(samples=96, batch=48, steps=60, seed=1)


def statistics(model: nn.Module, x: torch.Tensor) -> float:
    """Relative distance of means of the batch norm's input."""
    with torch.no_grad():
        h = model.a(torch.relu(model.stem(x)))
    gap = (h.mean((0, 2, 3)) - model.norm.running_mean).square() / model.norm.running_var
    return float(gap.mean())


def test_what_the_samples_are(learnt) -> None:
    before = copy.deepcopy(learnt.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    made = synthesize(learnt, (1, 8, 8), OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in learnt.state_dict().items())
    assert not any(m._forward_pre_hooks for m in learnt.modules())
    assert made.inputs.shape == (96, 1, 8, 8)
    assert made.classes.bincount().tolist() == [24] * 4
    with torch.no_grad():
        assert float((learnt(made.inputs).argmax(1) == made.classes).float().mean()) > 0.9
    assert made.losses[1] < made.losses[0]
    # the statistics that the network remembers hold the samples near what it was trained on
    free = synthesize(learnt, (1, 8, 8), replace(OPTIONS, statistics=0.0))
    held = synthesize(learnt, (1, 8, 8), replace(OPTIONS, statistics=10.0))
    assert statistics(learnt, held.inputs) < 0.5 * statistics(learnt, free.inputs)
    again = synthesize(learnt, (1, 8, 8), OPTIONS)
    assert torch.equal(again.inputs, made.inputs)


def test_they_show_what_pruning_changes(learnt) -> None:
    rated = RatedWeights(learnt)
    pruned = rated.pruned(dict.fromkeys(rated.names, 0.5))
    change = {}
    for weight in (0.0, 1.0, 5.0):
        options = SyntheticOptions(samples=96, batch=48, steps=60, seed=1, behaviour=weight)
        made = synthesize(learnt, (1, 8, 8), options)
        change[weight] = Behaviour(learnt, [made.inputs]).change(pruned)
    assert change[0.0] < change[1.0] < change[5.0]
    real = Behaviour(learnt, [make_stripes(96, 5)[0]]).change(pruned)
    assert change[5.0] > real


def test_the_divergence() -> None:
    a = torch.tensor([[50.0, 0.0], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 50.0], [0.0, 0.0], [1.5, 2.0]], dtype=torch.float64)
    found = jensen_shannon(a, b)
    p, q = a[2].softmax(0), b[2].softmax(0)
    m = (p + q) / 2
    want = float((p * (p / m).log() + q * (q / m).log()).sum()) / (2 * math.log(2))
    assert found.tolist() == pytest.approx([1.0, 0.0, want], abs=1e-12)
    sequence = jensen_shannon(a[None], b[None])
    assert float(sequence) == pytest.approx(float(found.mean()))


@pytest.mark.parametrize("prune", [prune_sensitive_weights, prune_sensitive_units])
def test_thresholds_from_the_change_of_behaviour(learnt, prune) -> None:
    """No data, no labels: samples and the floor both come from the network."""
    made = synthesize(learnt, (1, 8, 8), OPTIONS)
    behaviour = Behaviour(learnt, [made.inputs])
    options = SensitivityOptions(tolerance=0.05)
    result = prune(learnt, [made.inputs], options=options, evaluate=behaviour.agreement)
    assert result.accuracy_before == pytest.approx(1.0)
    assert 0.95 <= result.accuracy_after < 1
    assert result.left < 0.9
    # held on real pictures of which nothing was known
    x, y = make_stripes(400, 6)
    pruned = result.shrunk.model if result.shrunk else copy.deepcopy(learnt)
    if result.masks is not None:
        result.masks.apply(pruned)
    with torch.no_grad():
        full, left = ((m(x).argmax(1) == y).float().mean() for m in (learnt, pruned))
    assert float(left) > float(full) - 0.1


def test_options_and_odd_models(learnt) -> None:
    bounded = SyntheticOptions(samples=5, steps=20, low=-0.5, high=0.5, rate=0.3)
    made = synthesize(learnt, (1, 8, 8), bounded)
    assert len(made.inputs) == 5
    assert float(made.inputs.abs().max()) <= 0.5
    untouched = synthesize(learnt, (1, 8, 8), SyntheticOptions(samples=3, steps=0, deviation=0.0))
    assert not untouched.inputs.any()
    plain = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))  # no batch norm
    assert synthesize(plain, (5,), SyntheticOptions(samples=7, steps=5)).inputs.shape == (7, 5)
    with pytest.raises(TrainingError, match=r"does not take a tensor of floats of shape \(n, 4\)"):
        synthesize(plain, (4,))
    with pytest.raises(TrainingError, match=r"outputs of shape \(n, classes\)"):
        synthesize(nn.Conv2d(1, 2, 3), (1, 5, 5))
    for bad in ({"samples": 0}, {"batch": 1}, {"rate": 0.0}, {"prune_rate": 1.0}):
        (name,) = bad
        with pytest.raises(TrainingError, match=f"{name} = "):
            SyntheticOptions(**bad)
    with pytest.raises(TrainingError, match="low = 1"):
        SyntheticOptions(low=1.0, high=0.0)
