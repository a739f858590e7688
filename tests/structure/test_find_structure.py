"""Groups of small networks, by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from structure_networks import build
from torch import nn

from optiprune.structure import TraceError, find_structure


def sizes(name: str) -> dict[str, tuple[str, int]]:
    model, args = build(name)
    return {g.name: (g.kind, g.size) for g in find_structure(model, args)}


def members(name: str, group: str) -> set[tuple[str, int, bool]]:
    model, args = build(name)
    found = next(g for g in find_structure(model, args) if g.name == group)
    return {(m.tensor, m.dim, m.reads) for m in found.members}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        (
            "residual",
            {"stem": ("channels", 8), "inner": ("channels", 6), "down": ("channels", 12)},
        ),
        ("flattened", {"conv": ("channels", 6), "fc": ("neurons", 7)}),
        ("dense", {"a": ("channels", 5), "b": ("channels", 4)}),
        ("attention", {"qkv": ("heads", 3), "gate": ("neurons", 10)}),
        ("few-keys", {"q": ("heads", 3)}),
        ("tied", {"down": ("neurons", 4)}),
        ("functional", {"weight": ("neurons", 9)}),
    ],
)
def test_groups_and_their_sizes(name: str, want: dict[str, tuple[str, int]]) -> None:
    assert sizes(name) == want


def test_members_of_a_sum_with_its_norm_and_readers() -> None:
    assert members("residual", "stem") == {
        ("stem.weight", 0, False),
        ("stem.bias", 0, False),
        ("norm.weight", 0, False),
        ("norm.bias", 0, False),
        ("norm.running_mean", 0, False),
        ("norm.running_var", 0, False),
        ("back.weight", 0, False),
        ("inner.weight", 1, True),
        ("down.weight", 1, True),
        ("wide.weight", 1, True),
    }


def test_a_channel_owns_its_columns_behind_a_flatten() -> None:
    model, args = build("flattened")
    group = find_structure(model, args).groups[0]
    columns = next(m for m in group.members if m.tensor == "fc.weight")
    want = [list(range(16 * c, 16 * c + 16)) for c in range(6)]
    assert [i.tolist() for i in columns.indices] == want


def test_a_head_of_keys_takes_its_queries_along() -> None:
    model, args = build("few-keys")
    group = find_structure(model, args).groups[0]
    rows = {m.tensor: [len(i) for i in m.indices] for m in group.members}
    assert rows["q.weight"] == [8, 8, 8]
    assert rows["k.weight"] == rows["v.weight"] == [4, 4, 4]
    assert rows["o.weight"] == [8, 8, 8]


class Rolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.a(x))
        return self.b(torch.roll(h, 1, dims=1))


class Unknown(Rolled):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.fft.fft(self.a(x)).real)


@pytest.mark.parametrize(("kind", "operation"), [(Rolled, "aten.roll"), (Unknown, "aten.fft_fft")])
def test_an_operation_that_breaks_the_order_is_a_barrier_with_its_name_and_line(
    kind: type[nn.Module], operation: str
) -> None:
    found = find_structure(kind(), (torch.randn(3, 4),))
    assert not found.groups
    why = next(h.barrier for h in found.held if (h.tensor, h.dim) == ("a.weight", 0))
    assert why.operation.startswith(operation)
    assert why.line.startswith("test_find_structure.py:")


def test_what_the_model_returns_and_reads_stays() -> None:
    model, args = build("residual")
    held = {(h.tensor, h.dim): h.barrier.reason for h in find_structure(model, args).held}
    assert held["head.weight", 0] == "the model returns it"
    assert "fixed number of channels" in held["stem.weight", 1]


class OneUnit(nn.Module):
    """Halves of a width: in one all units are one, in the other they are not."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 2)
        self.free = nn.Linear(4, 2)
        self.left = nn.Linear(2, 3)
        self.right = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.one(x)
        left, right = torch.cat([one + one.flip(1), self.free(x)], 1).chunk(2, dim=1)
        return self.left(left) + self.right(right)


def test_a_unit_that_is_alone_is_in_no_group_and_stays_in_a_balance() -> None:
    found = find_structure(OneUnit(), (torch.randn(3, 4),))
    assert [g.name for g in found] == ["free"]
    stays = (-1, -1)
    assert [b.parts for b in found.balances] == [((stays, stays), ((0, 0), (0, 1)))]
    held = {(h.tensor, h.dim): (h.count, h.barrier.operation) for h in found.held}
    assert held["one.weight", 0] == held["left.weight", 1] == (2, "coupling")


def test_the_model_is_left_as_it_was() -> None:
    model, args = build("residual")
    model.norm.train()
    before = copy.deepcopy(model.state_dict())
    find_structure(model, args)
    assert model.norm.training
    assert not model.stem.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_model_that_cannot_be_traced_says_so() -> None:
    class Branch(Rolled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) if float(x.sum()) > 0 else x

    with pytest.raises(TraceError, match="could not trace Branch"):
        find_structure(Branch(), (torch.randn(3, 4),))
