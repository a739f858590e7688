"""Tuning of a block after its layers are pruned."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from optiprune import optimize_masks
from optiprune.engine.window_tuning import relative_error


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return x + self.second(torch.tanh(self.first(self.norm(x))))


def network(blocks=3, width=16):
    torch.manual_seed(0)
    return nn.Sequential(*(Block(width) for _ in range(blocks)), nn.Linear(width, 5))


def inputs(n, seed=1):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))


def pruned(epochs, data=None, **config):
    model = network()
    before = copy.deepcopy(model)
    window = {"epochs": epochs, "learning_rate": 0.02, "batch": 16}
    table = {"window": window, "tune": {"epochs": 0}, "prune": {"scope": "layer"}, **config}
    result = optimize_masks(
        model, data or [inputs(256)], sparsity=0.7, refit=True, config=table, progress=False
    )
    return before, model, result


def hidden_error(dense, model, x):
    """Mean relative error of the last block's output."""
    with torch.no_grad():
        return float(relative_error(model[:-1](x), dense[:-1](x)).mean())


def test_the_blocks_come_nearer_to_the_dense_ones_on_new_data():
    fresh = inputs(500, seed=9)
    dense, plain, without = pruned(0)
    _, tuned, result = pruned(8)
    assert hidden_error(dense, tuned, fresh) < 0.9 * hidden_error(dense, plain, fresh)
    assert without.report.windows == ()
    assert [w.block for w in result.report.windows] == ["0", "1", "2"]
    assert any(w.kept for w in result.report.windows)
    for window in result.report.windows:
        assert window.after <= window.before
    for name, mask in result.masks.items():
        assert not bool(tuned.get_parameter(name).detach()[~mask].any())


def test_nothing_but_the_blocks_kept_weights_moves():
    dense, model, _ = pruned(2)
    for name, parameter in model.named_parameters():
        if not name.endswith("weight") or "norm" in name:
            assert torch.equal(parameter, dense.get_parameter(name)), name
        assert parameter.grad is None


def test_it_is_seeded():
    first, second = pruned(2)[1], pruned(2)[1]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_tuning_that_runs_away_is_undone():
    dense, model, result = pruned(
        2, window={"epochs": 2, "learning_rate": 1e6}, accept={"holdout": 0.25}
    )
    assert [w.kept for w in result.report.windows] == [0, 0, 0]
    for a, b in zip(model.parameters(), pruned(0, accept={"holdout": 0.25})[1].parameters(),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)
    assert torch.isfinite(model(inputs(4))).all()
    assert dense is not model


def test_without_held_out_samples_the_last_pass_stays():
    _, _, result = pruned(3, accept={"holdout": 0.0})
    assert [w.kept for w in result.report.windows] == [3, 3, 3]


def test_single_layers_and_masks_alone_have_no_windows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    result = optimize_masks(
        model, [inputs(64)], sparsity=0.5, refit=True, config={"window": {"epochs": 2}}
    )
    assert result.report.windows == ()
    result = optimize_masks(
        network(),
        [inputs(64)],
        sparsity=0.5,
        refit=False,
        objective="reconstruction",
        config={"window": {"epochs": 2}},
    )
    assert result.report.windows == ()


@pytest.mark.parametrize("shape", [(6, 4), (6, 7, 4), (6, 3, 5, 5)])
def test_the_error_is_one_for_each_position(shape):
    target = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    count = int(np.prod(shape[:2])) if len(shape) == 3 else shape[0]
    error = relative_error(torch.zeros(shape), target)
    assert error.shape == (count,)
    torch.testing.assert_close(error, torch.ones(count), rtol=1e-4, atol=1e-4)
    assert not bool(relative_error(target, target).any())
    # a position a thousand times larger counts no more than another
    target[0] *= 1000
    assert float(relative_error(1.1 * target, target).max()) == pytest.approx(0.01, rel=1e-2)


def test_a_target_of_zeros_is_no_obstacle():
    error = relative_error(torch.ones(3, 4), torch.zeros(3, 4))
    assert bool(torch.isfinite(error).all()) or bool((error > 1e30).all())
