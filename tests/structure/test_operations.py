"""Operations one at a time: which groups they leave, and that what is left computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_shrink import some_units
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from optiprune.structure import Plan, confirmed, find_structure, shrink, total


class Cosine(nn.Module):
    """Attention by the angle between queries and keys, with a bias for each head that a small
    network computes from a table of places."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.scale = nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        self.places = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
        self.register_buffer("table", torch.randn(1, 5, 5, 2))
        self.out = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        bias = self.places(self.table)
        bias = bias.view(-1, bias.shape[-1]).view(t, t, -1).permute(2, 0, 1)
        scores = scores * self.scale + bias[None]
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))


class PartlyTurned(nn.Module):
    """Rotary positions on a part of every head, by pairs; the rest passes."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.out = nn.Linear(12, 8)

    def turned(self, x: Tensor) -> Tensor:
        first, rest = x[..., :2], x[..., 2:]
        angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None]
        pairs = torch.stack((-first[..., 1::2], first[..., ::2]), -1).flatten(-2)
        return torch.cat([first * angle.cos() + pairs * angle.sin(), rest], -1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = self.turned(q) @ self.turned(k).transpose(-2, -1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))


class Between(nn.Module):
    """A function between two layers over channels."""

    def __init__(self, function: str, before: int, after: int) -> None:
        super().__init__()
        self.function = function
        self.a = nn.Conv2d(3, before, 1)
        self.b = nn.Conv2d(after, 2, 1)
        self.register_buffer("grid", torch.rand(1, 4, 4, 2) * 2 - 1)
        self.register_buffer("index", torch.tensor([3, 1, 1, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(getattr(self, self.function)(self.a(x)))

    def glu(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)

    def unfolded(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return F.unfold(x, 3, padding=1).view(b, -1, h, w)

    def folded(self, x: Tensor) -> Tensor:
        return F.fold(x.flatten(2), (8, 8), 2, stride=2)[:, :, :4, :4]

    def sampled(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, self.grid.expand(len(x), -1, -1, -1), align_corners=False)

    def looked_up(self, x: Tensor) -> Tensor:
        x = x.index_select(3, self.index[:3]).triu(1)
        return x.gather(2, self.index[None, None, :2, None].expand(*x.shape[:2], 2, 3) % 4)

    def extremes(self, x: Tensor) -> Tensor:
        values, _ = x.max(3, keepdim=True)
        spread, mean = torch.var_mean(x, 2, keepdim=True)
        return torch.max(values, torch.sqrt(spread)) + mean + torch.floor(x)

    def filled(self, x: Tensor) -> Tensor:
        return torch.where(x > 0.1, x, torch.zeros_like(x)) + x.new_ones(1)


class Einstein(nn.Module):
    """Attention in Einstein sums: projections by weights of three dimensions, scores, values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(8, 3, 4)) for _ in range(3))
        self.out = nn.Parameter(torch.randn(3, 4, 8))
        self.up = nn.Parameter(torch.randn(7, 8))
        self.down = nn.Parameter(torch.randn(8, 7))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,chd->bthd", x, w) for w in (self.q, self.k, self.v))
        weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        x = torch.einsum("bhij,bjhd->bihd", weights, v)
        x = torch.einsum("bthd,hdc->btc", x, self.out)
        return torch.einsum("btu,cu", torch.einsum("btc, uc -> btu", x, self.up).relu(), self.down)


class Experts(nn.Module):
    """A product with the weights of the expert that each row chose."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.up = nn.Parameter(torch.randn(3, 10, 6))
        self.down = nn.Parameter(torch.randn(3, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(-1)
        gate, up = torch.bmm(self.up[chosen], x[:, :, None])[..., 0].chunk(2, -1)
        return torch.bmm(self.down[chosen], (F.silu(gate) * up)[:, :, None])[..., 0]


class Inner(nn.Module):
    """Numbers of heads and of their width altogether, in a module that does not hold the output
    projection."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.all_heads = 3, 12
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, self.heads, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).reshape(b, t, self.all_heads)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.out = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x))


def words() -> Tensor:
    return torch.randn(2, 5, 8)


def image() -> Tensor:
    return torch.randn(2, 3, 4, 4)


