"""Which layers share channels, and why others do not."""

from __future__ import annotations

import pytest
import torch
from coupled_networks import Attention, Gated, Residual, Scaled, conv_net, mlp, randomised
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from optiprune.permutation.coupling import find_groups

IMAGES = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
WORDS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))


def groups(model, x):
    found = find_groups(randomised(model), x).groups
    return [(g.channels, g.producers, dict(g.consumers), dict(g.carriers)) for g in found]


def faults(model, x):
    coupling = find_groups(randomised(model), x)
    assert coupling.groups == ()
    return coupling.faults


def test_layers_in_a_row():
    assert groups(mlp(), ROWS) == [
        (16, ("0",), {"2": 1}, {}),
        (24, ("2",), {"4": 1}, {}),
    ]


def test_normalisation_depthwise_and_slopes_move_along_and_a_flatten_makes_runs():
    assert groups(conv_net(), IMAGES) == [
        (8, ("0",), {"5": 1}, {"1": 1, "3": 1, "4": 1}),
        (16, ("5",), {"9": 9}, {"7": 1}),
    ]


def test_carriers_behind_a_flatten_own_runs_too():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.BatchNorm1d(128), nn.Linear(128, 4))
    assert groups(model, IMAGES) == [(8, ("0",), {"3": 16}, {"2": 16})]


def test_both_factors_of_a_gate_are_one_group():
    assert groups(Gated(), torch.randn(2, 3, 12)) == [
        (16, ("gate_proj", "up_proj"), {"down_proj": 1}, {})
    ]


def test_all_that_is_added_to_a_stream_is_one_group():
    assert groups(Residual(), IMAGES) == [
        (8, ("stem", "second.0", "second.1"), {"first.0": 1, "first.1": 1, "head": 1}, {}),
        (12, ("first.0",), {"second.0": 1}, {"norms.0": 1}),
        (12, ("first.1",), {"second.1": 1}, {"norms.1": 1}),
    ]


def test_a_gate_for_each_channel_belongs_to_them():
    assert groups(Scaled(), IMAGES) == [
        (16, ("expand", "excite"), {"squeeze": 1, "project": 1}, {}),
        (4, ("squeeze",), {"excite": 1}, {}),
    ]


def test_queries_and_keys_make_no_group_and_values_in_heads_look_free():
    found = find_groups(randomised(Attention(4)), WORDS).groups
    # a few channels cannot show the heads: reordering them all does, in permute_channels
    assert [(g.producers, dict(g.consumers)) for g in found] == [(("v_proj",), {"o_proj": 1})]


class Shared(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        if again == "tied":
            self.last = nn.Linear(12, 12)
            self.last.weight = self.middle.weight
        if again == "view":
            self.last = nn.Linear(12, 12)
            self.last.weight = nn.Parameter(self.middle.weight.data.T)
        self.again = again

    def forward(self, x):
        x = torch.relu(self.middle(torch.relu(self.first(x))))
        if self.again == "twice":
            x = torch.relu(self.middle(x))
        return self.last(x)


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        ("twice", "'middle' is called 2 times in one pass"),
        ("tied", "'middle' (Linear) shares its parameters with 'last'"),
        ("view", "'middle' (Linear) shares its parameters with 'last'"),
    ],
)
def test_shared_modules_and_parameters_are_left_alone(again, reason):
    assert faults(Shared(again), ROWS)["middle"] == reason


class Reads(nn.Module):
    """Two linear layers with something in between, or past the second."""

    def __init__(self, between, past=False):
        super().__init__()
        self.first, self.between, self.second = nn.Linear(12, 16), between, nn.Linear(16, 4)
        self.past = past

    def forward(self, x):
        h = self.between(self.first(x))
        return (self.second(h), h) if self.past else self.second(h)


class Grown(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class Refuses(nn.Module):
    def forward(self, x):
        if torch.isnan(x).any():
            raise FloatingPointError("NaN in the activations")
        return x


class Flips(nn.Module):
    def forward(self, x):
        return x.flip(-1)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("between", "at", "reason"),
    [
        (nn.LayerNorm(16), "between", "'between' (LayerNorm) is of a kind through which"),
        (Own(), "between", "'between' (Own) is of a kind through which"),
        (nn.Softmax(-1), "second", "channels of 'first' arrive at 'second' mixed or elsewhere"),
        (Flips(), "second", "channels of 'first' arrive at 'second' mixed or elsewhere"),
        (weight_norm(nn.Linear(16, 16)), "between", "reparametrised"),
        (Grown(16, 16), "between", "'between' (Grown) has a forward of its own"),
    ],
)
def test_what_channels_cannot_be_followed_through_is_named(between, at, reason):
    assert reason in faults(Reads(between), ROWS)[at]


def test_channels_of_the_output_keep_their_order():
    assert faults(Reads(nn.ReLU(), past=True), ROWS) == {
        "second": "channels of 'first' reach the model's output"
    }


def test_a_model_that_refuses_nan_has_no_groups():
    assert faults(Reads(Refuses()), ROWS) == {}


def test_grouped_convolutions_are_left_out():
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1))
    found = faults(model, IMAGES)
    assert found["1"] == "'1' (Conv2d) is a grouped convolution"


def test_swapped_channels_do_not_pass_for_the_same():
    class Shuffle(nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    model = nn.Sequential(nn.Conv2d(4, 8, 1), Shuffle(), nn.Conv2d(8, 4, 1))
    assert "mixed or elsewhere" in faults(model, IMAGES)["2"]


def test_the_model_is_as_before_and_keeps_no_hooks():
    model = randomised(conv_net()).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    find_groups(model, IMAGES)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
