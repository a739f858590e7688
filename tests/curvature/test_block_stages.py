"""Which layers one pass serves."""

import pytest
from torch import nn

from optiprune.curvature import block_stages, find_layers
from optiprune.curvature.block_stages import SharedInputs


@pytest.fixture
def layers():
    """q, k and v of 4 inputs, called with one tensor; o of 4; down of 8."""
    parts = {name: nn.Linear(4, 4) for name in ("q", "k", "v", "o")}
    return find_layers(nn.ModuleDict({**parts, "down": nn.Linear(8, 4)}))


def names(bunches):
    return ["".join(layer.name[0] for layer in bunch) for bunch in bunches]


@pytest.mark.parametrize(
    ("most", "sets", "want"),
    [
        (96, 1, ["qkvod"]),  # 16 for the first three, 16, 64
        (95, 1, ["qkvo", "d"]),
        (31, 1, ["qkv", "o", "d"]),  # one that does not fit at all is alone
        (96, 2, ["qkvo", "d"]),
        (1, 3, ["qkv", "o", "d"]),
    ],
)
def test_an_input_counts_once_in_a_bunch(monkeypatch, layers, most, sets, want):
    monkeypatch.setattr(block_stages, "_TOGETHER", most)
    monkeypatch.setattr(block_stages, "_LARGEST", 0)
    shared = SharedInputs(dict.fromkeys("qkv", "q"))
    assert names(shared.bunches(layers, sets)) == want
    assert shared.bunches([], sets) == []


def test_without_shared_inputs_every_layer_counts(monkeypatch, layers):
    monkeypatch.setattr(block_stages, "_TOGETHER", 48)
    monkeypatch.setattr(block_stages, "_LARGEST", 0)
    assert names(SharedInputs().bunches(layers, 1)) == ["qkv", "o", "d"]


@pytest.mark.parametrize("sets", [1, 2])
def test_what_is_small_beside_the_largest_layer_goes_with_it(monkeypatch, layers, sets):
    monkeypatch.setattr(block_stages, "_TOGETHER", 1)
    shared = SharedInputs(dict.fromkeys("qkv", "q"))
    assert names(shared.bunches(layers, sets)) == ["qkvod"]  # 32 beside 64
    assert names(SharedInputs().bunches(layers, sets)) == ["qkvo", "d"]  # 64 beside 64
