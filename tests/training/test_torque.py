"""Torque gathers weight near the pivot, by the formula that its docstring gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optiprune.structure import find_structure
from optiprune.training import (
    Torque,
    TrainingError,
    average_weight_scores,
    decide_units,
    plot_concentration,
    rank_correlations,
    train,
)


def tiny() -> tuple[nn.Module, Tensor]:
    """Three hidden units with rows of norm 5, 0 and 1, biases 2, 0 and -1."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]))
        model[0].bias.copy_(torch.tensor([2.0, 0.0, -1.0]))
    return model, torch.ones(2, 2)


@pytest.mark.parametrize(
    ("profile", "pivot", "want"),
    [
        # s = [(5 + 2) / 2, 0, (1 + 1) / 2]
        ("linear", "first", 0 * 3.5 + 2 / 3 * 1.0),
        ("linear", "last", 2 / 3 * 3.5),
        ("linear", "middle", 1 / 3 * 3.5 + 1 / 3 * 1.0),
        ("linear", "largest", 2 / 3 * 1.0),
        ("linear", {"0": 2}, 2 / 3 * 3.5),
        ("exponential", "first", 3.5 + math.exp(10 / 3)),
    ],
)
def test_the_formula_by_hand(profile, pivot, want) -> None:
    model, x = tiny()
    structure = find_structure(model, (x,))
    torque = Torque(model, structure, strength=0.3, profile=profile, pivot=pivot)
    assert float(torque.penalty().detach()) == pytest.approx(0.3 * want, rel=1e-6)
    torque.penalty().backward()
    for p in model[0].parameters():  # the unit of norm zero too
        assert torch.isfinite(p.grad).all()
    assert model[2].weight.grad is None


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", [1, 1, 1]),
        ("rising", [0, 1, 1]),
        ("falling", [1, 0.5, 0]),
        ("rising-falling", [0, 1, 0]),
        (lambda t: 3 * t, [0, 1.5, 3]),
    ],
)
def test_schedules(schedule, values) -> None:
    model, x = tiny()
    torque = Torque(model, find_structure(model, (x,)), strength=1.0, schedule=schedule)
    full = 2 / 3
    got = [float(torque.penalty(t).detach()) / full for t in (0.0, 0.5, 1.0)]
    assert got == pytest.approx(values, abs=1e-6)


def trained(net: nn.Module, stripes, strength: float, **options) -> tuple[nn.Module, Torque]:
    structure = find_structure(net, (stripes[0][:2],))
    torque = Torque(net, structure, strength=strength, **options)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, [stripes], optimizer, epochs=25, batch_size=50, callbacks=[torque])
    return net, torque


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(data[0]).argmax(1) == data[1]).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "strength"), [({"profile": "linear"}, 0.03), ({"profile": "exponential"}, 0.002)]
)
def test_norms_fall_with_distance_only_with_torque(
    net, stripes, test_stripes, tmp_path: Path, options, strength
) -> None:
    plain, idle = trained(copy.deepcopy(net), stripes, 0.0, **options)
    without = rank_correlations(idle.concentration())
    assert abs(np.mean(list(without.values()))) < 0.3
    before = Torque(net, find_structure(net, (stripes[0][:2],)), strength=0.0).concentration()
    pulled, torque = trained(net, stripes, strength, **options)
    after = rank_correlations(torque.concentration())
    assert np.mean(list(after.values())) < -0.8
    assert max(after.values()) < -0.6
    # it still learns the task, and channels of small average weight leave at little loss
    assert accuracy(pulled, test_stripes) > accuracy(plain, test_stripes) - 0.06
    plot_concentration(before, torque.concentration(), tmp_path / "torque.png")
    assert (tmp_path / "torque.png").stat().st_size > 10_000
    pulled.eval()
    structure = find_structure(pulled, (stripes[0][:2],))
    results = {
        name: decide_units(
            model,
            structure,
            [stripes],
            {"parameters": 0.6},
            average_weight_scores(model, structure),
            decide="rule",
        )
        for name, model in (("torque", pulled), ("plain", plain.eval()))
    }
    for r in results.values():
        assert r.shrunk.parameters_after <= 0.6 * r.shrunk.parameters_before
    gathered, scattered = (accuracy(r.model, test_stripes) for r in results.values())
    assert gathered > scattered + 0.1


def test_the_pivot_stays_in_a_resumed_run(net, stripes) -> None:
    structure = find_structure(net, (stripes[0][:2],))
    torque = Torque(net, structure, strength=1.0, pivot="largest")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.flip(0))
    later = Torque(net, structure, strength=1.0, pivot="largest")
    assert later.pivots != torque.pivots
    later.load_state_dict(torque.state_dict())
    assert later.pivots == torque.pivots
    assert float(later.penalty().detach()) == float(torque.penalty().detach())
    other = Torque(net, structure, strength=1.0, include=["stem"])
    with pytest.raises(TrainingError, match="other groups"):
        other.load_state_dict(torque.state_dict())


def test_what_is_refused(net, stripes, structure) -> None:
    for options, words in (
        ({"strength": -1.0}, "strength = -1.0"),
        ({"strength": math.nan}, "strength = nan"),
        ({"strength": 1.0, "profile": "square"}, "linear, exponential"),
        ({"strength": 1.0, "pivot": "centre"}, "first, middle, last, largest"),
        ({"strength": 1.0, "pivot": {"stem": 12}}, "its units are 0 to 11"),
        ({"strength": 1.0, "schedule": "slow"}, "constant, rising"),
        ({"strength": 1.0, "include": ["nothing"]}, "matches no group"),
        ({"strength": 1.0, "exclude": ["*"]}, "no group of units is left"),
    ):
        with pytest.raises(TrainingError, match=words):
            Torque(net, structure, **options)
    with pytest.raises(TrainingError, match="nothing to draw"):
        plot_concentration({}, {}, "x.png")


def test_average_weights_of_units(stripes) -> None:
    model, x = tiny()
    scores = average_weight_scores(model, find_structure(model, (x,)))
    # elements 3, 4, 2; 0, 0, 0; 0, 1, -1
    np.testing.assert_allclose(scores["0"], np.array([9, 0, 2]) / 9)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert not average_weight_scores(model, find_structure(model, (x,)))["0"].any()
