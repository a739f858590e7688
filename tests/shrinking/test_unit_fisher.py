"""Gradients of gates against gates that are really there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from optiprune.curvature import CalibrationSet
from optiprune.curvature.losses import resolve_loss
from optiprune.shrinking.readers import Readers, find_readers
from optiprune.shrinking.unit_fisher import unit_fisher
from optiprune.structure import Structure, find_structure


class Net(nn.Module):
    """A residual stream, groups, a flatten of several places a unit, a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding="same")
        self.a = nn.Conv2d(6, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 6, 1)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, groups=2)
        self.hidden = nn.Linear(16, 5)
        self.twice = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.b(torch.relu(self.a(x)))
        x = torch.tanh(self.hidden(torch.relu(self.grouped(x)).flatten(1)))
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


def gated(model: nn.Module, structure: Structure, readers: Readers, z: Tensor) -> dict[str, Tensor]:
    """Weights with every unit's columns times its gate."""
    starts = np.cumsum([0, *(g.size for g in structure.groups)])
    out = {}
    for r in readers.readers:
        weight = dict(model.named_parameters())[r.layer.parameter].detach()
        at = [starts[g] + u if g >= 0 else -1 for g, u in zip(r.group, r.unit, strict=True)]
        gates = torch.stack([z[i] if i >= 0 else torch.ones(()) for i in at])
        columns = gates.reshape(r.layer.groups, -1).repeat_interleave(
            weight.shape[0] // r.layer.groups, 0
        )
        out[r.layer.parameter] = weight * columns.reshape(*columns.shape, *[1] * (weight.ndim - 2))
    return out


def setting() -> tuple[nn.Module, Structure, Readers, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Net().eval()
    x, y = torch.randn(400, 2, 6, 6), torch.randint(3, (400,))
    structure = find_structure(model, (x[:2],))
    return model, structure, find_readers(model, structure), x, y


def test_every_unit_is_read_where_it_is() -> None:
    _, structure, readers, _, _ = setting()
    assert not readers.unread
    assert {r.layer.name for r in readers.readers} == {
        "a", "b", "grouped", "hidden", "twice", "head",
    }  # fmt: skip
    flat = next(r for r in readers.readers if r.layer.name == "hidden")
    group = int(flat.group[0])
    assert [len(c) for c in flat.channels(group, structure.groups[group].size)] == [4] * 4


@pytest.mark.parametrize("chunk", [400, 150])
def test_the_gradient_is_that_of_the_gates(chunk: int) -> None:
    model, structure, readers, x, y = setting()
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    found = unit_fisher(
        model,
        structure,
        readers,
        data,
        resolve_loss("cross_entropy", y),
        np.random.SeedSequence(0),
        own=False,
        chunk=chunk,
    )
    n = sum(g.size for g in structure.groups)

    def outputs(z: Tensor) -> Tensor:
        return functional_call(model, gated(model, structure, readers, z), (x,))

    z = torch.ones(n, requires_grad=True)
    (want,) = torch.autograd.grad(F.cross_entropy(outputs(z), y), z)
    np.testing.assert_allclose(found.g, want.numpy(), atol=1e-6)
    J = torch.autograd.functional.jacobian(outputs, torch.ones(n))
    p = torch.softmax(outputs(torch.ones(n)).detach(), 1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    exact = (J.transpose(1, 2) @ middle @ J).mean(0).numpy()
    assert np.abs(found.H - exact).max() < 0.3 * np.abs(exact).max()
    assert np.linalg.eigvalsh(found.H).min() > -1e-9
    # both signs, as units that cancel have
    assert (exact < -1e-6).any()
    assert np.corrcoef(found.H.ravel(), exact.ravel())[0, 1] > 0.97


def test_a_unit_read_by_another_kind_of_layer_is_told() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(2, 4, 1)
            self.up = nn.ConvTranspose2d(4, 6, 2, stride=2)
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.up(torch.relu(self.a(x)))))

    model = Transposed().eval()
    structure = find_structure(model, (torch.randn(2, 2, 4, 4),))
    readers = find_readers(model, structure)
    assert {structure.groups[g].name: t for g, t in readers.unread.items()} == {"a": "up.weight"}
