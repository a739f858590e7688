"""Small networks with the operations that structure has to follow, and inputs for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Two branches of a sum, a stride with a projection, batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.back = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.down = nn.Conv2d(8, 12, 1, stride=2)
        self.wide = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.sigmoid(self.inner(x)))
        x = F.relu(self.down(x) + self.wide(x))
        return self.head(x.mean((2, 3)))


class Flattened(nn.Module):
    """A convolution behind which each channel owns several columns of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.slope = nn.PReLU(6)
        self.fc = nn.Linear(6 * 4 * 4, 7)
        self.out = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_max_pool2d(self.slope(self.conv(x)), 4)
        return self.out(torch.tanh(self.fc(x.flatten(1))))


class Shuffled(nn.Module):
    """Channels cut in half, one half worked on, joined and shuffled by views; depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.a = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(2))
        self.deep = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, groups=6) for _ in range(2))
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for a, deep in zip(self.a, self.deep, strict=True):
            left, right = x.chunk(2, dim=1)
            x = torch.cat([left, deep(a(right))], 1)
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(x)


class Grouped(nn.Module):
    """A grouped convolution, a group norm, a pixel shuffle, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.norm = nn.GroupNorm(3, 18)
        self.up = nn.Conv2d(18, 16, 1)
        self.transposed = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(F.silu(self.stem(x)))
        x = F.pixel_shuffle(self.up(F.relu(self.norm(x))), 2)
        return self.head(F.interpolate(self.transposed(x), scale_factor=2.0))


class Dense(nn.Module):
    """Every layer reads what all before it made."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.b = nn.Conv2d(5, 4, 3, padding=1)
        self.both = nn.BatchNorm2d(9)
        self.c = nn.Conv2d(9, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(self.a(x))
        return self.c(F.gelu(self.both(torch.cat([a, self.b(F.relu(a))], 1))))


class Attention(nn.Module):
    """Heads by hand: a joint projection, scores, softmax, a gated MLP."""

    def __init__(self, width: int = 12, heads: int = 3, head: int = 4) -> None:
        super().__init__()
        self.heads, self.head = heads, head
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head)
        self.proj = nn.Linear(heads * head, width)
        self.gate = nn.Linear(width, 10)
        self.up = nn.Linear(width, 10)
        self.down = nn.Linear(10, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(b, t, 3, -1, self.head).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q @ k.transpose(-2, -1) * self.head**-0.5).softmax(-1)
        x = x + self.proj((scores @ v).transpose(1, 2).reshape(b, t, -1))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class FewKeys(nn.Module):
    """Grouped queries: two heads of queries for each of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 24)
        self.k = nn.Linear(8, 12)
        self.v = nn.Linear(8, 12)
        self.o = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        k, v = (y.repeat_interleave(2, 1) for y in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(out.transpose(1, 2).reshape(b, t, -1))


class Tied(nn.Module):
    """One layer called twice, and a decoder that is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.twice = nn.Linear(10, 10)
        self.down = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = torch.relu(self.twice(torch.relu(self.twice(h))))
        return F.linear(F.linear(h, self.down.weight), self.down.weight.t())


class Functional(nn.Module):
    """Parameters of its own, used by functions: scales, a matrix, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 9) / 3)
        self.scale = nn.Parameter(torch.rand(9) + 0.5)
        self.register_buffer("shift", torch.randn(9))
        self.frozen = nn.Linear(9, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(torch.relu((x @ self.weight) * self.scale + self.shift))


class Pixels(nn.Module):
    """Places become channels; channels are padded, flipped and repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 1)
        self.b = nn.Conv2d(16, 6, 1)
        self.c = nn.Conv2d(14, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.pixel_unshuffle(self.a(x), 2)))
        return self.c(torch.cat([x.flip(1), F.pad(x, (0, 0, 0, 0, 1, 1))], 1))


def image(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size)


NETWORKS = {
    "residual": (Residual, lambda: image()),
    "flattened": (Flattened, lambda: image(1, 12)),
    "shuffled": (Shuffled, lambda: image()),
    "grouped": (Grouped, lambda: image()),
    "dense": (Dense, lambda: image()),
    "attention": (Attention, lambda: torch.randn(2, 5, 12)),
    "few-keys": (FewKeys, lambda: torch.randn(2, 5, 8)),
    "tied": (Tied, lambda: torch.randn(3, 6)),
    "functional": (Functional, lambda: torch.randn(3, 6)),
    "pixels": (Pixels, lambda: image(2)),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor]]:
    """A network with weights, statistics and biases that are nowhere zero or one."""
    torch.manual_seed(seed)
    kind, inputs = NETWORKS[name]
    model = kind().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for key, b in model.named_buffers():
            if key.endswith("running_mean"):
                b.normal_()
            elif key.endswith("running_var"):
                b.uniform_(0.5, 2.0)
    return model, (inputs(),)
