"""N:M end to end: the pattern holds exactly and the search pays, with and without refit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune import optimize_masks


@pytest.fixture(scope="module")
def trained():
    """A small net that has learned to tell the signs of products apart, and its inputs."""
    torch.manual_seed(0)
    x = torch.randn(600, 24) @ torch.randn(24, 24) / 24**0.5
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    model = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(),
                          nn.Linear(24, 4))  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {k: v.clone() for k, v in model.state_dict().items()}, model, x, y


def run(trained, pattern, config=None, refit=True):
    state, model, x, _ = trained
    model.load_state_dict(state)
    return optimize_masks(
        model, [x], pattern=pattern, refit=refit, objective="reconstruction", config=config
    )


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:3", "block:1x8"])
def test_the_pattern_holds_and_the_first_layer_is_nearer_to_the_dense_one(trained, pattern, refit):
    none = {"joint": {"sweeps": 0, "start": "initial"}} if refit else {"batches": {"sweeps": 0}}
    if refit and not pattern.startswith("block"):
        none = {"joint": {"enabled": False}, "batches": {"sweeps": 0}}
    first = run(trained, pattern, none, refit)
    result = run(trained, pattern, None, refit)
    result.masks.check_pattern(pattern, exactly=True)
    for name, mask in result.masks.items():
        assert not trained[1].get_parameter(name).detach()[~mask].any()
    errors = [
        r.report.layers[0].error_refit if refit else r.report.layers[0].error_masked
        for r in (first, result)
    ]
    assert errors[1] < errors[0]


def test_a_net_at_two_of_four_still_does_its_job(trained):
    _, model, x, y = trained
    run(trained, "2:4")
    with torch.no_grad():
        assert (model(x).argmax(1) == y).double().mean() > 0.9


@pytest.mark.parametrize("samples", [5, 9])
def test_fewer_samples_than_weights_and_no_damping_are_no_obstacle(trained, samples):
    state, model, x, _ = trained
    model.load_state_dict(state)
    config = {"refit": {"damping": 0.0}, "accept": {"holdout": 0.0}}
    result = optimize_masks(model, [x[:samples]], pattern="2:4", config=config)
    result.masks.check_pattern("2:4", exactly=True)
    # twelve kept weights fit at most nine outputs
    assert result.report.layers[0].error_refit == pytest.approx(0.0, abs=1e-8)


def test_dead_inputs_leave_the_groups(trained):
    state, model, x, _ = trained
    model.load_state_dict(state)
    dead = x.clone()
    dead[:, [0, 1, 9]] = 0.0
    result = optimize_masks(model, [dead], pattern="2:4")
    result.masks.check_pattern("2:4", exactly=True)
    assert not result.masks["0.weight"][:, [0, 1, 9]].any()
