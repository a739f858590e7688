"""The loop: what it computes, what it refuses, and how it goes on after an interruption."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.training import Callback, Step, TrainingError, train


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


@pytest.fixture(scope="module")
def data() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(90, 6, generator=g)
    return [(x, (x[:, :3] + 0.1 * torch.randn(90, 3, generator=g)).argmax(1))]


def optimizer_of(model: nn.Module, kind: str = "adam") -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(model.parameters(), lr=0.01)
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


class Stopped(Exception):
    pass


class StopAt(Callback):
    """Fails at a step, as a process that is killed would."""

    def __init__(self, at: int) -> None:
        self.at = at

    @property
    def name(self) -> str:
        return "observer"

    def after_step(self, step: Step) -> None:
        if step.index == self.at:
            raise Stopped


class Counting(Callback):
    """A penalty that depends on what it remembers."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.count = model, 0.0

    def loss(self, step: Step) -> Tensor:
        return 1e-3 * self.count * sum(p.square().sum() for p in self.model.parameters())

    def after_step(self, step: Step) -> None:
        self.count += 0.5

    def state_dict(self) -> dict[str, float]:
        return {"count": self.count}

    def load_state_dict(self, state) -> None:
        self.count = state["count"]


def test_loss_falls_and_global_random_state_is_left_alone(data) -> None:
    model = net()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    report = train(model, data, optimizer_of(model), epochs=15, batch_size=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert report.losses[-1] < 0.6 * report.losses[0]
    assert report.steps == 15 * 6
    assert report.resumed_at == 0


def test_one_step_of_plain_descent_is_the_gradient(data) -> None:
    model = nn.Linear(6, 3)
    twin = copy.deepcopy(model)
    train(model, data, torch.optim.SGD(model.parameters(), lr=0.1), epochs=1, batch_size=90)
    F.cross_entropy(twin(data[0][0]), data[0][1]).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q.detach() - 0.1 * q.grad)


def test_same_seed_same_weights_other_seed_others(data) -> None:
    runs = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        model = net()
        torch.manual_seed(noise)
        train(model, data, optimizer_of(model), epochs=2, batch_size=16, seed=seed)
        runs.append(model)
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def schedulers(kind: str, optimizer: torch.optim.Optimizer):
    if kind == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24), "step"
    if kind == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=24), "step"
    if kind == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0), "epoch"
    if kind == "steps":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3]), "epoch"
    return None, "step"


