"""Small networks whose channels couple in different ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Gated", "Residual", "Scaled", "conv_net", "mlp", "randomised"]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, every parameter and running statistic drawn at random."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / max(1, p.shape[-1]) ** 0.5)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.3 * torch.randn(b.shape, generator=g))
            elif name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=g))
    return model.eval()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 4)
    )


def conv_net() -> nn.Module:
    """3x3, batch norm, depthwise, PReLU for each channel, 1x1, pooling, flatten, linear."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.PReLU(8),
        nn.Conv2d(8, 16, 1),
        nn.MaxPool2d(2),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(16 * 9, 4),
    )


class Gated(nn.Module):
    """The feed-forward part of LLaMA between RMS norms, with its residual connection."""

    def __init__(self, width: int = 12, hidden: int = 16) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.final = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return self.final(x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h)))


class Residual(nn.Module):
    """A stem and two blocks on one stream of channels, read by a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 1)
        self.first = nn.ModuleList(nn.Conv2d(width, 12, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(2))
        self.second = nn.ModuleList(nn.Conv2d(12, width, 1) for _ in range(2))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, norm, second in zip(self.first, self.norms, self.second, strict=True):
            x = F.relu(x + second(F.relu(norm(first(x)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Causal attention of some heads."""

    def __init__(self, heads: int, width: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = (
            f(x).reshape(n, t, self.heads, -1).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(n, t, w))


class Scaled(nn.Module):
    """A gate for each channel, squeezed out of all of them, as in EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(4, 16, 1)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.expand(x))
        s = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.project(x * F.hardsigmoid(s)).mean((2, 3))
