"""Lists without some of their blocks, against models that skip them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiprune.structure import GateError, PlanError, find_blocks, remove_blocks
from optiprune.structure.blocks import skipped


class Block(nn.Module):
    def __init__(self, index: int, width: int = 6) -> None:
        super().__init__()
        self.layer_idx = index
        self.inner = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, hidden: Tensor, scale: float = 1.0) -> tuple[Tensor, int]:
        return hidden + scale * self.inner(hidden), self.layer_idx


class Stack(nn.Module):
    """Blocks in a list that a config counts, as models of language have them."""

    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=blocks, layer_types=list("abcde"[:blocks]))
        self.embed = nn.Linear(4, 6)
        self.layers = nn.ModuleList(Block(i) for i in range(blocks))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for i, layer in enumerate(self.layers[: self.config.num_hidden_layers]):
            h, index = layer(hidden=h, scale=0.5)
            assert index == i
            assert self.config.layer_types[i]
        return self.head(h)


def model() -> tuple[Stack, Tensor]:
    torch.manual_seed(0)
    return Stack().eval(), torch.randn(3, 4)


def test_blocks_keep_the_shape_of_their_input() -> None:
    m, x = model()
    blocks = find_blocks(m, (x,))
    assert [b.name for b in blocks] == [f"layers.{i}" for i in range(5)]
    assert {b.parameters for b in blocks} == {6 * 9 + 9 + 9 * 6 + 6}
    widening = nn.Sequential(nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(6, 6)))
    assert find_blocks(widening, (x,)) == ()  # one block that does is no list of blocks


def test_a_shorter_list_computes_what_skipping_computes() -> None:
    m, x = model()
    before = copy.deepcopy(m.state_dict())
    result = remove_blocks(m, ["layers.1", "layers.3"], (x,))
    small: Any = result.model
    assert len(small.layers) == 3
    assert small.config.num_hidden_layers == 3
    assert small.config.layer_types == ["a", "c", "e"]
    assert [layer.layer_idx for layer in small.layers] == [0, 1, 2]
    assert result.parameters_before - result.parameters_after == 2 * (6 * 9 + 9 + 9 * 6 + 6)
    assert m.config.num_hidden_layers == 5
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    masked = copy.deepcopy(m)
    handles = skipped(masked, ["layers.1", "layers.3"])
    with torch.no_grad():
        want, dense = masked(x), m(x)
        for handle in handles:
            handle.remove()
        assert torch.equal(masked(x), dense)
        torch.testing.assert_close(small(x), want)
        assert float((want - dense).abs().max()) > 1e-3
    assert small.training is m.training


def test_a_model_that_counts_its_blocks_itself_fails_at_the_gate() -> None:
    class Counting(Stack):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layers[4](self.layers[0](self.embed(x))[0])[0])

    m, x = Counting().eval(), torch.randn(3, 4)
    with pytest.raises(GateError, match="fails on inputs"):
        remove_blocks(m, ["layers.0"], (x,))


def test_wrong_names() -> None:
    m, x = model()
    with pytest.raises(PlanError, match="'head' is no block"):
        remove_blocks(m, ["head"], (x,))
    with pytest.raises(PlanError, match="one must stay"):
        remove_blocks(m, [f"layers.{i}" for i in range(5)], (x,))
