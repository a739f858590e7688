"""Sessions of the learning weight: what stays, what is taken back, and where they end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from optiprune.shrinking import ShrinkingError
from optiprune.structure import find_structure
from optiprune.training import (
    LearningWeightOptions,
    TrainingError,
    prune_by_learning_weight,
)
from optiprune.training.units.unit_norms import UnitNorms

from .conftest import make_net, make_stripes


def ladder(sizes: list[float]) -> nn.Module:
    """Hidden units whose weights are all of one size each."""
    model = nn.Sequential(nn.Linear(4, len(sizes)), nn.ReLU(), nn.Linear(len(sizes), 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(sizes)[:, None].expand(-1, 4))
        model[0].bias.zero_()
    return model.eval()


def width(model: nn.Module) -> int:
    return model[0].out_features


def run(model: nn.Module, falls, **options):
    """``falls``: hidden width -> accuracy."""
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    retrain = options.pop("retrain", None)
    return prune_by_learning_weight(
        model,
        [x],
        options=LearningWeightOptions(**options),
        evaluate=lambda m: falls(width(m)),
        retrain=retrain,
    )


def test_quantiles_of_elements_by_hand() -> None:
    model = ladder([1.0, 2.0, 3.0])
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([0.0, -1.0, 2.0, 5.0])
    group = find_structure(model, (torch.randn(2, 4),)).groups[0]
    rms = float(model[0].weight.detach().double().square().mean().sqrt())
    norms = UnitNorms(model, group)
    np.testing.assert_allclose(norms.relative_quantiles(0.5) * rms, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(norms.relative_quantiles(0.75) * rms, [2.0, 2.0, 3.0])
    np.testing.assert_allclose(norms.relative_quantiles(1.0) * rms, [5.0, 2.0, 3.0])


def test_it_ends_at_the_largest_pruning_within_the_tolerance() -> None:
    """Accuracy falls by 0.1 for each unit below 7 of 12."""
    sizes = [1.0 + 0.1 * i for i in range(12)]
    result = run(ladder(sizes), lambda n: 0.9 - 0.1 * max(0, 7 - n), tolerance=0.25, minimum=0.0)
    assert width(result.model) == 5  # 0.7 of 0.9; four would be 0.6
    assert result.accuracy_after == pytest.approx(0.7)
    # the smallest have left
    removed = result.plans[0].removed["0"]
    assert len(result.plans) == 1
    assert removed == tuple(range(7))
    for step in result.steps:
        assert step.kept == (step.accuracy >= 0.9 - 0.25)


def test_the_learning_weight_follows_the_accuracy() -> None:
    sizes = [1.0 + 0.02 * i for i in range(40)]
    result = run(
        ladder(sizes),
        lambda n: 0.9 if n > 30 else 0.85 if n > 20 else 0.5,
        tolerance=0.1,
        initial=0.4,
        lower_limit=0.02,
        minimum=0.0,
    )
    first = [s for s in result.steps if s.session == 0 and s.weight >= 0.02]
    for before, after in pairwise(first):
        slack = 1 - (0.9 - before.accuracy) / 0.1
        factor = 0.5 if slack < 0 else min(max(slack, 0.5), 1.0)
        assert after.weight == pytest.approx(before.weight * factor)
    # a session that adds nothing is the last
    assert width(result.model) == 21
    sessions = {s.session for s in result.steps if s.kept}
    assert sessions == {0}
    assert max(s.session for s in result.steps) == 1


def test_training_between_sessions_opens_the_next() -> None:
    sizes = [1.0 + 0.1 * i for i in range(12)]
    trained: list[int] = []
    # each training makes up for what was lost: accuracy counts from the width that it began with
    base = [12]

    def retrain(model: nn.Module) -> None:
        trained.append(width(model))
        base[0] = width(model)

    result = run(
        ladder(sizes),
        lambda n: 0.9 - 0.1 * max(0, base[0] - 3 - n),
        tolerance=0.05,
        retrain=retrain,
        sessions=3,
        minimum=0.0,
    )
    assert trained == [9, 6, 3]
    assert width(result.model) == 3
    assert len(result.plans) == len(result.shrunk) == 3
    assert result.accuracy_after == pytest.approx(0.9)
    # training that loses what was kept is not taken
    base[0] = 12

    def spoil(model: nn.Module) -> None:
        base[0] = 100

    result = run(
        ladder(sizes), lambda n: 0.9 - 0.1 * max(0, base[0] - 3 - n), tolerance=0.05, retrain=spoil
    )
    assert width(result.model) == 12
    assert result.plans == ()
    assert result.left == 1.0


@pytest.mark.parametrize("decide", ["rule", "engine"])
def test_on_a_real_network(learnt, decide) -> None:
    data = [make_stripes(300, 3)]
    options = LearningWeightOptions(tolerance=0.05, sessions=2, lower_limit=0.05)
    engine = {"multiple": 1} if decide == "engine" else None
    result = prune_by_learning_weight(learnt, data, options=options, decide=decide, engine=engine)
    assert result.accuracy_after >= result.accuracy_before - 0.05
    assert result.left < 0.9
    assert sum(p.numel() for p in result.model.parameters()) == pytest.approx(
        result.left * sum(p.numel() for p in learnt.parameters())
    )
    enough = prune_by_learning_weight(
        learnt,
        data,
        options=LearningWeightOptions(tolerance=1.0, target=0.7, lower_limit=0.05),
        decide=decide,
        engine=engine,
    )
    assert 0.6 < enough.left <= 0.7  # no more left than that needs


def test_odd_inputs() -> None:
    flat = ladder([1.0] * 6)  # all equal: all or nothing by thresholds, then one by one
    result = run(flat, lambda n: 0.9 if n >= 4 else 0.0, tolerance=0.1)
    assert width(result.model) == 4
    none = run(flat, lambda n: 0.9 if n == 6 else 0.0, tolerance=0.1)
    assert width(none.model) == 6
    assert none.left == 1.0
    dead = ladder([0.0] * 6)
    assert width(run(dead, lambda n: 0.9, tolerance=0.1, minimum=0.0).model) == 1
    nan = run(flat, lambda n: 0.9 if n == 6 else float("nan"), tolerance=0.1)
    assert width(nan.model) == 6
    with pytest.raises(TrainingError, match="accuracy of the model as it is"):
        run(flat, lambda n: float("nan"))
    for bad in (
        {"tolerance": 0.0},
        {"initial": -1.0},
        {"lower_limit": 2.0},
        {"zero_rate": 0.0},
        {"sessions": 0},
        {"minimum": 2.0},
    ):
        (name,) = bad
        with pytest.raises(TrainingError, match=f"{name} = "):
            LearningWeightOptions(**bad)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [0.4, 0.7, 0.95, 1.0])
def test_orders_of_different_thresholds_are_never_mixed(seed, target) -> None:
    """Groups that lose together, and a minimum, hold whatever the target and the weights."""
    net = make_net(seed).eval()
    x, _ = make_stripes(40, seed)
    options = LearningWeightOptions(tolerance=1.0, target=target, minimum=0.4, initial=0.2)
    result = prune_by_learning_weight(net, [x], options=options)
    assert result.model is not net
    if target == 1.0:
        assert result.left == 1.0
    for group in find_structure(net, (x[:2],)).groups:
        gone = sum(len(p.removed.get(group.name, ())) for p in result.plans)
        assert group.size - gone >= 0.4 * group.size - 1e-9 or len(result.plans) > 1


def test_a_solver_that_does_not_exist_is_no_answer(learnt) -> None:
    with pytest.raises(ShrinkingError):
        prune_by_learning_weight(
            learnt,
            [make_stripes(60, 3)],
            decide="engine",
            engine={"width_solver": "nonesuch"},
        )
