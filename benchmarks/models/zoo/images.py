"""Networks that return images, and MobileNetV3 and MLP-Mixer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLPMixer", "MobileNetV3", "SuperResolution", "UNet"]


def twice(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox (2015), padded, with batch norm.

    Parameters
    ----------
    bilinear : interpolation and a 1x1 convolution instead of transposed convolutions
    """

    def __init__(self, base: int = 32, depth: int = 4, bilinear: bool = False) -> None:
        super().__init__()
        widths = [base * 2**i for i in range(depth + 1)]
        self.enter = twice(3, base)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(twice(a, b) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                nn.Conv2d(b, a, 1),
            )
            if bilinear
            else nn.ConvTranspose2d(b, a, 2, stride=2)
            for a, b in reversed(pairs)
        )
        self.merge = nn.ModuleList(twice(2 * a, a) for a, _ in reversed(pairs))
        self.head = nn.Conv2d(base, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        kept = []
        for down in self.down:
            kept.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([kept.pop(), up(x)], 1))
        return self.head(x)


class SuperResolution(nn.Module):
    """Residual blocks of Lim et al. (2017) with the sub-pixel convolutions of Shi et al. (2016)."""

    def __init__(self, width: int = 48, blocks: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.up = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.slope = nn.PReLU(width)
        self.last = nn.Conv2d(width, 3 * 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        y = h
        for first, second in zip(self.first, self.second, strict=True):
            y = y + 0.1 * second(F.relu(first(y)))
        y = self.slope(self.shuffle(self.up(y + h)))
        return self.shuffle(self.last(y)) + F.interpolate(x, scale_factor=4.0, mode="bicubic")


def _eighth(n: float) -> int:
    """The multiple of 8 that is nearest, at least 90 % of n."""
    near = max(8, int(n + 4) // 8 * 8)
    return near + 8 if near < 0.9 * n else near


class InvertedResidual(nn.Module):
    """Wide, depthwise, squeeze and excitation, narrow."""

    def __init__(
        self, before: int, wide: int, after: int, kernel: int, stride: int, gate: bool, hard: bool
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(before, wide, 1, bias=False) if wide != before else None
        self.norm1 = nn.BatchNorm2d(wide)
        self.deep = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.squeeze = nn.Conv2d(wide, _eighth(wide / 4), 1) if gate else None
        self.excite = nn.Conv2d(_eighth(wide / 4), wide, 1) if gate else None
        self.project = nn.Conv2d(wide, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.active = F.hardswish if hard else F.relu
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.active(self.norm1(self.expand(x)))
        y = self.active(self.norm2(self.deep(y)))
        if self.squeeze is not None and self.excite is not None:
            mean = F.adaptive_avg_pool2d(y, 1)
            y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(mean))))
        y = self.norm3(self.project(y))
        return x + y if self.residual else y


# kernel, expansion, out, squeeze and excitation, hard swish, stride: Table 1 of the paper
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class MobileNetV3(nn.Module):
    """Howard et al. (2019), large."""

    def __init__(self, classes: int = 1000, blocks: int = 15) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        made: list[nn.Module] = []
        before = 16
        for kernel, wide, after, gate, hard, stride in _LARGE[:blocks]:
            made.append(InvertedResidual(before, wide, after, kernel, stride, gate, hard))
            before = after
        self.blocks = nn.Sequential(*made)
        self.last = nn.Conv2d(before, 6 * before, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(6 * before)
        self.hidden = nn.Linear(6 * before, 1280)
        self.head = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.hardswish(self.norm(self.stem(x))))
        x = F.hardswish(self.last_norm(self.last(x))).mean((2, 3))
        return self.head(F.hardswish(self.hidden(x)))


class MixerBlock(nn.Module):
    def __init__(self, width: int, places: int, across: int, within: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(places, across), nn.GELU(), nn.Linear(across, places))
        self.norm2 = nn.LayerNorm(width)
        self.within = nn.Sequential(nn.Linear(width, within), nn.GELU(), nn.Linear(within, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.norm2(x))


class MLPMixer(nn.Module):
    """Tolstikhin et al. (2021): perceptrons across places and within them."""

    def __init__(self, size: int = 64, width: int = 96, depth: int = 4, classes: int = 100) -> None:
        super().__init__()
        places = (size // 8) ** 2
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(
            *(MixerBlock(width, places, 48, 4 * width) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))
