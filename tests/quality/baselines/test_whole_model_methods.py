"""What every whole-model baseline promises, on small networks of several kinds."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.quality.baselines.chita import Chita
from benchmarks.quality.baselines.flat import FlatWeights, falling_counts, keep_largest
from benchmarks.quality.baselines.global_magnitude import GlobalMagnitude
from benchmarks.quality.baselines.icbs import ICBS
from benchmarks.quality.baselines.loss_gradients import loss_gradients, require_room
from benchmarks.quality.baselines.model_method import ModelMethod
from benchmarks.quality.baselines.refitted import Refitted, refit_layers
from benchmarks.quality.baselines.whole_model import MODEL_METHODS, model_methods
from benchmarks.quality.baselines.woodfisher import WoodFisher
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.gram import collect_grams
from optiprune.curvature.losses import LossFunction, cross_entropy, divergence

CPU = torch.device("cpu")
SMALL: list[ModelMethod] = [
    GlobalMagnitude(),
    Chita(stages=3, samples=60),
    WoodFisher(stages=3, samples=60, block=50, damping=1e-3),
    ICBS(block=16, epochs=1, steps=6, samples=60),
    Refitted(GlobalMagnitude()),
    Refitted(Chita(stages=2, samples=60)),
]


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "linear":
            return nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 3)).train()
        return nn.Sequential(
            nn.Unflatten(1, (1, 3, 3)),
            nn.Conv2d(1, 4, 2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ).eval()


def samples(*, labels: bool = True) -> CalibrationSet:
    generator = torch.Generator().manual_seed(2)
    # correlated, so that weights can stand in for one another
    x = torch.randn(90, 4, generator=generator) @ torch.randn(4, 9, generator=generator)
    x += 0.1 * torch.randn(90, 9, generator=generator)
    y = torch.randint(0, 3, (90,), generator=generator)
    return CalibrationSet.collect([(x, y)] if labels else [x], torch.device("cpu"))


def run(
    method: ModelMethod,
    model: nn.Module,
    data: CalibrationSet,
    *,
    density: float = 0.3,
    loss: LossFunction = cross_entropy,
    seed: int = 0,
    seconds: float | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return method.prune(
        model,
        find_layers(model),
        data,
        density=density,
        loss=loss,
        seed=np.random.SeedSequence(seed),
        seconds=seconds,
    )


@pytest.mark.parametrize("method", SMALL, ids=lambda m: m.name)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_promises(method: ModelMethod, kind: str):
    model, data = network(kind), samples()
    before, training = copy.deepcopy(model.state_dict()), model.training
    masks, values = run(method, model, data)
    again = run(method, model, data)
    assert model.training == training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    layers = find_layers(model)
    total = sum(layer.numel for layer in layers)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.3 * total)
    named = dict(model.named_parameters())
    moved = False
    for layer in layers:
        mask, value, dense = (t[layer.parameter] for t in (masks, values, named))
        assert mask.dtype == torch.bool
        assert mask.shape == value.shape == dense.shape
        assert value.dtype == dense.dtype
        assert bool(torch.isfinite(value).all())
        assert bool((value[~mask] == 0).all())
        moved |= not torch.equal(value[mask], dense[mask])
        assert torch.equal(mask, again[0][layer.parameter])
        assert torch.equal(value, again[1][layer.parameter])
    assert moved == method.moves_weights
    assert method.reference


@pytest.mark.parametrize("method", SMALL, ids=lambda m: m.name)
def test_without_labels_the_models_own_outputs_serve(method: ModelMethod):
    model = network("linear")
    masks, values = run(method, model, samples(labels=False), loss=divergence)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.3 * (9 * 12 + 36))
    assert all(bool(torch.isfinite(v).all()) for v in values.values())


@pytest.mark.parametrize("method", SMALL, ids=lambda m: m.name)
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything(method: ModelMethod, density: float):
    model = network("linear")
    masks, values = run(method, model, samples(), density=density)
    assert all(bool((m == (density == 1.0)).all()) for m in masks.values())
    if density == 0.0:
        assert all(bool((v == 0).all()) for v in values.values())


@pytest.mark.parametrize("method", SMALL[:4], ids=lambda m: m.name)
def test_no_time_still_gives_the_density(method: ModelMethod):
    masks, _ = run(method, network("linear"), samples(), seconds=1e-9)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.3 * (9 * 12 + 36))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (GlobalMagnitude(), {"density": 1.5}, "density must be between 0 and 1, got 1.5"),
        (GlobalMagnitude(), {"density": float("nan")}, "density"),
        (GlobalMagnitude(), {"seconds": 0.0}, "seconds must be above 0"),
        (Chita(ridge=0.0), {}, "ridge must be a finite number above 0, got 0.0"),
        (Chita(first_order=-1.0), {}, "first_order"),
        (Chita(stages=0), {}, "stages must be at least 1, got 0"),
        (WoodFisher(damping=float("inf")), {}, "damping"),
        (WoodFisher(block=0), {}, "block must be at least 1"),
        (ICBS(frozen_kept=1.0), {}, "frozen_kept"),
        (ICBS(block=1), {}, "block must be at least 2"),
        (ICBS(ridge=-1.0), {}, "ridge"),
    ],
)
def test_bad_arguments_are_refused(method: ModelMethod, arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        run(method, network("linear"), samples(), **arguments)


def test_gradients_that_do_not_fit_are_refused_before_any_work():
    with pytest.raises(ValueError, match=r"500 samples for 106000000 weights need 197.4 GiB"):
        require_room(106_000_000, CalibrationSet.collect([torch.zeros(800, 1)], CPU), 500)
    require_room(106_000_000, CalibrationSet.collect([torch.zeros(20, 1)], CPU), 500)


def test_no_layers():
    with pytest.raises(ValueError, match="layers is empty"):
        GlobalMagnitude().prune(
            network("linear"),
            [],
            samples(),
            density=0.5,
            loss=cross_entropy,
            seed=np.random.SeedSequence(0),
        )


def test_gradients_are_those_of_autograd_one_sample_at_a_time():
    model, data = network("conv"), samples()
    flat = FlatWeights.of(model, find_layers(model))
    got = loss_gradients(
        model, flat, flat.dense, data, cross_entropy, np.random.SeedSequence(0), samples=1000
    )
    (batch,) = data.batches(1000)
    named = dict(model.named_parameters())
    weights = [named[layer.parameter] for layer in flat.layers]
    expected = []
    for i in range(data.n):
        loss = cross_entropy(model(batch.inputs[i : i + 1]), batch.targets[i : i + 1])
        grads = torch.autograd.grad(loss, weights)
        expected.append(torch.cat([g.flatten() for g in grads]))
    columns = torch.stack(expected, 1)
    torch.testing.assert_close(got.columns, columns, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.mean, columns.mean(1), rtol=1e-4, atol=1e-6)


def test_without_labels_the_gradient_vanishes_at_the_dense_point_but_not_the_fisher():
    model, data = network("linear"), samples(labels=False)
    flat = FlatWeights.of(model, find_layers(model))
    got = loss_gradients(
        model, flat, flat.dense, data, divergence, np.random.SeedSequence(0), samples=50
    )
    assert got.n == 50
    assert float(got.mean.abs().max()) < 1e-6
    assert float(got.columns.abs().max()) > 1e-2


def test_refit_leaves_no_row_further_from_the_dense_outputs():
    model, data = network("linear"), samples()
    layers = find_layers(model)
    masks, values = run(GlobalMagnitude(), model, data)
    refitted = refit_layers(model, layers, masks, values, data)
    named = dict(model.named_parameters())
    dense = {la.parameter: named[la.parameter].detach() for la in layers}
    # the inputs of the second layer are those that the refitted first one gives
    for layer in layers:
        gram = collect_grams(model, [layer], dense, refitted, data)[layer.name]
        rows = dense[layer.parameter].double()

        def error(w: Tensor, gram: Any = gram, rows: Tensor = rows) -> Tensor:
            w = w.double()
            inner = w @ gram.H[0] - 2.0 * gram.cross(rows)
            return (inner * w).sum(1) + gram.target_energy(rows)

        before, after = error(values[layer.parameter]), error(refitted[layer.parameter])
        assert bool((after <= before + 1e-6).all())
        assert float(after.sum()) < 0.9 * float(before.sum())


def test_counts_fall_geometrically_to_the_last():
    assert falling_counts(1000, 10, 2) == [100, 10]
    assert falling_counts(1000, 1000, 3) == [1000, 1000, 1000]
    assert falling_counts(9, 0, 3) == [6, 3, 0]
    assert keep_largest(torch.tensor([1.0, 2.0, 2.0, 2.0]), 2).tolist() == [0, 1, 1, 0]


def test_registry():
    assert set(MODEL_METHODS) == {"global-magnitude", "chita", "chita-multi", "woodfisher", "icbs"}
    for name, method in MODEL_METHODS.items():
        assert method.name == name
        assert method.reference
    assert Refitted(MODEL_METHODS["icbs"]).name == "icbs+refit"
    with pytest.raises(ValueError, match="two methods are called 'icbs'"):
        model_methods(ICBS(), replace(ICBS(), epochs=1))