CASES = {
    "cosine": (Cosine, words, {"scale": ("heads", 3), "places.0": ("neurons", 6)}),
    "partly turned": (PartlyTurned, words, {"q": ("heads", 3)}),
    "glu": (lambda: Between("glu", 12, 6), image, {"a": ("channels", 6)}),
    "unfold": (lambda: Between("unfolded", 4, 36), image, {"a": ("channels", 4)}),
    "fold": (lambda: Between("folded", 24, 6), image, {"a": ("channels", 6)}),
    "grid": (lambda: Between("sampled", 5, 5), image, {"a": ("channels", 5)}),
    "indices": (lambda: Between("looked_up", 5, 5), image, {"a": ("channels", 5)}),
    "extremes": (lambda: Between("extremes", 5, 5), image, {"a": ("channels", 5)}),
    "filled": (lambda: Between("filled", 5, 5), image, {"a": ("channels", 5)}),
    "einstein": (
        Einstein,
        words,
        {
            "q": ("heads", 3),
            "q#2": ("neurons", 4),
            "v": ("neurons", 4),
            "out": ("neurons", 8),
            "up": ("neurons", 7),
        },
    ),
    "experts": (Experts, lambda: torch.randn(7, 6), {"up": ("neurons", 5)}),
    "numbers inside": (Outer, words, {"inner.q": ("heads", 3)}),
}


def torch_macs(model: nn.Module, args: tuple[Tensor, ...]) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*args)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", CASES)
def test_what_an_operation_leaves(name: str) -> None:
    torch.manual_seed(0)
    make, inputs, want = CASES[name]
    model, args = make().eval(), (inputs(),)
    structure = confirmed(model, find_structure(model, args), args, {})
    assert {g.name: (g.kind, g.size) for g in structure} == want
    plan = Plan.of(structure, some_units(structure, 0))
    small = shrink(model, plan, args, structure=structure)
    assert small.parameters_after < small.parameters_before
    assert total(structure.multiply_adds, {}) == torch_macs(model, args)
    kept = plan.kept(structure)
    assert total(structure.multiply_adds, kept) == pytest.approx(torch_macs(small.model, args))


def test_a_weight_that_the_program_computes_holds_what_reads_it() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv1d(3, 8, 1)
            grouped = nn.Conv1d(8, 8, 3, groups=2)
            self.b = nn.utils.parametrizations.weight_norm(grouped, dim=2)
            self.c = nn.Conv1d(8, 5, 1)
            self.d = nn.Conv1d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(self.b(self.a(x))))

    structure = find_structure(Computed(), (torch.randn(2, 3, 9),))
    assert [g.name for g in structure] == ["c"]
    why = {(h.tensor, h.dim): h.barrier.reason for h in structure.held}
    assert "weight of a fixed size" in why["a.weight", 0]
    assert "bias is fixed" in why["b.bias", 0]
    assert "norm of zero" in why["b.parametrizations.weight.original1", 0]


def test_a_recurrent_layer_stays_and_says_why() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)
            self.lstm = nn.LSTM(6, 5, batch_first=True)
            self.b = nn.Linear(5, 7)
            self.c = nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.lstm(self.a(x))
            return self.c(self.b(states[:, -1]))

    structure = find_structure(Recurrent(), (torch.randn(2, 3, 4),))
    assert [g.name for g in structure] == ["b"]
    why = {(h.tensor, h.dim): h.barrier.reason for h in structure.held}
    assert "feeds itself" in why["a.weight", 0]
    assert "feeds itself" in why["lstm.weight_hh_l0", 1]


class Cancelling(nn.Module):
    """Outputs that are the small difference of large numbers, so that rounding shows."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        self.a = nn.Linear(64, 512)
        self.b = nn.Linear(512, 64)
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).sigmoid()
        # a little of the number of neurons gets into the result
        more = 2e-7 * h.shape[1] if self.wrong else 0.0
        return (self.b(h) + 300.0) - 300.0 + more


def test_rounding_is_told_from_an_error() -> None:
    torch.manual_seed(0)
    args = (torch.randn(64, 64),)
    for wrong in (False, True):
        model = Cancelling(wrong).eval()
        structure = find_structure(model, args)
        left = confirmed(model, structure, args, {})
        plan = Plan.of(structure, {"a": range(0, 512, 3)})
        if wrong:
            from optiprune.structure import GateError

            with pytest.raises(GateError, match="differs from the masked one"):
                shrink(model, plan, args, structure=structure)
        else:
            assert [g.name for g in left] == ["a"]
            compared = shrink(model, plan, args, structure=structure).compared
            assert compared[0].in_double
            assert compared[0].error < 1e-10
