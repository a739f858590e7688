"""Levels, damage curves, and what is measured for them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.allocation import (
    AllocationError,
    CheapPruning,
    DamageCurve,
    density_levels,
    layer_error_damages,
    loss_damages,
    with_dense_targets,
)
from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.curvature.losses import divergence, mean_squared


@given(density=st.floats(0.001, 0.999), levels=st.integers(2, 20), span=st.floats(1.001, 100))
def test_levels_hold_the_common_density(density: float, levels: int, span: float) -> None:
    found = density_levels(density, levels, span)
    assert density in found
    assert levels <= len(found) <= levels + 1
    assert all(a < b for a, b in itertools.pairwise(found))
    assert density / span * (1 - 1e-9) <= found[0]
    assert found[-1] < 1.0
    assert found[-1] <= density * span * (1 + 1e-9)


def test_levels_by_hand() -> None:
    assert density_levels(0.1, 5, 4.0) == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.4])


@settings(max_examples=200)
@given(
    points=st.dictionaries(st.integers(1, 500), st.floats(-1, 1e6), min_size=1, max_size=8),
    more=st.integers(0, 100),
)
def test_a_curve_never_rises_and_meets_its_points(points: dict[int, float], more: int) -> None:
    size = max(points) + more
    curve = DamageCurve.of(list(points), list(points.values()), size)
    counts = np.arange(size + 1)
    values = curve.at(counts)
    scale = float(np.ptp(curve.damage)) + 1e-300
    assert (np.diff(values) <= 1e-9 * scale).all()
    assert curve.at(curve.kept) == pytest.approx(curve.damage, abs=1e-9 * scale)
    assert (curve.damage <= curve.measured).all()
    assert values[0] == values[curve.kept[0]]
    if more:
        assert curve.at(size) <= 1e-9 * scale


@pytest.mark.parametrize(
    ("kept", "damage"),
    [([], []), ([0], [1.0]), ([11], [1.0]), ([3, 3], [1.0, 1.0]), ([3], [np.nan]), ([3], [1, 2])],
)
def test_curves_that_are_refused(kept: list, damage: list) -> None:
    with pytest.raises(AllocationError):
        DamageCurve.of(kept, damage, 10)


def pruning(model: nn.Module, data: CalibrationSet, **changes: object) -> CheapPruning:
    layers = find_layers(model)
    params = dict(model.named_parameters())
    given = {
        "scores": {x.name: params[x.parameter].detach().abs().reshape(-1).numpy() for x in layers},
        "counts": {x.name: [x.numel // 4, x.numel // 2, x.numel] for x in layers},
        "refit": False,
        "by_row": False,
        **changes,
    }
    return CheapPruning(
        model=model,
        layers=layers,
        dense={x.parameter: params[x.parameter].detach() for x in layers},
        train=data,
        damping=1e-4,
        chunk=16,
        **given,  # type: ignore[arg-type]
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def samples(n: int = 50, seed: int = 1) -> CalibrationSet:
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return CalibrationSet.collect([x], torch.device("cpu"))


def rows(data: CalibrationSet) -> torch.Tensor:
    return torch.cat([b.inputs for b in data.batches(1000)])


def test_damages_are_what_running_the_pruned_model_gives() -> None:
    model, data, held = network(), samples(), samples(30, 2)
    p = pruning(model, data)
    teacher = with_dense_targets(model, p.dense, held, 16)
    losses, errors = loss_damages(p, teacher, divergence), layer_error_damages(p, held)
    x = rows(held)
    with torch.no_grad():
        dense = model(x)
    for name, layer in (("0", model[0]), ("2", model[2])):
        w = layer.weight.detach().clone()
        inputs = x if name == "0" else model[1](model[0](x))
        full = inputs.detach() @ w.T
        for i, count in enumerate(p.counts[name]):
            cut = w.abs().reshape(-1).sort(descending=True).values[count - 1]
            with torch.no_grad():
                layer.weight.copy_(torch.where(w.abs() >= cut, w, 0.0))
                kl = divergence(model(x), dense)
                off = (inputs @ layer.weight.T - full).square().sum() / full.square().sum()
                layer.weight.copy_(w)
            assert losses[name][i] == pytest.approx(float(kl), abs=1e-6)
            assert errors[name][i] == pytest.approx(float(off), rel=1e-4, abs=1e-9)
        assert errors[name][-1] == 0.0
        assert losses[name][-1] == pytest.approx(0.0, abs=1e-6)


def test_a_refit_lowers_the_error_and_rows_can_be_held() -> None:
    model, data = network(), samples()
    masked = layer_error_damages(pruning(model, data), None)
    fitted = layer_error_damages(pruning(model, data, refit=True), None)
    for name in masked:
        assert (fitted[name] <= masked[name] + 1e-12).all()
        assert fitted[name][0] < masked[name][0]
    by_row = pruning(model, data, by_row=True, counts={"0": [16], "2": [8]})
    for layer in by_row.layers:
        (values,) = by_row.levels(layer, None)
        assert (values != 0).sum(1).tolist() == [2] * layer.rows


def test_some_rows_stand_for_all() -> None:
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(8, 400), nn.ReLU(), nn.Linear(400, 4)), samples()
    p = pruning(model, data, refit=True, counts={"0": [320, 800], "2": [160, 400]})
    whole, some = layer_error_damages(p, None), layer_error_damages(p, None, 200)
    assert some["0"] == pytest.approx(whole["0"], rel=0.2)
    assert not np.array_equal(some["0"], whole["0"])
    assert np.array_equal(some["2"], whole["2"])  # it has only 4 rows
    again = layer_error_damages(p, None, 200)
    other = layer_error_damages(p, None, 200, np.random.SeedSequence(1))
    assert np.array_equal(some["0"], again["0"])
    assert not np.array_equal(some["0"], other["0"])


def test_nothing_is_written_and_samples_may_be_of_any_shape() -> None:
    model = network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batches = [torch.randn(n, 5 + n, 8) for n in (2, 3)]
    data = CalibrationSet.collect(batches, torch.device("cpu"))
    p = pruning(model, data, refit=True)
    found = loss_damages(p, with_dense_targets(model, p.dense, data, 16), divergence)
    assert all(np.isfinite(v).all() for v in found.values())
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_dead_layer_does_no_damage() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1.0)  # behind the ReLU nothing arrives
    for refit in (False, True):
        errors = layer_error_damages(pruning(model, samples(), refit=refit), None)
        assert errors["0"].tolist() == [0.0] * 3
        assert errors["2"].tolist() == [0.0] * 3


def test_kl_of_a_single_output_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 1))
    with pytest.raises(CalibrationError, match=r"shape \(16, 1\); set prune.loss"):
        with_dense_targets(model, {}, samples(), 16)


def test_a_loss_with_targets() -> None:
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    x = rows(samples())
    with torch.no_grad():
        data = CalibrationSet.collect([(x, model(x))], torch.device("cpu"))
    found = loss_damages(pruning(model, data, counts={"0": [4, 8]}), data, mean_squared)
    relative = layer_error_damages(pruning(model, data, counts={"0": [4, 8]}), None)
    with torch.no_grad():
        energy = float(model(x).square().mean())
    assert found["0"] == pytest.approx(relative["0"] * energy, rel=1e-4, abs=1e-9)
