"""Presets: what they hold, and that everything else wins over them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune import optimize_masks
from optiprune.config import PRESETS, Config, ConfigError, resolved


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_of_a_preset_exists_and_holds(name):
    config = Config.from_table({"preset": name})
    for section, options in PRESETS[name].items():
        for key, value in options.items():
            assert getattr(getattr(config, section), key) == value


def test_balanced_is_what_no_preset_is():
    assert Config.from_table({"preset": "balanced"}) == Config()


def test_what_is_said_wins_over_the_preset():
    table = {"preset": "best", "tune": {"epochs": 3}}
    config = Config.from_table(table)
    assert config.tune.epochs == 3
    assert config.joint.rounds == PRESETS["best"]["joint"]["rounds"]
    assert table == {"preset": "best", "tune": {"epochs": 3}}  # nothing was written into it


def test_a_config_survives_a_change_and_refuses_another_preset():
    fast = Config.from_table({"preset": "fast"})
    changed = fast.replace(prune={"sparsity": 0.9})
    assert changed.joint == fast.joint
    assert changed.preset == "fast"
    assert fast.replace(preset="fast") == fast
    with pytest.raises(ConfigError, match="preset = 'best' cannot replace 'fast'"):
        fast.replace(preset="best")


@pytest.mark.parametrize("value", ["slow", 3, None])
def test_unknown_presets_are_refused(value):
    with pytest.raises(ConfigError, match="preset"):
        Config.from_table({"preset": value})


def test_optimize_masks_takes_one():
    def run(**arguments):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        return optimize_masks(model, [torch.randn(40, 6)], sparsity=0.5, **arguments)

    result = run(preset="fast")
    assert result.config.preset == "fast"
    assert result.report.tuning is None
    again = run(preset="fast", config={"tune": {"epochs": 1}})
    assert again.report.tuning is not None
    with pytest.raises(ConfigError, match="cannot replace"):
        run(preset="fast", config=Config())


@pytest.mark.parametrize(
    ("prune", "weights", "objective", "method"),
    [
        ({}, 1000, "reconstruction", "knapsack"),
        ({"scope": "layer"}, 1000, "reconstruction", "uniform"),
        ({"pattern": "2:4"}, 1000, "reconstruction", "uniform"),
        ({"refit": False}, 1000, "global", "uniform"),
        ({"refit": False}, 10**8, "reconstruction", "knapsack"),
        ({"refit": False, "pattern": "block:4"}, 1000, "reconstruction", "uniform"),
        ({"objective": "global"}, 10**8, "global", "uniform"),
    ],
)
def test_what_auto_stands_for(prune, weights, objective, method):
    config = resolved(Config.from_table({"prune": prune}), weights, 4)
    assert config.prune.objective == objective
    assert config.allocation.method == method


def test_curves_of_many_layers_are_measured_by_their_errors():
    assert resolved(Config(), 1000, 4).allocation.curve == "loss"
    assert resolved(Config(), 1000, 40).allocation.curve == "fisher"
    assert resolved(Config(), 1000, 40, own_loss=True).allocation.curve == "layer-error"
    assert resolved(Config(), 1000, 1).allocation.method == "uniform"


def test_masks_alone_without_labels_follow_the_dense_models_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    result = optimize_masks(
        model,
        [torch.randn(40, 6)],
        sparsity=0.5,
        refit=False,
        config={"batches": {"steps": 2, "size": 16}, "curvature": {"samples": 20}},
    )
    assert result.report.objective == "global"
    assert not result.masks.fitted
