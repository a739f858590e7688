"""A model is left as it was, whatever its forward does to itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optiprune.curvature.runner import run_model, untouched


class Counting(nn.Module):
    """Buffers changed in place, put in another's place, made and dropped by the forward."""

    count: Tensor
    total: Tensor
    spare: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("total", torch.zeros(2))
        self.register_buffer("spare", torch.ones(1))
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.total += x.sum()
        self.spare = None
        self.register_buffer("late", x.detach())
        self.none = torch.zeros(1)
        return x


def test_buffers_come_back_changed_reassigned_or_dropped() -> None:
    model = nn.Sequential(Counting())
    before = dict(model[0]._buffers)
    values = {k: None if b is None else b.clone() for k, b in before.items()}
    with untouched(model):
        run_model(model, {}, torch.ones(2))
    assert list(model[0]._buffers) == list(before)
    for name, buffer in before.items():
        now = model[0]._buffers[name]
        assert now is buffer
        assert now is None or torch.equal(now, values[name])


def test_buffers_come_back_after_an_error() -> None:
    model = Counting()
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), untouched(model):
        run_model(model, {}, torch.ones(2))
    assert int(model.count) == 3
    assert model.total.tolist() == [0, 0]


def test_random_state_is_back_and_only_the_forked_generators_are_seeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # torch.manual_seed reaches every accelerator, also those whose state nobody saved
    seeded: list[int] = []
    monkeypatch.setattr(torch.random, "manual_seed", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    model = nn.Sequential(nn.Dropout())
    torch.default_generator.manual_seed(5)
    state = torch.random.get_rng_state()
    drawn = []
    for _ in range(2):
        with untouched(model):
            drawn.append(torch.rand(3))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not seeded
