"""Tuning after masks and refit: what stays, what is undone, and against the plain formula."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optiprune import optimize_masks
from optiprune.config import TuneOptions
from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.curvature.losses import resolve_loss
from optiprune.engine.tuning import Tuner

CPU = torch.device("cpu")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    ).eval()


def inputs(n, seed=1):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


def tuner_of(model, train, holdout=None, task=None, chunk=256, **options):
    layers = find_layers(model)
    dense = {layer.parameter: model.get_parameter(layer.parameter).detach() for layer in layers}
    return Tuner(
        model,
        layers,
        dense,
        train,
        holdout,
        TuneOptions(**{"learning_rate": 3e-3, "mix": 0.0, "batch": 32, **options}),
        task,
        chunk,
    )


def halved(dense):
    """Masks by magnitude, and the masked weights."""
    masks = {k: v.abs() >= v.abs().median() for k, v in dense.items()}
    return masks, {k: torch.where(masks[k], v, 0.0) for k, v in dense.items()}


def collected(*batches):
    return CalibrationSet.collect(list(batches), CPU)


def divergence_of(model, weights, x):
    with torch.no_grad():
        p = F.log_softmax(torch.func.functional_call(model, weights, (x,)), -1)
        q = F.log_softmax(model(x), -1)
    return float((q.exp() * (q - p)).sum(-1).mean())


def test_the_outputs_come_nearer_to_the_dense_models_and_the_mask_stays():
    model, x, fresh = network(), inputs(256), inputs(512, seed=2)
    before = copy.deepcopy(model.state_dict())
    held = collected(inputs(128, seed=3))
    tuner = tuner_of(model, collected(x), held, epochs=8, learning_rate=2e-2)
    masks, start = halved(tuner.dense)
    values, report = tuner.run(start, masks, np.random.SeedSequence(0))
    assert report.loss == "kl"
    assert report.before == pytest.approx(
        divergence_of(model, start, inputs(128, seed=3)), rel=1e-4
    )
    assert report.epochs[report.kept - 1] == min(report.epochs) < report.before
    assert divergence_of(model, values, fresh) < 0.6 * divergence_of(model, start, fresh)
    for name, mask in masks.items():
        assert torch.equal(values[name][~mask], torch.zeros(int((~mask).sum())))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_one_step_is_adams():
    """Adam's first step moves every weight with a gradient by the learning rate."""
    model, x = network(), inputs(32)
    tuner = tuner_of(model, collected(x), epochs=1, batch=32, learning_rate=1e-3)
    masks, start = halved(tuner.dense)
    values, _ = tuner.run(start, masks, np.random.SeedSequence(0))
    leaves = {k: v.clone().requires_grad_(True) for k, v in start.items()}
    out = torch.func.functional_call(model, leaves, (x,))
    F.kl_div(
        F.log_softmax(out, -1),
        F.log_softmax(model(x), -1).detach(),
        log_target=True,
        reduction="batchmean",
    ).backward()
    for name, w in start.items():
        g = torch.where(masks[name], leaves[name].grad, 0.0)
        scale = float(w.double().square().sum() / masks[name].sum()) ** 0.5
        step = 1e-3 * scale * g / (g.abs() + 1e-8)
        torch.testing.assert_close(values[name], w - step, rtol=0, atol=1e-3 * scale * 2e-3)


