"""Layers without their rows and columns of zeros."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optiprune.structure import FormError, compacted
from optiprune.structure.forms.candidates import Seen
from optiprune.structure.forms.compact import _WAYS, _without, compact_forms


def later(first, second) -> tuple[float, float]:
    """The second always wins: the last form that is tried."""
    first()
    second()
    return 2.0, 1.0


def seen(x: Tensor) -> list[Seen]:
    return [Seen(torch.empty_like(x, device="meta"), x.device)]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["linear", "conv1d", "conv2d"]),
    way=st.sampled_from(_WAYS),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_form_is_exact(kind: str, way: str, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer: nn.Module
    if kind == "linear":
        layer, x = nn.Linear(7, 6, bias=bias), torch.randn(2, 3, 7)
    elif kind == "conv1d":
        layer, x = nn.Conv1d(7, 6, 3, padding=1, bias=bias), torch.randn(2, 7, 9)
    else:
        layer, x = nn.Conv2d(7, 6, 3, stride=2, bias=bias), torch.randn(2, 7, 8, 9)
    rows, columns = torch.rand(6) < 0.6, torch.rand(7) < 0.6
    rows[0] = columns[0] = True
    with torch.no_grad():
        layer.weight[~rows] = 0.0
        layer.weight[:, ~columns] = 0.0
    axis = -1 if kind == "linear" else -(layer.weight.ndim - 1)
    new = _without(layer, rows, columns, axis, way)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(new(x), layer(x), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in new.parameters()) <= sum(p.numel() for p in layer.parameters())


class Branches(nn.Module):
    """A sum of two branches that make different channels of it, read by a layer that uses few."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.stem(x))
        x = x + F.relu(self.norm(self.a(x))) + self.b(x)
        return self.head(x.mean((2, 3)))


def sparse() -> tuple[Branches, Tensor]:
    torch.manual_seed(0)
    model = Branches().eval()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.a.weight[[0, 1, 2]] = 0.0
        model.a.weight[:, [3, 4]] = 0.0
        model.b.weight[[4, 5]] = 0.0
    return model, torch.randn(2, 3, 9, 9)


def test_branches_lose_different_channels() -> None:
    model, x = sparse()
    before = copy.deepcopy(model.state_dict())
    done = compacted(model, (x,), measure=later)
    replaced = {r.module for r in done.records if r.replaced}
    assert replaced == {"a", "b"}
    assert "no row and no column of zeros" in next(
        r.reason for r in done.records if r.module == "head"
    )
    assert max(c.error for c in done.compared) <= 1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again = copy.deepcopy(done.model)
    again.load_state_dict(done.model.state_dict())
    exported = torch.export.export(again, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-5)


def test_nothing_is_replaced_that_is_slower() -> None:
    model, x = sparse()
    done = compacted(model, (x,), measure=lambda a, b: (1.0, 1.0))
    assert not any(r.replaced for r in done.records)
    with torch.no_grad():
        assert torch.equal(done.model(x), model(x))


def test_layers_without_a_form() -> None:
    dense, x = nn.Linear(4, 3), torch.randn(2, 4)
    with pytest.raises(FormError, match="no row and no column"):
        compact_forms(dense, seen(x), later)
    with torch.no_grad():
        dense.weight.zero_()
    with pytest.raises(FormError, match="all of its weights are zero"):
        compact_forms(dense, seen(x), later)
    with pytest.raises(FormError, match="several groups"):
        compact_forms(nn.Conv2d(4, 4, 1, groups=2), seen(torch.randn(1, 4, 3, 3)), later)