@pytest.mark.parametrize("at", [0, 4, 5, 17, 22])
@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        ("adam", "none"),
        ("sgd", "cosine"),
        ("sgd", "one-cycle"),
        ("adam", "plateau"),
        ("sgd", "steps"),
    ],
)
def test_resumed_run_ends_with_the_same_weights(
    data, tmp_path: Path, at: int, kind: str, schedule: str
) -> None:
    def run(file: Path | None, stop: int, every: int | None = 2):
        model = net()
        optimizer = optimizer_of(model, kind)
        scheduler, when = schedulers(schedule, optimizer)
        report = train(
            model,
            data,
            optimizer,
            scheduler=scheduler,
            schedule=when,
            epochs=4,
            batch_size=16,
            callbacks=[StopAt(stop), Counting(model)],
            augment=lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g),
            clip_norm=1.0,
            checkpoint=file,
            checkpoint_steps=every,
            seed=7,
        )
        return model, report

    whole, report = run(None, -1)
    file = tmp_path / "run.ckpt"
    with pytest.raises(Stopped):
        run(file, at)
    again, resumed = run(file, -1)
    assert equal(whole, again)
    assert resumed.losses == report.losses
    assert resumed.resumed_at == (at // 2) * 2
    # an ended run gives its result at once
    ended, third = run(file, 0)
    assert equal(whole, ended)
    assert third.resumed_at == third.steps == 24


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    model = net()
    train(model, data, optimizer_of(model), epochs=1, checkpoint=file)
    for change, word in (({"seed": 1}, "seed"), ({"batch_size": 30}, "batch_size")):
        model = net()
        with pytest.raises(TrainingError, match=f"another run: {word}"):
            train(model, data, optimizer_of(model), **{"epochs": 1, "checkpoint": file, **change})
        assert equal(model, net())
    moved = net()
    with torch.no_grad():
        moved[0].bias[0] += 1.0
    with pytest.raises(TrainingError, match="weights at the start"):
        train(moved, data, optimizer_of(moved), epochs=1, checkpoint=file)
    file.write_bytes(b"no checkpoint")
    model = net()
    with pytest.raises(TrainingError, match="no training checkpoint"):
        train(model, data, optimizer_of(model), epochs=1, checkpoint=file)


def test_what_is_refused(data) -> None:
    model = net()
    optimizer = optimizer_of(model)
    for options, words in (
        ({"epochs": -1}, "epochs = -1"),
        ({"epochs": 1, "batch_size": 0}, "batch_size = 0"),
        ({"epochs": 1, "clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"epochs": 1, "checkpoint_steps": 0}, "checkpoint_steps = 0"),
        ({"epochs": 1, "schedule": "batch"}, "there are 'step' and 'epoch'"),
        ({"epochs": 1, "loss": None}, "nothing to train"),
        ({"epochs": 1, "callbacks": [StopAt(-1), StopAt(-1)]}, "one name"),
    ):
        with pytest.raises(TrainingError, match=words):
            train(model, data, optimizer, **options)
    with pytest.raises(TrainingError, match="none of the model's parameters"):
        train(model, data, optimizer_of(net()), epochs=1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(TrainingError, match="ReduceLROnPlateau needs"):
        train(model, data, optimizer, scheduler=plateau, epochs=1)

    class Own(Callback):
        scale = nn.Parameter(torch.ones(()))

        def parameters(self):
            return [self.scale]

    with pytest.raises(TrainingError, match="does not hold the parameters of Own"):
        train(model, data, optimizer, callbacks=[Own()], epochs=1)
    assert equal(model, net())


def test_a_loss_that_is_no_number_keeps_the_weights(data) -> None:
    model = net()

    class Bad(Callback):
        def loss(self, step: Step) -> Tensor | None:
            return torch.tensor(math.nan) if step.index == 3 else None

    seen = []

    class Last(Callback):
        def after_step(self, step: Step) -> None:
            seen.append([p.detach().clone() for p in model.parameters()])

    with pytest.raises(TrainingError, match="loss of step 3 is nan"):
        train(model, data, optimizer_of(model), epochs=1, batch_size=16, callbacks=[Bad(), Last()])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), seen[2], strict=True))


def test_odd_sizes(data) -> None:
    model = net()
    x, y = data[0]
    report = train(model, [(x[:33], y[:33])], optimizer_of(model), epochs=1, batch_size=16)
    assert report.steps == 2  # a last batch of one sample is left out
    single = nn.Linear(6, 3)
    report = train(single, [(x[:1], y[:1])], optimizer_of(single), epochs=2, batch_size=16)
    assert report.steps == 2
    assert train(single, data, optimizer_of(single), epochs=0).losses == ()
    table = [({"input": x}, y)]
    assert train(single, table, optimizer_of(single), epochs=1).steps == 1


def test_batches_of_one_and_sequences_of_their_own_length(data) -> None:
    x, y = data[0]
    model = nn.Linear(6, 3)
    assert train(model, [(x[:5], y[:5])], optimizer_of(model), epochs=1, batch_size=1).steps == 5
    uneven = [(torch.randn(1, n, 6), torch.randint(3, (1, n))) for n in (4, 5, 7)]
    assert train(model, uneven, optimizer_of(model), epochs=2).steps == 6


def test_a_resumed_run_with_other_settings_is_refused(data, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    model = net()
    train(model, data, torch.optim.Adam(model.parameters(), lr=1e-3), epochs=1, checkpoint=file)
    x, y = data[0]
    for lr, samples, words in (
        (1e-1, data, "another run: optimizer"),
        (1e-3, [(x + 1, y)], "another run: contents of the samples"),
    ):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        with pytest.raises(TrainingError, match=words):
            train(model, samples, optimizer, epochs=1, checkpoint=file)
        assert equal(model, net())


def test_a_gradient_that_is_no_number_keeps_the_weights(data) -> None:
    model = net()

    class Root(Callback):
        def loss(self, step: Step) -> Tensor:
            return (model[0].weight * 0.0).sum().sqrt()  # zero, with an infinite derivative

    with pytest.raises(TrainingError, match="gradient of step 0"):
        train(model, data, optimizer_of(model), epochs=1, callbacks=[Root()])
    assert equal(model, net())