@pytest.mark.parametrize("cache", [0, 512])
@pytest.mark.parametrize("chunk", [5, 256])
def test_neither_chunks_nor_the_cache_change_what_is_learnt(cache, chunk):
    def tuned(**how):
        tuner = tuner_of(network(), collected(inputs(60)), epochs=3, batch=16, **how)
        masks, start = halved(tuner.dense)
        return tuner.run(start, masks, np.random.SeedSequence(4))[0]

    want, got = tuned(), tuned(cache_mib=cache, chunk=chunk)
    for name, v in want.items():
        torch.testing.assert_close(got[name], v, rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_values_and_another_seed_others():
    def tuned(seed):
        tuner = tuner_of(network(), collected(inputs(60)), epochs=2, batch=8)
        masks, start = halved(tuner.dense)
        return tuner.run(start, masks, np.random.SeedSequence(seed))[0]["0.weight"]

    assert torch.equal(tuned(1), tuned(1))
    assert not torch.equal(tuned(1), tuned(2))


def test_batches_of_unequal_lengths_are_taken_one_by_one():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(x).cumsum(1)

    g = torch.Generator().manual_seed(0)
    data = collected(*(torch.randn(2, n, 4, generator=g) for n in (3, 5, 4)))
    tuner = tuner_of(Reader(), data, epochs=3, batch=8, learning_rate=1e-2)
    masks, start = halved(tuner.dense)
    _, report = tuner.run(start, masks, np.random.SeedSequence(0))
    assert report.epochs[-1] < report.epochs[0]


def test_passes_that_raise_the_held_out_loss_are_undone():
    model = network()
    # no pruning: the start is the teacher itself, and any step can only go away from it
    tuner = tuner_of(model, collected(inputs(64)), collected(inputs(64, 2)), epochs=2)
    masks = {k: torch.ones_like(v, dtype=torch.bool) for k, v in tuner.dense.items()}
    masks = {k: m & (tuner.dense[k] != 0) for k, m in masks.items()}
    values, report = tuner.run(tuner.dense, masks, np.random.SeedSequence(0))
    assert report.kept == 0
    assert report.before == pytest.approx(0.0, abs=1e-6)
    assert all(torch.equal(v, tuner.dense[k]) for k, v in values.items())


def test_a_learning_rate_that_explodes_costs_nothing():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(x) ** 9

    model = Square()
    with torch.no_grad():
        model.fc.weight.mul_(3)
    for held in (None, collected(inputs(64, 2))):
        tuner = tuner_of(
            model, collected(inputs(64)), held, epochs=4, learning_rate=1e9, loss="mse"
        )
        masks, start = halved(tuner.dense)
        values, report = tuner.run(start, masks, np.random.SeedSequence(0))
        assert all(bool(torch.isfinite(v).all()) for v in values.values())
        if held is not None:
            assert report.kept == 0
            assert not math.isfinite(report.epochs[-1])


@pytest.mark.parametrize("held", [True, False])
def test_a_float_target_or_a_single_output_is_tuned_by_squared_error(held):
    model = nn.Linear(8, 1)
    data = collected((inputs(20), torch.zeros(20, 1))) if held else collected(inputs(20))
    assert tuner_of(model, data, epochs=1).loss()[0] == "mse"


def test_the_task_needs_targets():
    data = collected(inputs(20))
    with pytest.raises(CalibrationError, match="'task' needs batches"):
        tuner_of(network(), data, epochs=1, loss="task").loss()
    labelled = collected((inputs(20), torch.zeros(20, dtype=torch.long)))
    task = resolve_loss("cross_entropy", torch.zeros(1))
    name, loss = tuner_of(network(), labelled, task=task, epochs=1, loss="task").loss()
    assert (name, loss) == ("task", task)


class TestInARun:
    def test_the_model_gets_the_tuned_weights_and_the_report_says_so(self):
        def error(epochs):
            model, x = network(), [inputs(300)]
            dense = copy.deepcopy(model)
            tune = {"epochs": epochs, "learning_rate": 2e-2, "mix": 0.0}
            config = {"tune": tune, "prune": {"scope": "layer"}, "accept": {"holdout": 0.25}}
            result = optimize_masks(model, x, sparsity=0.7, config=config)
            fresh = inputs(400, seed=9)
            weights = {k: v.detach() for k, v in model.named_parameters()}
            return divergence_of(dense, weights, fresh), result

        (plain, without), (tuned, result) = error(0), error(20)
        assert without.report.tuning is None
        report = result.report.tuning
        assert report is not None
        assert report.kept > 0
        assert tuned < 0.8 * plain
        assert all(torch.equal(without.masks[name], result.masks[name]) for name in result.masks)
        assert result.report.as_dict()["tuning"]["epochs"] == report.epochs

    def test_with_labels_and_the_global_objective(self):
        model, x = network(), inputs(300)
        y = model(x).argmax(1)
        tune = {"epochs": 3, "loss": "task"}
        config = {"tune": tune, "batches": {"steps": 3}, "refit": {"steps": 0}}
        result = optimize_masks(model, [(x, y)], sparsity=0.6, objective="global", config=config)
        assert result.report.tuning is not None
        assert result.report.tuning.loss == "task"

    def test_the_model_as_it_was_is_back_after_a_revert(self):
        model = network()
        before = copy.deepcopy(model.state_dict())
        config = {"tune": {"epochs": 2}}
        result = optimize_masks(model, [inputs(100)], sparsity=0.5, config=config)
        assert result.applied is not None
        result.applied.revert()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_without_refit_no_weight_moves_and_a_note_says_so(self):
        model = network()
        dense = copy.deepcopy(model.state_dict())
        tune = {"epochs": 2}
        result = optimize_masks(model, [inputs(40)], refit=False, config={"tune": tune})
        assert any("tune.epochs" in note for note in result.report.notes)
        for name in result.masks:
            kept = result.masks[name]
            assert torch.equal(model.get_parameter(name).detach()[kept], dense[name][kept])

    def test_the_task_without_labels_is_refused_before_any_work(self):
        config = {"tune": {"epochs": 2, "loss": "task"}}
        with pytest.raises(CalibrationError, match="'task' needs batches"):
            optimize_masks(network(), [inputs(40)], config=config)
