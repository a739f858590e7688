"""The least sensitive layer goes first, and the floor is never breached."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from optiprune.training import (
    SensitivityOptions,
    TrainingError,
    prune_sensitive_units,
    prune_sensitive_weights,
)
from optiprune.training.rules.pruning_set import pruning_set
from optiprune.training.rules.sensitivity import search_rates

from .conftest import make_stripes

FAST = {"preset": "fast", "config": {"curvature": {"samples": 60}, "batches": {"steps": 6}}}


class Table:
    """Layers whose accuracy falls by known amounts; half of each layer is left at rate 0.5."""

    def __init__(self, falls: dict[str, list[float]]) -> None:
        self.falls = falls
        self.names = list(falls)

    def pruned(self, rates):
        return {n: round(10 * r) for n, r in rates.items()}

    def accuracy(self, tenths) -> float:
        return 1.0 - sum(self.falls[n][t] for n, t in tenths.items())

    def left(self, rates) -> float:
        return 1.0 - sum(rates.values()) / len(rates)


def test_the_search_by_hand() -> None:
    table = Table(
        {
            "hard": [0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.3, 0.4, 0.5],
            "easy": [0, 0.00, 0.00, 0.01, 0.02, 0.05, 0.2, 0.3, 0.4, 0.5],
        }
    )
    rates, now, steps = search_rates(table, table.accuracy, floor=0.9, step=0.1)
    # "easy" first, until its half of the 0.1 is used up; then "hard" with what is left
    tried = [(s.layer, round(s.rate, 1), s.kept) for s in steps]
    assert tried[:6] == [("easy", r / 10, r < 6) for r in (1, 2, 3, 4, 5, 6)]
    assert tried[6:] == [("hard", 0.1, True), ("hard", 0.2, True), ("hard", 0.3, False)]
    assert rates == {"hard": pytest.approx(0.2), "easy": pytest.approx(0.5)}
    assert now == pytest.approx(0.91)
    # a set amount for each layer, rates that may not rise further, a share that is enough
    rates, _, _ = search_rates(table, table.accuracy, floor=0.0, layer_drop=0.015)
    assert rates == {"hard": 0.0, "easy": pytest.approx(0.3)}
    rates, _, _ = search_rates(table, table.accuracy, floor=0.0, layer_drop=1.0, max_rate=0.25)
    assert rates == {"hard": 0.25, "easy": 0.25}
    rates, _, _ = search_rates(table, table.accuracy, floor=0.9, target=0.9)
    assert rates == {"hard": 0.0, "easy": pytest.approx(0.2)}
    # the last step goes no further than the target
    rates, _, _ = search_rates(table, table.accuracy, floor=0.0, target=0.87)
    assert rates == {"hard": 0.0, "easy": pytest.approx(0.26, abs=1e-3)}


def random_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    widths = [int(w) for w in rng.integers(4, 24, int(rng.integers(1, 4)))]
    if seed % 2:
        layers: list[nn.Module] = []
        channels = 1
        for w in widths:
            layers += [nn.Conv2d(channels, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU()]
            channels = w
        model = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 5)
        )
        x = torch.randn(60, 1, 6, 6)
    else:
        layers, size = [], 10
        for w in widths:
            layers += [nn.Linear(size, w), nn.ReLU()]
            size = w
        model, x = nn.Sequential(*layers, nn.Linear(size, 5)), torch.randn(60, 10)
    for p in model.parameters():
        p.data.mul_(float(rng.uniform(0.5, 3)))
    return model.eval(), x


@pytest.mark.parametrize("seed", range(20))
def test_the_floor_is_never_breached(seed: int) -> None:
    model, x = random_network(seed)
    tolerance = [0.0, 0.02, 0.1, 0.3][seed % 4]
    options = SensitivityOptions(tolerance=tolerance, step=0.15, per_class=40, seed=seed)
    state = copy.deepcopy(model.state_dict())
    kind = prune_sensitive_weights if seed % 3 else prune_sensitive_units
    result = kind(model, [x], options=options)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    if result.masks is not None:
        pruned = copy.deepcopy(model)
        result.masks.apply(pruned)
    else:
        pruned = result.shrunk.model
    measured = pruning_set(model, [x], per_class=40, seed=seed).accuracy(pruned)
    assert measured == pytest.approx(result.accuracy_after, abs=1 / 60 + 1e-9)
    assert measured >= result.floor - 1e-9
    assert result.floor == pytest.approx(result.accuracy_before - tolerance)
    kept = [s for s in result.steps if s.kept]
    assert all(s.accuracy >= result.floor for s in kept)


@pytest.mark.slow
def test_the_engine_in_the_same_numbers(learnt) -> None:
    data = [make_stripes(300, 3)]
    options = SensitivityOptions(tolerance=0.03)
    rule = prune_sensitive_weights(learnt, data, options=options)
    assert rule.left < 0.9
    engine = prune_sensitive_weights(learnt, data, options=options, decide="engine", engine=FAST)
    assert engine.rates == rule.rates
    assert engine.left == pytest.approx(rule.left, abs=2e-3)
    assert engine.accuracy_after >= engine.floor
    assert engine.decided_by == "engine"
    assert any(not torch.equal(engine.masks[k], rule.masks[k]) for k in rule.masks)
    units = prune_sensitive_units(learnt, data, options=options)
    by_engine = prune_sensitive_units(learnt, data, options=options, decide="engine")
    assert units.shrunk.parameters_after < units.shrunk.parameters_before
    assert by_engine.shrunk.parameters_after == units.shrunk.parameters_after
    assert by_engine.accuracy_after >= by_engine.floor
    assert by_engine.decided_by == "engine"


@pytest.mark.slow
def test_an_answer_of_the_engine_below_the_floor_is_not_taken(learnt) -> None:
    data = [make_stripes(300, 3)]
    calls = []

    def evaluate(model: nn.Module) -> float:
        calls.append(model)
        # the engine's copy is none of the objects that were seen before
        return 1.0 if len({id(m) for m in calls}) <= 2 else 0.0

    result = prune_sensitive_weights(
        learnt,
        data,
        evaluate=evaluate,
        options=SensitivityOptions(max_rate=0.3),
        decide="engine",
        engine=FAST,
    )
    assert result.decided_by == "rule"
    assert result.accuracy_after == 1.0


def test_what_is_refused(learnt) -> None:
    data = [make_stripes(60, 3)]
    for bad in ({"step": 0.0}, {"tolerance": -1.0}, {"target": 2.0}, {"max_rate": 1.0}):
        (name,) = bad
        with pytest.raises(TrainingError, match=f"{name} = "):
            SensitivityOptions(**bad)
    with pytest.raises(TrainingError, match="not the floor of"):
        prune_sensitive_weights(learnt, data, options=SensitivityOptions(floor=1.1))
    with pytest.raises(TrainingError, match="there are rule and engine"):
        prune_sensitive_units(learnt, data, decide="me")
    with pytest.raises(TrainingError, match="options of the engine"):
        prune_sensitive_units(learnt, data, engine={"levels": 3})
    for prune, name in ((prune_sensitive_units, "macs"), (prune_sensitive_weights, "sparsity")):
        with pytest.raises(TrainingError, match=f"'{name}' is set by the rule"):
            prune(learnt, data, decide="engine", engine={name: 0.5})


def test_data_that_can_be_read_once_and_measures_of_ones_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.randn(40, 6)
    once = (batch for batch in x.split(10))
    options = SensitivityOptions(tolerance=0.3)
    result = prune_sensitive_units(model, once, options=options, decide="engine")
    assert result.left < 1
    # targets that are no classes, and outputs that are none
    pictures = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    images = torch.randn(8, 1, 6, 6)
    first = pictures(images).detach()

    def near(m: nn.Module) -> float:
        with torch.no_grad():
            return 1.0 - float((m(images) - first).square().mean() / first.square().mean())

    for data in ([images], [(images, torch.zeros(8, 6, 6, dtype=torch.long))]):
        loose = SensitivityOptions(tolerance=0.95)
        found = prune_sensitive_units(pictures, data, options=loose, evaluate=near)
        assert found.accuracy_after >= 0.05
        assert found.left < 1
