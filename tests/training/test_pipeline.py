"""Every rule, by itself and with the engine in its place, from one config; and interruptions."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from optiprune.config import ConfigError, validate
from optiprune.training import TrainingConfig, TrainingError, prune_in_training, train
from optiprune.training import pipeline as pipeline_module

from .conftest import make_net, make_stripes

DATA = make_stripes(400, 0)
TEST = make_stripes(400, 1)
FEATURES = {"stem": "stem", "hidden": "hidden"}


def accuracy(model: nn.Module) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {"accuracy": float((model(TEST[0]).argmax(1) == TEST[1]).float().mean())}


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, [DATA], optimizer, epochs=10, batch_size=50)
    return net.eval()


def config(**tables) -> TrainingConfig:
    adam = {"name": "Adam", "lr": 3e-3}
    loop = {"batch_size": 50, "optimizer": adam}
    base = {"train": {**loop, "epochs": 1}, "finetune": {**loop, "epochs": 2}, "per_class": 40}
    return validate(TrainingConfig, {**base, **tables})


CASES = [
    ("average-weight", "units", {"parameters": 0.6}, {}),
    ("features", "units", {"macs": 0.7}, {"distillation": {"features": FEATURES}}),
    ("features", "weights", {"sparsity": 0.5}, {"distillation": {"features": FEATURES}}),
    ("sensitivity", "units", {}, {"sensitivity": {"tolerance": 0.05}}),
    ("sensitivity", "weights", {"sparsity": 0.4}, {"sensitivity": {"tolerance": 0.5}}),
    ("learning-weight", "units", {}, {"learning_weight": {"tolerance": 0.1, "lower_limit": 0.1}}),
    ("behaviour", "units", {}, {"sensitivity": {"tolerance": 0.1}}),
]


@pytest.mark.slow
@pytest.mark.parametrize("decide", ["rule", "engine"])
@pytest.mark.parametrize(("rule", "of", "budget", "more"), CASES)
def test_every_rule(learnt, rule, of, budget, more, decide) -> None:
    before = copy.deepcopy(learnt.state_dict())
    options: dict = {}
    if decide == "engine":
        fast = {"preset": "fast", "config": {"batches": {"steps": 6}}}
        options = {"engine": fast if of == "weights" else {"multiple": 1}}
        if rule in ("sensitivity", "behaviour") and of == "units":
            options = {}
    choice = {"rule": rule, "of": of, "decide": decide, **options}
    result = prune_in_training(
        learnt, [DATA], config(choice=choice, budget=budget, **more), evaluate=accuracy
    )
    assert all(torch.equal(v, before[k]) for k, v in learnt.state_dict().items())
    assert [p.name for p in result.phases] == ["train", "choose", "finetune"]
    assert len(result.phases[2].losses) == 2
    assert result.left < 1
    if "sparsity" in budget:
        assert result.left <= 1 - budget["sparsity"] + (0.2 if rule == "sensitivity" else 0.01)
        assert result.masks is not None
        for name, mask in result.masks.items():  # fine-tuning kept them
            assert not dict(result.model.named_parameters())[name].detach()[~mask].any()
    else:
        assert result.plans
        assert result.parameters[1] < result.parameters[0]
        assert result.macs[1] <= budget.get("macs", 1.0) * result.macs[0]
    assert result.phases[2].scores["accuracy"] > 0.6
    assert accuracy(result.model) == result.phases[2].scores


def test_training_between_sessions(learnt) -> None:
    table = {"tolerance": 0.1, "lower_limit": 0.1, "sessions": 3, "retrain_epochs": 2}
    whole = config(choice={"rule": "learning-weight"}, learning_weight=table)
    result = prune_in_training(learnt, [DATA], whole, evaluate=accuracy)
    assert len(result.plans) >= 2  # what training made up for was spent again
    assert result.model.training is False
    alone = config(
        choice={"rule": "learning-weight"}, learning_weight={**table, "retrain_epochs": 0}
    )
    without = prune_in_training(learnt, [DATA], alone)
    assert result.left < without.left


def test_torque_distillation_and_synthetic_samples_together(learnt) -> None:
    class Untouched:
        """Calibration data that no one may read."""

        def __iter__(self):
            raise AssertionError("data were read")

    whole = config(
        torque={"strength": 0.01, "profile": "exponential"},
        distillation={"phases": ["train", "finetune"], "features": FEATURES},
        choice={"rule": "behaviour"},
        synthetic={"shape": [1, 8, 8], "samples": 64, "steps": 20, "batch": 32},
        sensitivity={"tolerance": 0.2},
    )
    result = prune_in_training(learnt, [DATA], whole, calibration="synthetic", evaluate=accuracy)
    assert result.concentration is not None
    assert result.left < 1
    assert not any(m._forward_hooks for m in (*result.model.modules(), *learnt.modules()))
    with pytest.raises(AssertionError, match="data were read"):
        prune_in_training(learnt, [DATA], whole, calibration=Untouched())
    bare = config(choice={"rule": "behaviour"})
    with pytest.raises(TrainingError, match=r"synthetic\.shape"):
        prune_in_training(learnt, [DATA], bare, calibration="synthetic")


@pytest.mark.parametrize(
    ("tables", "calibration", "message"),
    [
        ({}, "other", "calibration = 'other'"),
        ({"synthetic": {"shape": [1, 8, 8], "low": 1.0, "high": 0.0}}, "synthetic", "low = 1.0"),
        (
            {"learning_weight": {"initial": 0.1, "lower_limit": 0.2}},
            None,
            "lower_limit = 0.2",
        ),
        (
            {"distillation": {"phases": ["train"], "features": {"nowhere": "stem"}}},
            None,
            "no module 'nowhere'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    learnt, monkeypatch, tables, calibration, message
) -> None:
    def never(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(pipeline_module, "train", never)
    whole = config(choice={"rule": "learning-weight"}, **tables)
    with pytest.raises(TrainingError, match=message):
        prune_in_training(learnt, [DATA], whole, calibration=calibration)


def test_a_teacher_needs_a_loop() -> None:
    with pytest.raises(ConfigError, match="a loop without epochs"):
        config(
            train={"epochs": 0},
            choice={"rule": "sensitivity"},
            distillation={"phases": ["train"]},
        )


@pytest.mark.parametrize("of", ["units", "weights"])
@pytest.mark.parametrize("at", ["train", "choose", "finetune"])
def test_a_run_goes_on_where_it_was_interrupted(
    learnt, tmp_path: Path, monkeypatch, of, at
) -> None:
    budget = {"parameters": 0.6} if of == "units" else {"sparsity": 0.5}
    whole = config(
        choice={"rule": "features", "of": of},
        budget=budget,
        distillation={"phases": ["train", "finetune"], "features": FEATURES},
    )
    want = prune_in_training(learnt, [DATA], whole)
    folder = tmp_path / "run"

    class KilledError(Exception):
        pass

    if at == "choose":
        monkeypatch.setattr(pipeline_module, "choose", _raise(KilledError))
    else:
        seen = {"saves": 0}
        from optiprune.training.loops import loop

        real = loop.save_checkpoint

        def save(path: Path, *args) -> None:
            real(path, *args)
            seen["saves"] += path.name == f"{at}.ckpt"
            if seen["saves"]:
                raise KilledError

        monkeypatch.setattr(loop, "save_checkpoint", save)
    with pytest.raises(KilledError):
        prune_in_training(learnt, [DATA], whole, folder=folder)
    monkeypatch.undo()
    if at == "finetune":  # nothing is chosen again
        monkeypatch.setattr(pipeline_module, "choose", _raise(KilledError))
    got = prune_in_training(learnt, [DATA], whole, folder=folder)
    for a, b in zip(want.model.state_dict().values(), got.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert got.left == want.left
    assert got.macs == want.macs
    other = whole.model_copy(update={"seed": 1})
    with pytest.raises(TrainingError, match="another run"):
        prune_in_training(learnt, [DATA], other, folder=folder)


def _raise(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"choice": {"rule": "average-weight"}}, "needs a budget: macs, memory, parameters"),
        ({"choice": {"of": "weights"}, "budget": {"sparsity": 0.5}}, "is not for choice.rule"),
        ({"budget": {"latency": 0.5}}, "budget.latency is not for"),
        ({"choice": {"rule": "learning-weight"}, "budget": {"macs": 0.5}}, "budget.macs is not"),
        ({"choice": {"rule": "features"}, "budget": {"macs": 0.5}}, "needs distillation.features"),
        ({"choice": {"engine": {"levels": 3}}, "budget": {"macs": 0.5}}, "choice.engine has"),
        ({"choice": {"rule": "sensitivity", "refit": True}}, "choice.refit is not for"),
        ({"finetune": {"epochs": -1}}, "finetune.epochs"),
        ({"tork": {}}, "unknown key 'tork'; did you mean 'torque'"),
    ],
)
def test_configs_that_are_refused(tables, words) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        validate(TrainingConfig, tables)


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        ({"optimizer": {"name": "SDG", "lr": 1.0}}, "optimizer.name = 'SDG': there are"),
        ({"optimizer": {"name": "SGD", "rate": 1.0}}, "SGD has no option 'rate'; it has lr"),
        ({"optimizer": {"name": "SGD", "lr": -1.0}}, "Invalid learning rate"),
        ({"scheduler": {"name": "Cosine"}}, "scheduler.name = 'Cosine'"),
        ({"scheduler": {"name": "StepLR", "gama": 2}}, "no option 'gama'"),
        ({"optimizer": {"name": "LBFGS"}}, "LBFGS needs a closure"),
    ],
)
def test_loops_that_are_refused_before_any_of_them_runs(learnt, loop, words, monkeypatch) -> None:
    monkeypatch.setattr(pipeline_module, "train", _raise(AssertionError("a loop was run")))
    whole = config(finetune={"epochs": 1, **loop}, budget={"parameters": 0.8})
    with pytest.raises(TrainingError, match=words.replace(".", r"\.")):
        prune_in_training(learnt, [DATA], whole)


def test_options_of_the_engine_are_looked_at_before_any_loop_runs(learnt, monkeypatch) -> None:
    monkeypatch.setattr(pipeline_module, "train", _raise(AssertionError("a loop was run")))
    choice = {"rule": "learning-weight", "decide": "engine", "engine": {"levles": 3}}
    with pytest.raises(TrainingError, match="no option 'levles'; there are multiple"):
        prune_in_training(learnt, [DATA], config(choice=choice))
