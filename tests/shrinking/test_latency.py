"""Tables of seconds, with a clock that counts multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from optiprune.shrinking.latency import latency_budget, profile_layers
from optiprune.shrinking.widths import Menu
from optiprune.structure import find_structure
from optiprune.structure.timing import Measure


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b = nn.Conv2d(8, 12, 1)
        self.c = nn.Conv2d(20, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.deep(torch.relu(self.a(x))))
        x = torch.relu(self.c(torch.cat([x, torch.relu(self.b(x))], 1)))
        return self.head(x.mean((2, 3)))


def test_seconds_follow_the_work_of_the_smaller_layers(work_clock: Measure) -> None:
    model, x = Net().eval(), torch.randn(2, 3, 7, 7)
    structure = find_structure(model, (x,))
    menus = [Menu(tuple(range(2, g.size + 1, 2)), (0.0,) * (g.size // 2)) for g in structure.groups]
    profile = profile_layers(model, structure, menus, (x,), measure=work_clock)
    # a joined layer has no table: it goes by multiply-adds, exact here
    assert sorted(t.groups for t in profile.tables) == [(0,), (0,), (1, 0), (2,)]
    sizes = [g.size for g in structure.groups]
    for widths in ([8, 12, 6], [4, 6, 2], [2, 12, 4], [6, 8, 6]):
        small = Net()
        a, b, c = widths
        small.a, small.deep = nn.Conv2d(3, a, 3, padding=1), nn.Conv2d(a, a, 3, 1, 1, groups=a)
        small.b, small.c = nn.Conv2d(a, b, 1), nn.Conv2d(a + b, c, 1)
        small.head = nn.Linear(c, 5)
        want, _ = work_clock(lambda net=small: net(x), lambda: None)
        assert profile.predicted(menus, widths) == pytest.approx(want, rel=1e-6)
    assert profile.seconds == pytest.approx(profile.predicted(menus, sizes))
    budget = latency_budget(profile, 0.5)
    assert budget.limit == pytest.approx(0.5 * profile.seconds)


def test_a_group_of_one_width_and_modes(work_clock: Measure) -> None:
    model, x = Net().train(), torch.randn(2, 3, 7, 7)
    structure = find_structure(model, (x,))
    menus = [Menu((g.size,), (0.0,)) for g in structure.groups]
    profile = profile_layers(model, structure, menus, (x,), measure=work_clock)
    assert model.training
    assert all(np.isfinite(t.seconds).all() for t in profile.tables)


def test_layers_that_take_more_than_the_model() -> None:
    model, x = Net().eval(), torch.randn(2, 3, 7, 7)
    structure = find_structure(model, (x,))
    menus = [Menu((1, g.size), (1.0, 0.0)) for g in structure.groups]
    profile = profile_layers(
        model, structure, menus, (x,), measure=lambda first, second: (1.0, 1.0)
    )
    # the model takes a second, and so does each of its four layers with a table
    assert profile.seconds == 1.0
    assert profile.predicted(menus, [g.size for g in structure.groups]) == pytest.approx(1.0)


def test_global_random_state_is_left_alone(work_clock: Measure) -> None:
    model, x = Net().eval(), torch.randn(2, 3, 7, 7)
    structure = find_structure(model, (x,))
    menus = [Menu((1, g.size), (1.0, 0.0)) for g in structure.groups]
    before = torch.get_rng_state()
    profile_layers(model, structure, menus, (x,), measure=work_clock)
    assert torch.equal(torch.get_rng_state(), before)
